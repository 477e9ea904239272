"""What the columns of a dataset hold, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rasterwise.errors import InputError

Kind = Literal["images", "bytes", "classes", "integers", "booleans", "strings", "string lists", "other"]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        kind: "images" are files' bytes, paths, or both; "bytes" may be such files too. "classes" are indices into
            ``names``.
        described: Its type, as its library names it.
        names: Names of the classes.
    """

    kind: Kind
    described: str
    names: tuple[str, ...] = ()

    def values(self, array: Any) -> list[Any]:
        """An Arrow array of the column as Python values; an image as ``{"bytes": …, "path": …}`` or None."""
        import pyarrow

        if self.kind not in ("images", "bytes"):
            return list(array.to_pylist())
        stored = array.type
        if pyarrow.types.is_struct(stored):
            return [_image(row) for row in array.to_pylist()]
        if pyarrow.types.is_binary(stored) or pyarrow.types.is_large_binary(stored):
            return [None if row is None else {"bytes": row, "path": None} for row in array.to_pylist()]
        import datasets

        return list(datasets.Image().cast_storage(array).to_pylist())


def _image(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {"bytes": row.get("bytes"), "path": row.get("path")}


def column_of(feature: Any) -> Column:
    """What a feature of Hugging Face's ``datasets`` says that its column holds."""
    import datasets

    described = str(getattr(feature, "dtype", None) or feature)
    if isinstance(feature, datasets.Image):
        return Column("images", "images")
    if isinstance(feature, datasets.ClassLabel):
        return Column("classes", "class labels", tuple(feature.names or ()))
    if isinstance(feature, dict):
        stored = getattr(feature.get("bytes"), "dtype", None)
        whole = set(feature) <= {"bytes", "path"} and stored in ("binary", "large_binary")
        return Column("images" if whole else "other", described)
    if isinstance(feature, datasets.List | datasets.LargeList):
        of_strings = getattr(feature.feature, "dtype", None) in ("string", "large_string")
        return Column("string lists" if of_strings else "other", described)
    if not isinstance(feature, datasets.Value):
        return Column("other", described)
    if described.startswith(("int", "uint")):
        return Column("integers", described)
    kinds: dict[str, Kind] = {
        "bool": "booleans",
        "string": "strings",
        "large_string": "strings",
        "binary": "bytes",
        "large_binary": "bytes",
    }
    return Column(kinds.get(described, "other"), described)


def columns_of_schema(schema: Any) -> dict[str, Column]:
    """What the columns of an Arrow schema hold, by the metadata that ``datasets`` wrote where there are any.

    Raises:
        ValueError: The metadata cannot be read.
    """
    import datasets
    import pyarrow

    plain = [  # a dictionary-encoded column holds what its dictionary does
        field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
        for field in schema
    ]
    columns = {}
    for field in plain:
        try:
            feature = datasets.Features.from_arrow_schema(pyarrow.schema([field]))[field.name]
            columns[field.name] = column_of(feature)
        except (NotImplementedError, ValueError, TypeError):  # a type that datasets does not know
            columns[field.name] = Column("other", str(field.type))
    if b"huggingface" not in (schema.metadata or {}):
        return columns
    try:
        features = datasets.Features.from_arrow_schema(pyarrow.schema(plain, schema.metadata))
    except Exception as error:
        raise ValueError(f"its metadata cannot be read: {error}") from None
    return {name: column_of(features[name]) if name in features else columns[name] for name in columns}


def refuse_difference(name: str, found: Column, expected: Column, where: str, elsewhere: str) -> None:
    """InputError where a column holds other things in one part of a dataset than in another."""
    if found.kind != expected.kind:
        raise InputError(
            f"column {name!r} holds {found.described} in {where}, but {expected.described} in {elsewhere}"
        )
    if found.names != expected.names:
        raise InputError(
            f"column {name!r} has the classes {_some(found.names)} in {where}, but {_some(expected.names)} in "
            f"{elsewhere}; write both with the same list of classes"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
