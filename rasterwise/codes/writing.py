"""A folder of codes while it is written: by one command at a time, shard by shard, and on from where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rasterwise.codes.shards import CODES_NAME, SPLITS, UNFINISHED_NAME, shard_names
from rasterwise.errors import InputError
from rasterwise.files import (
    LOCK_NAME,
    FolderLock,
    clear_locked,
    from_json,
    is_vacant,
    member,
    read_json,
    write_json,
    write_manifest,
)
from rasterwise.outputs import claim_folder
from rasterwise.tokenizers.image import ImageTokenizer

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARD_SIZE = 4096


class Key(Protocol):
    """What codes were made from: a configuration.

    Attributes:
        what: What was encoded, in a word for messages.
    """

    what: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer."""
        ...


def claim_codes(folder: Path) -> None:
    """Raise InputError where no codes are, nor could be written: the folder holds something else, or cannot be made."""
    if (folder / CODES_NAME).exists():
        return
    claim_folder(folder)
    if folder.exists() and not (folder / UNFINISHED_NAME).exists() and not is_vacant(folder):
        raise InputError(f"{folder} is not empty and holds no codes; name another folder")


@contextlib.contextmanager
def locked(tokenizer: ImageTokenizer, key: Key, shard_size: int, folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that lacks something, and prepare it.

    Args:
        tokenizer: Goes into the folder.
        key: What the codes are made from.
        shard_size: Items a shard.
        folder: Which.

    Raises:
        InputError: The folder holds something else, or codes of something else.
    """
    claim_codes(folder)
    complete = (folder / CODES_NAME).exists()
    if complete and not any((folder / name).exists() for name in (UNFINISHED_NAME, LOCK_NAME)):
        yield
        return
    lock = FolderLock.take(folder)
    try:
        clear_locked(folder)
        if (
            folder / CODES_NAME
        ).exists():  # all is there: killed before it was said, or done by another meanwhile
            (folder / UNFINISHED_NAME).unlink(missing_ok=True)
        else:
            _begin(tokenizer, key, shard_size, folder)
        yield
    finally:
        lock.release()


def finish(key: Key, lengths: Mapping[str, Sequence[int]], folder: Path, **described: object) -> None:
    """Describe a folder once every shard is written. codes.json comes last: its presence means all is there.

    Args:
        key: What the codes were made from.
        lengths: The rows of each split's shards.
        folder: Which.
        described: More that codes.json says.
    """
    write_manifest(folder, shard_names(lengths))
    content = {**described, "key": asdict(key), "shards": lengths}
    write_json(folder / CODES_NAME, content, checksum=True)
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)


def check_not_removed(folder: Path) -> None:
    """Raise InputError where a folder that is being written was removed."""
    if not (folder / UNFINISHED_NAME).exists():
        raise InputError(f"{folder} was removed while it was being written; what was in it is lost")


def check_key(found: Key, expected: Key, folder: Path) -> None:
    """Raise InputError where a folder's codes were made from something else than expected."""
    mend = "name another folder, or delete this one"
    if found.tokenizer != expected.tokenizer:
        raise InputError(f"{folder} holds codes of another tokenizer ({found.tokenizer[:12]}…); {mend}")
    if found != expected:
        raise InputError(
            f"{folder} holds codes of other {expected.what}, or of the same prepared otherwise; {mend}"
        )


def wait(accelerator: Accelerator | None) -> None:
    """Wait for the other processes, if there are any."""
    if accelerator:
        accelerator.wait_for_everyone()


def _begin(tokenizer: ImageTokenizer, key: Key, shard_size: int, folder: Path) -> None:
    path = folder / UNFINISHED_NAME
    if path.exists():
        content = read_json(path)
        found = from_json(type(key), member(content, "key", dict, path), path)
        check_key(found, key, folder)
        before = member(content, "shard_size", int, path)
        if before != shard_size:
            raise InputError(
                f"{folder} was begun with shards of {before} {key.what}, not {shard_size}; "
                "go on with as many, or delete the folder"
            )
    write_json(path, {"key": asdict(key), "shard_size": shard_size}, checksum=True)
    for name in SPLITS:
        (folder / name).mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder / "tokenizer")
