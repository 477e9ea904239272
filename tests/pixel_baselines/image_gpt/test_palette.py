"""The palette's colours are the dataset's, and every pixel gets the nearest one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ImageGPTImageProcessor

import pixel_baselines.image_gpt.palette
from pixel_baselines.image_gpt.palette import MAX_PIXELS, PaletteConfig, PaletteTokenizer
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.files import write_json
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(colours: int = 16, channels: int = 3, seed: int = 0) -> PaletteTokenizer:
    return PaletteTokenizer(PaletteConfig(colours, channels)).fit(random_images(8, channels, 9, 7), seed=seed)


def test_is_a_tokenizer() -> None:
    """It meets the protocol, and its grid has one symbol a pixel."""
    tokenizer = fitted()
    assert isinstance(tokenizer, ImageTokenizer)
    grid = tokenizer.grid(3, 5, 4)
    assert grid == Grid(1, 5, 4, 16)
    assert tokenizer.image_shape(grid) == (3, 5, 4)
    grid.check(tokenizer.encode(random_images(2, 3, 5, 4)))


@pytest.mark.parametrize("channels", [1, 3])
def test_nearest_colour(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Symbols are the nearest colours' by brute force in float64, also across the borders of chunks."""
    monkeypatch.setattr(pixel_baselines.image_gpt.palette, "PIXELS_AT_ONCE", 17)
    tokenizer, images = fitted(channels=channels), random_images(3, channels, 5, 4, seed=1)
    pixels = images.movedim(1, 3).reshape(-1, channels).double()
    expected = (pixels[:, None] - tokenizer.palette.double()).square().sum(2).argmin(1)
    assert torch.equal(tokenizer.encode(images), expected.view(3, 1, 5, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.encode(images), expected.view(3, 1, 5, 4))


def test_ties_go_to_the_first_colour() -> None:
    """A pixel exactly between two colours gets the first of them, whatever is near it."""
    tokenizer = PaletteTokenizer(PaletteConfig(2, 1)).fit(torch.tensor([[[[10, 20]]]], dtype=torch.uint8))
    assert tokenizer.encode(torch.full((1, 1, 50, 50), 15, dtype=torch.uint8)).eq(0).all()
    assert tokenizer.encode(torch.tensor([[[[14, 15, 16]]]], dtype=torch.uint8)).tolist() == [[[[0, 0, 1]]]]


def test_decoded_images_encode_to_their_symbols() -> None:
    """Fitted colours are whole and all different: encode undoes decode."""
    for tokenizer in (fitted(), fitted(200, 1)):
        symbols = torch.arange(tokenizer.config.colours).view(1, 1, 1, -1)
        assert torch.equal(tokenizer.encode(tokenizer.decode(symbols)), symbols)


def test_finds_the_clusters() -> None:
    """Noise around five colours gives those five, within the noise, from dark to bright."""
    centres = torch.tensor([[20, 30, 40], [200, 20, 20], [30, 220, 40], [230, 230, 60], [240, 240, 240]])
    chosen = torch.randint(5, (4, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    noise = torch.randint(-9, 10, (4, 3, 20, 20), generator=torch.Generator().manual_seed(1))
    images = (centres[chosen[:, 0]].movedim(3, 1) + noise).to(torch.uint8)
    tokenizer = PaletteTokenizer(PaletteConfig(5, 3)).fit(images)
    assert (tokenizer.palette - centres).abs().max() <= 2
    assert torch.equal(tokenizer.encode(images), chosen)


def test_as_many_colours_as_there_are() -> None:
    """With as many colours as the data have, the palette loses nothing; 256 greys are the greys themselves."""
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    tokenizer = PaletteTokenizer(PaletteConfig(256, 1)).fit(greys)
    assert torch.equal(tokenizer.encode(greys), greys.long())
    assert torch.equal(tokenizer.decode(greys.long()), greys)


def test_same_seed_same_palette() -> None:
    """A seed gives one palette, another seed another."""
    assert torch.equal(fitted().palette, fitted().palette)
    assert not torch.equal(fitted().palette, fitted(seed=1).palette)


def test_fits_a_split() -> None:
    """A dataset's split gives the palette that its images in memory give."""
    images = random_images(70, 3, 6, 5)
    split = PaletteTokenizer(PaletteConfig(8)).fit(tensor_split(images), seed=3)
    assert torch.equal(split.palette, PaletteTokenizer(PaletteConfig(8)).fit(images, seed=3).palette)


def test_looks_at_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many pixels 200,000 are looked at, and all images give as many."""
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1).expand(-1, -1, 64, 64).contiguous()
    seen: list[np.ndarray] = []

    def spy(pixels: np.ndarray, colours: int, seed: int) -> np.ndarray:
        seen.append(pixels)
        return np.arange(colours, dtype=np.float32)[:, None]

    monkeypatch.setattr(pixel_baselines.image_gpt.palette, "_k_means", spy)
    PaletteTokenizer(PaletteConfig(8, 1)).fit(images)
    assert seen[0].shape == (MAX_PIXELS, 1)
    assert set(np.bincount(seen[0][:, 0])) == {MAX_PIXELS // 100}


def test_saved_and_loaded(tmp_path: Path) -> None:
    """The colours are in the folder, and the fingerprints of two palettes differ."""
    tokenizer, images = fitted(), random_images(2, 3, 5, 4)
    loaded = PaletteTokenizer.from_pretrained(tokenizer.save_pretrained(tmp_path / "palette"))
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    assert loaded.fingerprint == tokenizer.fingerprint == fitted().fingerprint
    assert (
        len(
            {
                tokenizer.fingerprint,
                fitted(seed=1).fingerprint,
                PaletteTokenizer(PaletteConfig(16)).fingerprint,
            }
        )
        == 3
    )


def test_refuses_what_does_not_fit() -> None:
    """Unfitted, other channels, too few colours, and values out of range are refused by name."""
    unfitted, tokenizer = PaletteTokenizer(PaletteConfig(16)), fitted()
    with pytest.raises(InputError, match="no colours yet"):
        unfitted.encode(random_images(1, 3, 2, 2))
    with pytest.raises(InputError, match="no colours yet"):
        unfitted.decode(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    for refused in (tokenizer.encode, tokenizer.fit):
        with pytest.raises(InputError, match="1 channels, the palette 3"):
            refused(random_images(1, 1, 2, 2))
        with pytest.raises(InputError, match="expected uint8"):
            refused(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="1 channels, the palette 3"):
        tokenizer.grid(1, 4, 4)
    with pytest.raises(InputError, match=r"16 colours was asked for.*ask for 4 or fewer"):
        unfitted.fit(random_images(1, 3, 2, 2))
    with pytest.raises(InputError, match="no images"):
        unfitted.fit(random_images(0, 3, 2, 2))
    with pytest.raises(InputError, match=r"expected \[0, 15\]"):
        tokenizer.decode(torch.full((1, 1, 2, 2), 16))
    for wrong in ({"colours": 1}, {"channels": 2}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            PaletteConfig(**wrong)


def test_openai_palette(tmp_path: Path) -> None:
    """Symbols are those of transformers' image processor with the same colours."""
    clusters = np.random.default_rng(0).uniform(-1, 1, (32, 3))
    processor = ImageGPTImageProcessor(clusters=clusters, do_resize=False)
    processor.save_pretrained(tmp_path)
    images = random_images(4, 3, 8, 8)
    expected = torch.as_tensor(np.stack(processor(list(images)).input_ids)).view(4, 1, 8, 8)
    tokenizer = PaletteTokenizer.from_openai(tmp_path)
    assert torch.equal(tokenizer.encode(images), expected)
    assert np.abs(tokenizer.palette.numpy() - (clusters + 1) * 127.5).max() < 1e-4
    for clusters, said in (
        (None, "has clusters = null, expected a list"),
        ([["a"]], "clusters that are no numbers"),
        ([[1.0], [2.0, 3.0]], "clusters that are no numbers"),
    ):
        write_json(tmp_path / "preprocessor_config.json", {"clusters": clusters})
        with pytest.raises(InputError, match=said):
            PaletteTokenizer.from_openai(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", {"clusters": [1, 2]})
    with pytest.raises(InputError, match="clusters of shape"):
        PaletteTokenizer.from_openai(tmp_path)
