"""Shards: the Arrow files of a folder of codes, each of which says which one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rasterwise.errors import InputError
from rasterwise.files import member, new_file, read_json, verify_manifest
from rasterwise.models.pretrained import CONFIG_NAME, read_fingerprint

if TYPE_CHECKING:
    import pyarrow

CODES_NAME = "codes.json"
UNFINISHED_NAME = "unfinished.json"
SPLITS = ("train", "test")
SHARD_SUFFIX = ".arrow"
SHARD_ID = b"rasterwise.shard"
"""The name in a shard's metadata under which it says its split and index."""


class Sharded(Protocol):
    """The items of a split, in shards."""

    @property
    def shard_lengths(self) -> list[int]:
        """Items in each shard."""
        ...


Items = TypeVar("Items", bound=Sharded)


def shard_path(folder: Path, split: str, index: int) -> Path:
    """Where in a code dataset's folder a shard is."""
    return folder / split / f"{index:06d}{SHARD_SUFFIX}"


def shard_names(lengths: Mapping[str, Sequence[object]]) -> list[str]:
    """The names of all shards, relative to the folder of the code dataset."""
    return [
        shard_path(Path(), split, index).as_posix()
        for split in SPLITS
        for index in range(len(lengths[split]))
    ]


def write_table(path: Path, table: pyarrow.Table) -> None:
    """Write a shard; the file is whole or absent.

    Args:
        path: The shard's, in the folder of its split.
        table: Its rows.
    """
    import pyarrow

    schema = table.schema.with_metadata({**(table.schema.metadata or {}), SHARD_ID: _shard_id(path)})
    with new_file(path) as pending, pyarrow.ipc.new_stream(str(pending), schema) as writer:
        writer.write_table(table.cast(schema))


def mapped_table(path: Path, columns: Mapping[str, Any]) -> pyarrow.Table:
    """A shard, mapped into memory.

    Args:
        path: The shard's.
        columns: The type that each column must have; others may be there.

    Raises:
        ValueError: The file is no shard, or another shard than its name says. pyarrow raises errors of its own.
    """
    import pyarrow

    table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all().combine_chunks()
    found = (table.schema.metadata or {}).get(SHARD_ID, _shard_id(path))  # earlier versions wrote none
    if found != _shard_id(path):
        raise ValueError(f"{path.name} is the shard {found.decode(errors='replace')}")
    for name, kind in columns.items():
        if name not in table.column_names or table.schema.field(name).type != kind:
            raise ValueError(f"{path.name} has no column {name!r} of {kind}")
    table.validate(full=True)
    return table


def described(folder: Path) -> dict[str, Any]:
    """What ``codes.json`` says of a folder of codes; InputError where the folder is absent or unfinished."""
    if not folder.is_dir():
        raise InputError(f"codes folder {folder} does not exist; `rasterwise encode` makes one")
    if (folder / UNFINISHED_NAME).exists() and not (folder / CODES_NAME).exists():
        raise InputError(f"the encoding in {folder} is not finished; the command that began it goes on")
    content = read_json(folder / CODES_NAME)
    if not (folder / "tokenizer" / CONFIG_NAME).exists():
        raise InputError(f"{folder} lacks its tokenizer/; delete it and encode again")
    return content


def checked_lengths(folder: Path, tokenizer: str) -> dict[str, list[int]]:
    """Check every byte of a folder's shards, and that its tokenizer is the one that made them.

    Args:
        folder: Of codes.
        tokenizer: The fingerprint that the codes have.

    Returns:
        The rows of each split's shards, as ``codes.json`` says.

    Raises:
        InputError: A file is not what was written.
    """
    path = folder / CODES_NAME
    lengths = member(described(folder), "shards", dict, path)
    expected = {name: member(lengths, name, list, f"shards of {path}") for name in SPLITS}
    verify_manifest(folder, shard_names(expected), mend(folder))
    found = read_fingerprint(folder / "tokenizer")
    if found not in (None, tokenizer):
        raise InputError(
            f"{folder} holds codes of tokenizer {tokenizer[:12]}…, but {found[:12]}… is in its tokenizer/; "
            f"{mend(folder)}"
        )
    return expected


def opened_splits(
    folder: Path, tokenizer: str, what: str, open_split: Callable[[Path], Items]
) -> list[Items]:
    """Open the splits of a folder of codes, in the order of ``SPLITS``, once every shard is checked.

    Args:
        folder: Of codes.
        tokenizer: The fingerprint that the codes have.
        what: Of what the shards hold so many, in the plural.
        open_split: Opens the shards in the folder of a split.

    Raises:
        InputError: A file is not what was written.
    """
    import pyarrow

    expected, splits = checked_lengths(folder, tokenizer), []
    for name in SPLITS:
        try:
            items = open_split(folder / name)
            if items.shard_lengths != expected[name]:
                raise ValueError(f"its shards hold {items.shard_lengths} {what}, expected {expected[name]}")
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder / name} is damaged ({error}); {mend(folder)}") from None
        splits.append(items)
    return splits


def mend(folder: Path) -> str:
    """What to do about a folder that is damaged."""
    return f"delete {folder} and encode again"


def _shard_id(path: Path) -> bytes:
    """Split and index of the shard at a path, as in its metadata: ``train/000003``."""
    return f"{path.parent.name}/{path.stem}".encode()
