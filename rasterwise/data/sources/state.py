"""What tells one state of a dataset from another: its files, and what changed among them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rasterwise.errors import InputError

NAMED = 3
"""Files that are named of each kind of change."""


@dataclass(frozen=True)
class FileState:
    """A file as it was found.

    Attributes:
        size: Bytes.
        modified_ns: When it was last written.
        content: A digest of the images and labels that were read from it; empty where it was not read whole.
    """

    size: int
    modified_ns: int
    content: str = ""

    def is_state_of(self, other: FileState) -> bool:
        """Whether both are states of one content: by the digests where both have one, else by size and time."""
        if self.content and other.content:
            return self.content == other.content
        return (self.size, self.modified_ns) == (other.size, other.modified_ns)

    def refuse_change(self, name: str, now: os.stat_result) -> None:
        """InputError where the file has another size or time now: it was changed after the dataset was opened."""
        if self.modified_ns and (now.st_size, now.st_mtime_ns) != (self.size, self.modified_ns):
            raise InputError(
                f"{name} was changed after the dataset was opened; bring back what was there, or start anew"
            )

    def __str__(self) -> str:
        return f"{self.size} {self.modified_ns} {self.content}".strip()

    @classmethod
    def parse(cls, text: str) -> FileState:
        """What ``str`` wrote."""
        size, modified, *content = text.split()
        return cls(int(size), int(modified), *content)


@dataclass
class Contents:
    """Digests of what is read, file by file.

    Reading a whole dataset into memory costs far more than this; a dataset that is read as it is needed is not read
    for it.
    """

    digests: dict[str, bytes] = field(default_factory=dict)

    def add(self, file: str, content: bytes, label: object) -> None:
        """Take up an image, in the order of reading.

        Args:
            file: The file that it was read from.
            content: The image as it is stored.
            label: As it is stored.
        """
        digest = hashlib.blake2b(self.digests.get(file, b""), digest_size=12)
        digest.update(f"{len(content)} {label!r} ".encode())
        digest.update(content)
        self.digests[file] = digest.digest()


@dataclass(frozen=True)
class Origin:
    """Where a dataset's images came from, and what tells these data from others.

    Attributes:
        dataset: Its name: of a built-in dataset, the absolute path of a folder, or the address of one on the Hub.
        folders: The local folders that its files lie in, links followed.
        files: The files that it was read from, by name: in a folder relative to it; on the Hub the repository with
            its commit.
    """

    dataset: str
    folders: tuple[Path, ...] = ()
    files: Mapping[str, FileState] = field(default_factory=dict)

    @classmethod
    def of(
        cls, dataset: str, folders: tuple[Path, ...], files: Mapping[str, FileState], contents: Contents
    ) -> Origin:
        """The origin of a dataset that has been opened.

        Args:
            dataset: Its name.
            folders: The local folders that its files lie in; the first is its own.
            files: By whole path, or address.
            contents: Digests of what was read of them.
        """
        digests = {name: digest.hex() for name, digest in contents.digests.items()}
        known = {name: replace(state, content=digests.get(name, "")) for name, state in files.items()}
        start = f"{folders[0]}{os.sep}" if folders else ""
        return cls(dataset, folders, {name.removeprefix(start): state for name, state in known.items()})

    def refuse_output(self, output: Path) -> None:
        """InputError where an output folder lies in the dataset's, whose images it would be among, or around it."""
        output = output.expanduser().resolve()
        for folder in self.folders:
            if output.is_relative_to(folder):
                raise InputError(
                    f"output {output} lies in the folder of the dataset, {folder}: its images would be read as data; "
                    "name another with --output"
                )
            if folder.is_relative_to(output):
                raise InputError(
                    f"the dataset {folder} lies in the output folder {output}, which --force deletes; name another "
                    "with --output"
                )

    def as_json(self) -> dict[str, Any]:
        """As ``data.json`` of a run holds it."""
        return {"dataset": self.dataset, "files": {name: str(state) for name, state in self.files.items()}}

    def changes(self, before: dict[str, Any]) -> str:
        """What changed since ``as_json`` was stored, in words; empty where nothing did.

        Raises:
            ValueError: It was not stored by ``as_json``.
        """
        try:
            old = {name: FileState.parse(state) for name, state in before["files"].items()}
            dataset = before["dataset"]
        except (KeyError, AttributeError, TypeError, ValueError):
            raise ValueError("it names no files with their states") from None
        if not old and not self.files and dataset != self.dataset:
            return f"it was {dataset!r} and is {self.dataset!r}"
        both = old.keys() & self.files.keys()
        kinds = {
            "added": self.files.keys() - old.keys(),
            "gone": old.keys() - self.files.keys(),
            "changed": {name for name in both if not self.files[name].is_state_of(old[name])},
        }
        found = [f"{kind} {_listed(names)}" for kind, names in kinds.items() if names]
        if kinds["changed"] and not all(self.files[name].content for name in kinds["changed"]):
            found[-1] += " (in size or time: a copy must keep the times, as `cp -p` and `rsync -a` do)"
        return "; ".join(found)


def _listed(names: set[str]) -> str:
    first = sorted(names)[:NAMED]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(first) + more
