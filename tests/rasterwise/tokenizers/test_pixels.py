"""The pixel tokenizer."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig

EVERY_VALUE = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_256_levels_lose_nothing() -> None:
    """Encoding and decoding all 256 values gives them back."""
    tokenizer = PixelTokenizer()
    assert torch.equal(tokenizer.decode(tokenizer.encode(EVERY_VALUE)), EVERY_VALUE)
    assert tokenizer.grid(3, 4, 5) == Grid(3, 4, 5, 256)
    assert isinstance(tokenizer, ImageTokenizer)


@pytest.mark.parametrize("levels", [2, 4, 8, 16, 32, 64, 128])
def test_fewer_levels(levels: int) -> None:
    """Levels share out the values evenly, decoding keeps black and white, and encoding undoes decoding."""
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=levels))
    symbols = tokenizer.encode(EVERY_VALUE)
    assert torch.bincount(symbols.flatten()).tolist() == [256 // levels] * levels
    decoded = tokenizer.decode(symbols)
    assert decoded.min() == 0
    assert decoded.max() == 255
    assert torch.equal(tokenizer.encode(decoded), symbols)


def test_dynamic_binarization_draws_bernoulli() -> None:
    """Pixels are on as often as they are bright; black never and white always; the seed decides."""
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=True))
    images = torch.tensor([0, 64, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2).expand(20_000, -1, -1, -1)
    symbols = tokenizer.encode(images, torch.Generator().manual_seed(0))
    means = symbols.double().mean(0).flatten()
    assert means[0] == 0
    assert means[3] == 1
    torch.testing.assert_close(means[1:3], torch.tensor([64 / 255, 128 / 255]).double(), atol=0.02, rtol=0)
    assert torch.equal(symbols, tokenizer.encode(images, torch.Generator().manual_seed(0)))


def test_fingerprints_tell_settings_apart() -> None:
    """Two levels drawn are not two levels cut."""
    cut = PixelTokenizer(PixelTokenizerConfig(levels=2))
    drawn = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=True))
    assert cut.fingerprint == PixelTokenizer(PixelTokenizerConfig(levels=2)).fingerprint
    assert cut.fingerprint != drawn.fingerprint


def test_refusals() -> None:
    """Odd levels, dynamic grey and floats are refused by name."""
    with pytest.raises(InputError, match="levels is 3"):
        PixelTokenizerConfig(levels=3)
    with pytest.raises(InputError, match="2 levels, not 4"):
        PixelTokenizerConfig(levels=4, dynamic=True)
    with pytest.raises(InputError, match="float32"):
        PixelTokenizer().encode(torch.zeros(1, 1, 2, 2))
