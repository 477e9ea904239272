"""What columns hold is seen by their types, whoever wrote them."""

from __future__ import annotations

import json

import pyarrow
import pytest

from rasterwise.data.sources.columns import columns_of_schema

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])

KINDS = {
    "images": [STRUCT, pyarrow.struct([("bytes", pyarrow.large_binary())])],
    "bytes": [pyarrow.binary(), pyarrow.large_binary()],
    "integers": [pyarrow.int8(), pyarrow.uint64()],
    "booleans": [pyarrow.bool_()],
    "strings": [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    ],
    "other": [
        pyarrow.float32(),
        pyarrow.list_(pyarrow.int64()),
        pyarrow.list_(STRUCT),
        pyarrow.struct([("bytes", pyarrow.binary()), ("more", pyarrow.int8())]),
        pyarrow.decimal128(5),
        pyarrow.null(),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_columns(kind: str) -> None:
    """Without any metadata."""
    for stored in KINDS[kind]:
        assert columns_of_schema(pyarrow.schema([("x", stored)]))["x"].kind == kind


def test_metadata_says_more() -> None:
    """As ``datasets`` writes it: the names of classes."""
    features = {"x": {"_type": "Image"}, "y": {"_type": "ClassLabel", "names": ["a", "b"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = columns_of_schema(pyarrow.schema([("x", STRUCT), ("y", pyarrow.int64())], metadata))
    assert (columns["x"].kind, columns["y"].kind, columns["y"].names) == ("images", "classes", ("a", "b"))
    with pytest.raises(ValueError, match="metadata"):
        columns_of_schema(pyarrow.schema([("x", STRUCT)], {"huggingface": "{no JSON"}))


@pytest.mark.parametrize(
    "stored", [STRUCT, pyarrow.struct([("bytes", pyarrow.binary())]), pyarrow.large_binary()]
)
def test_images_have_one_form(stored: pyarrow.DataType) -> None:
    """Bytes and path, or None where a row has no image."""
    plain = not pyarrow.types.is_struct(stored)
    array = pyarrow.array([b"1" if plain else {"bytes": b"1"}, None], stored)
    column = columns_of_schema(pyarrow.schema([("x", stored)]))["x"]
    assert column.values(array) == [{"bytes": b"1", "path": None}, None]
