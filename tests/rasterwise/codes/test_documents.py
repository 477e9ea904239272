"""Shards of documents: what was written comes back, wherever the encoding stopped, and bad input is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rasterwise.codes.dataset import open_codes
from rasterwise.codes.documents import open_documents
from rasterwise.codes.encode_documents import encode_documents
from rasterwise.data.digit_documents import DigitDocuments
from rasterwise.data.document_sources import (
    DigitDocumentsConfig,
    DocumentSplits,
    MadeDocuments,
    make_digit_documents,
    open_document_files,
)
from rasterwise.errors import InputError
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig

LEVELS = PixelTokenizerConfig(levels=4)


def write(path: Path, *contents: list[str]) -> Path:
    """A file of JSON lines; texts that end with .png are images, which are made."""
    rows = []
    for content in contents:
        parts = [
            {"type": "image", "image": part} if part.endswith(".png") else {"type": "text", "text": part}
            for part in content
        ]
        rows.append(json.dumps({"content": parts}))
        for part in content:
            if part.endswith(".png"):
                level = sum(map(ord, part)) % 256
                Image.fromarray(np.array([[0, level], [255, 0]], dtype=np.uint8)).save(path.parent / part)
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


CONTENTS = (["猫: ", "a.png", "b.png", " né"], ["b.png"], ["only text"], ["", "c.png"], ["x", "y", "a.png"])


def made(count: int) -> DocumentSplits:
    documents = DigitDocuments(
        torch.arange(40).view(10, 1, 2, 2).byte() * 6, torch.arange(10), largest_sum=18
    )
    split = MadeDocuments(documents, count, str(count))
    return DocumentSplits(split, split, (1, 2, 2))


def test_documents_come_back(tmp_path: Path) -> None:
    """Texts and the codes of images, in any order and number, from a folder of two files."""
    write(tmp_path / "train.jsonl", *CONTENTS)
    write(tmp_path / "test.jsonl", *CONTENTS[:2])
    documents = open_document_files(tmp_path)
    tokenizer = PixelTokenizer(LEVELS)
    data = encode_documents(tokenizer, documents, tmp_path / "codes", batch_size=2, shard_size=2)
    assert (len(data.train), len(data.test)) == (5, 2)
    for document, encoded in zip(documents.train.read(), (data.train[i] for i in range(5)), strict=True):
        for part, found in zip(document, encoded, strict=True):
            if isinstance(part, str):
                assert found == part
            else:
                assert tokenizer.encode(part[None]).flatten().tolist() == list(found)
    assert list(data.train.texts()) == [part for one in CONTENTS for part in one if not part.endswith(".png")]
    with pytest.raises(InputError, match="holds documents, expected codes of images"):
        open_codes(tmp_path / "codes")
    with pytest.raises(InputError, match="no documents"):
        open_document_files(tmp_path / "codes")


def test_an_encoding_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """The shards that are there stay as they are; the files are the same as if it had not been stopped."""
    tokenizer = PixelTokenizer(LEVELS)
    encode_documents(tokenizer, made(25), tmp_path / "whole", shard_size=10)

    def stop(done: int, total: int | None) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_documents(tokenizer, made(25), tmp_path / "codes", shard_size=10, progress=stop)
    with pytest.raises(InputError, match="not finished"):
        open_documents(tmp_path / "codes")
    with pytest.raises(InputError, match="shards of 10 documents, not 9"):
        encode_documents(tokenizer, made(25), tmp_path / "codes", shard_size=9)
    with pytest.raises(InputError, match="other documents"):
        encode_documents(tokenizer, made(26), tmp_path / "codes", shard_size=10)
    written = (tmp_path / "codes" / "train" / "000000.arrow").stat().st_mtime_ns
    encode_documents(tokenizer, made(25), tmp_path / "codes", shard_size=10)
    assert (tmp_path / "codes" / "train" / "000000.arrow").stat().st_mtime_ns == written
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "codes" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    """By its checksum."""
    encode_documents(PixelTokenizer(LEVELS), made(3), tmp_path / "codes")
    path = tmp_path / "codes" / "train" / "000000.arrow"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"train/000000\.arrow is damaged"):
        open_documents(tmp_path / "codes")


def test_files_of_documents_that_cannot_be_read(tmp_path: Path) -> None:
    """Each in one line that names the file, and the line in it."""
    with pytest.raises(InputError, match="do not exist"):
        open_document_files(tmp_path / "none.jsonl")
    path = write(tmp_path / "d.jsonl", *CONTENTS, *CONTENTS)
    one, other = (open_document_files(path) for _ in range(2))
    assert (len(one.train), len(one.test)) == (9, 1)
    assert one.train.fingerprint == other.train.fingerprint != one.test.fingerprint
    Image.new("L", (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"d\.jsonl:9: an image is 3×2 where others are 2×2"):
        open_document_files(path)
    assert open_document_files(path, size=2).shape == (1, 2, 2)
    (tmp_path / "c.png").unlink()
    with pytest.raises(InputError, match=r"d\.jsonl:4: .*'c\.png' does not exist"):
        open_document_files(path)
    with pytest.raises(InputError, match="hold no image"):
        open_document_files(write(tmp_path / "t.jsonl", ["text"]))
    with pytest.raises(InputError, match=r"holds d\.jsonl, t\.jsonl, expected a file of documents"):
        open_document_files(tmp_path)


def test_digit_documents_of_each_split_are_made_of_its_own_digits() -> None:
    """The same options give the same documents; another seed gives others."""
    config = DigitDocumentsConfig(train_documents=20, test_documents=10, tasks=("draw",))
    one, other = make_digit_documents(config), make_digit_documents(config)
    assert one.train.fingerprint == other.train.fingerprint != one.test.fingerprint
    assert (len(one.train), len(one.test), one.shape) == (20, 10, (1, 8, 8))
    images = [
        {
            part.numpy().tobytes()
            for document in split.read()
            for part in document
            if not isinstance(part, str)
        }
        for split in (one.train, one.test)
    ]
    assert not images[0] & images[1]
