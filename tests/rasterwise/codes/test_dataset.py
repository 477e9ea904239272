"""Code datasets: encoded once, and never taken for another one's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from rasterwise.codes.dataset import CODES_NAME, open_codes
from rasterwise.codes.encode import encode_dataset
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from stage1_vqvae import VQVAE
from tests.conftest import Chain, Folders


def small(data: ImageData, labels: bool = True) -> ImageData:
    """The first images of a dataset."""
    parts = []
    for split in (data.train, data.test):
        batch = next(split.ordered(24))
        parts.append(tensor_split(batch.values, batch.labels if labels else None))
    return ImageData(parts[0], parts[1], data.shape, data.classes if labels else (), data.columns)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return small(open_images(DataConfig()))


def test_codes_are_what_the_tokenizer_gives(chain: Chain, digits: ImageData, tmp_path: Path) -> None:
    """For every image of both splits, with its label, in order."""
    tokenizer = VQVAE.from_pretrained(chain.vqvae)
    codes = encode_dataset(tokenizer, digits, tmp_path / "codes", batch_size=5)
    for images, found in ((digits.train, codes.train), (digits.test, codes.test)):
        expected, batch = next(images.ordered(24)), next(found.ordered(24))
        assert torch.equal(batch.values, tokenizer.encode(expected.values))
        assert torch.equal(batch.labels, expected.labels)  # type: ignore[arg-type]
    assert VQVAE.from_pretrained(tmp_path / "codes" / "tokenizer").fingerprint == tokenizer.fingerprint
    assert codes.key.classes == digits.classes


def test_codes_without_labels(digits: ImageData, tmp_path: Path) -> None:
    """Images need no classes, and any tokenizer will do."""
    codes = encode_dataset(
        PixelTokenizer(PixelTokenizerConfig(levels=4)), small(digits, False), tmp_path / "codes"
    )
    assert next(codes.train.ordered(4)).labels is None
    assert codes.key.grid.levels == 4


def test_encoding_twice_encodes_once(chain: Chain, digits: ImageData, tmp_path: Path) -> None:
    """The same images and tokenizer: what is there is opened, not written again."""
    tokenizer = VQVAE.from_pretrained(chain.vqvae)
    encode_dataset(tokenizer, digits, tmp_path / "codes")
    before = os.stat(tmp_path / "codes" / CODES_NAME).st_mtime_ns
    encode_dataset(tokenizer, digits, tmp_path / "codes")
    assert os.stat(tmp_path / "codes" / CODES_NAME).st_mtime_ns == before


def test_stale_codes_are_refused(chain: Chain, digits: ImageData, tmp_path: Path) -> None:
    """Another tokenizer, another image, or another label: named, and the codes are left as they are."""
    tokenizer = VQVAE.from_pretrained(chain.vqvae)
    encode_dataset(tokenizer, digits, tmp_path / "codes")
    other = VQVAE.from_pretrained(chain.vqvae)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    with pytest.raises(InputError, match="another tokenizer"):
        encode_dataset(other, digits, tmp_path / "codes")
    batch = next(digits.train.ordered(24))
    batch.values[3, 0, 0, 0] ^= 1
    changed = ImageData(
        tensor_split(batch.values, batch.labels), digits.test, digits.shape, digits.classes, digits.columns
    )
    with pytest.raises(InputError, match="other images"):
        encode_dataset(tokenizer, changed, tmp_path / "codes")
    assert open_codes(tmp_path / "codes").key.tokenizer == tokenizer.fingerprint


def test_a_folder_with_something_else_is_left_alone(digits: ImageData, folders: Folders) -> None:
    """Codes never replace images."""
    folder = folders.images("mine", 3)
    with pytest.raises(InputError, match="holds no codes"):
        encode_dataset(PixelTokenizer(), digits, folder)
    assert len(list(folder.iterdir())) == 3


def test_codes_that_cannot_be_opened(chain: Chain, tmp_path: Path) -> None:
    """Absent; no codes; a part missing or cut short: each named."""
    with pytest.raises(InputError, match="does not exist"):
        open_codes(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no codes\.json"):
        open_codes(chain.vqvae)
    for number, break_it in enumerate(
        (
            lambda folder: shutil.rmtree(folder / "tokenizer"),
            lambda folder: shutil.rmtree(folder / "test"),
            lambda folder: next(folder.glob("train/*.arrow")).write_bytes(b"short"),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(chain.codes, folder)
        break_it(folder)
        with pytest.raises(InputError, match=r"lacks its tokenizer|is damaged"):
            open_codes(folder)
