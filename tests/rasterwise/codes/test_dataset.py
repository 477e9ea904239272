"""Code datasets: encoded once, and never taken for another one's."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.commands.train import decode_of
from rasterwise.codes.dataset import CodeData, open_codes
from rasterwise.codes.encode import encode_dataset
from rasterwise.codes.shards import CODES_NAME, SHARD_ID
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.files import MANIFEST_NAME, manifest
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
        with pytest.raises(InputError, match=r"lacks its tokenizer|is missing|is damaged"):
            open_codes(folder)


@pytest.fixture
def sharded(digits: ImageData, tmp_path: Path) -> Path:
    """Three shards a split, of 8 images each."""
    encode_dataset(PixelTokenizer(), digits, tmp_path / "codes", shard_size=8)
    return tmp_path / "codes"


def forget_checksums(folder: Path) -> None:
    """Make the folder what an earlier version wrote."""
    import pyarrow

    for path in folder.rglob(MANIFEST_NAME):
        path.unlink()
    for path in (folder / CODES_NAME, folder / "tokenizer" / "config.json"):
        content = json.loads(path.read_text())
        path.write_text(
            json.dumps({k: v for k, v in content.items() if k not in ("checksum", "fingerprint")})
        )
    for path in folder.glob("*/*.arrow"):
        table = pyarrow.ipc.open_stream(path.read_bytes()).read_all()
        metadata = {k: v for k, v in table.schema.metadata.items() if k != SHARD_ID}
        with pyarrow.ipc.new_stream(str(path), table.schema.with_metadata(metadata)) as writer:
            writer.write_table(table.replace_schema_metadata(metadata))


def symbols_of(codes: CodeData) -> torch.Tensor:
    return torch.cat([batch.values for split in (codes.train, codes.test) for batch in split.ordered(7)])


def test_every_flipped_bit_is_found(sharded: Path) -> None:
    """60 random ones in the shards: the shard is named, before any of its codes is used."""
    rng, shards = random.Random(0), sorted(sharded.glob("*/*.arrow"))
    assert len(shards) == 6
    for _ in range(60):
        path = rng.choice(shards)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{path.parent.name}/{path.name} is damaged"):
            open_codes(sharded)
        path.write_bytes(whole)
    open_codes(sharded)


@pytest.mark.parametrize("other", ["train/000002.arrow", "test/000001.arrow"])
def test_shards_that_changed_places_are_found(other: str, sharded: Path) -> None:
    """As long as each other, and whole: by the manifest, and without one by what they say of themselves."""
    one, two = sharded / "train/000001.arrow", sharded / other
    content = one.read_bytes(), two.read_bytes()
    two.write_bytes(content[0])
    one.write_bytes(content[1])
    with pytest.raises(InputError, match="is damaged"):
        open_codes(sharded)
    (sharded / MANIFEST_NAME).unlink()
    with pytest.raises(InputError, match=r"(000001|000002)\.arrow is the shard (train|test)/00000\d"):
        open_codes(sharded)


def test_codes_of_an_earlier_version_open(sharded: Path) -> None:
    """Without a manifest, checksums and the shards' names in their metadata."""
    expected = symbols_of(open_codes(sharded))
    forget_checksums(sharded)
    assert torch.equal(symbols_of(open_codes(sharded)), expected)


def test_another_tokenizer_beside_the_codes_is_refused(chain: Chain, tmp_path: Path) -> None:
    """Before training, which would copy it into the run; of an earlier version's folder, once it is opened."""
    folder = tmp_path / "codes"
    shutil.copytree(chain.codes, folder)
    other = VQVAE.from_pretrained(folder / "tokenizer")
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    other.save_pretrained(folder / "tokenizer")
    for opened in (open_codes, decode_of):
        with pytest.raises(InputError, match=r"holds codes of tokenizer .*… is in its tokenizer/"):
            opened(folder)
    forget_checksums(folder)
    with pytest.raises(InputError, match=r"holds codes of tokenizer .*… is in its tokenizer/"):
        decode_of(folder)


def test_shards_are_hashed_once(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the folder is opened: neither in an epoch nor by a worker, to which the split is pickled."""
    hashed: list[str] = []
    digest = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: hashed.append(path.name) or digest(path))  # type: ignore[func-returns-value]
    codes = open_codes(sharded)
    assert sorted(name for name in hashed if name.endswith(".arrow")) == sorted(
        path.name for path in sharded.glob("*/*.arrow")
    )
    hashed.clear()
    for _ in range(2):
        symbols_of(codes)
    assert len(pickle.loads(pickle.dumps(codes.train._items))) == codes.train.length
    assert not hashed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shards": [1]}, "has shards = .*, expected an object"),
        ({"shards": {"train": [8, 8, 8]}}, "has no 'test', expected a list"),
        ({"shards": {"train": ["8", 8, 8], "test": [8, 8, 8]}}, "its shards hold"),
        ({"key": None}, "has key = null, expected an object"),
        ({"key": {}}, "does not fit CodesKey"),
    ],
)
def test_a_description_of_the_wrong_shape_is_named(
    sharded: Path, change: dict[str, object], said: str
) -> None:
    """codes.json of an earlier version, which has no checksum."""
    forget_checksums(sharded)
    path = sharded / CODES_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        open_codes(sharded)
