"""The columns of a dataset that are read, and what its labels mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from rasterwise.data.config import NONE, DataConfig
from rasterwise.data.sources.captions import CAPTION_NAMES
from rasterwise.data.sources.columns import Column, refuse_difference
from rasterwise.data.sources.rows import Label, Rows
from rasterwise.errors import InputError

LABEL_NAMES = ("label", "labels", "class")
"""A column of these names that holds no class labels has the classes as its values."""
MOST_CLASSES = 10_000
"""Values of a column that may be classes."""


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset, by what they hold; None where it has none."""

    image: str
    label: str | None
    caption: str | None

    @property
    def read(self) -> list[str]:
        """Those that are read."""
        return [name for name in (self.image, self.label, self.caption) if name is not None]


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset.

    Attributes:
        names: Their names, in the order of their indices.
        values: What stands in the rows for each, where it is not the index.
    """

    names: tuple[str, ...] = ()
    values: tuple[Label, ...] = field(default=(), repr=False)

    @cached_property
    def _indices(self) -> dict[Label, int]:
        by_index: dict[Label, int] = {index: index for index in range(len(self.names))}
        by_name: dict[Label, int] = {name: index for index, name in enumerate(self.names)}
        by_value = {value: index for index, value in enumerate(self.values)}
        return by_value or by_index | by_name

    def index(self, label: Label | None) -> int:
        """The index of a row's label; InputError where it is none."""
        index = None if label is None else self._indices.get(label)
        if index is None:
            if self.values:
                raise InputError(
                    f"has label {label!r}, expected one of the train split's {len(self.names)}: {_some(self.values)}"
                )
            raise InputError(f"has label {label}, expected 0 to {len(self.names) - 1}")
        return index


def choose_columns(columns: Mapping[str, Column], config: DataConfig) -> Columns:
    """The columns to read: those that the configuration names, else those that hold what is looked for.

    Raises:
        InputError: A column is not there or holds something else; there is no column of images, or more than one.
    """
    listed = ", ".join(columns)
    for flag in ("image_column", "label_column", "caption_column"):
        name = getattr(config, flag)
        if name is not None and name not in columns and not (flag == "label_column" and name == NONE):
            raise InputError(f"{_flag(flag)} {name!r}: the columns are {listed}")
    of_kind = {kind: [name for name, column in columns.items() if column.kind == kind] for kind in _KINDS}
    image = config.image_column or _only(of_kind["images"] or of_kind["bytes"], "image", config)
    if image is None:
        raise InputError(f"dataset {config.dataset!r} has no image column; its columns are {listed}")
    if columns[image].kind not in ("images", "bytes"):
        raise InputError(f"column {image!r} holds {columns[image].described}, expected images")
    texts = of_kind["strings"] + of_kind["string lists"]
    caption = config.caption_column or next((name for name in CAPTION_NAMES if name in texts), None)
    if caption is not None and caption not in texts:
        raise InputError(f"--caption-column {caption!r} holds {columns[caption].described}, expected text")
    return Columns(image, _label_column(columns, of_kind["classes"], config), caption)


_KINDS = ("images", "bytes", "classes", "strings", "string lists")


def _label_column(columns: Mapping[str, Column], classes: list[str], config: DataConfig) -> str | None:
    if config.label_column == NONE and NONE not in columns:
        return None
    named = [name for name in LABEL_NAMES if name in columns]
    label = config.label_column or _only(classes or named, "label", config)
    if label is not None and columns[label].kind not in ("classes", "integers", "strings", "booleans"):
        raise InputError(
            f"column {label!r} holds {columns[label].described}, expected class labels, integers, strings or booleans; "
            "choose another with --label-column, or read none: --label-column none"
        )
    return label


def _only(names: list[str], what: str, config: DataConfig) -> str | None:
    if len(names) > 1 and what not in names:
        raise InputError(
            f"dataset {config.dataset!r} has {what} columns {', '.join(names)}; choose with --{what}-column"
        )
    return what if what in names else (names[0] if names else None)


def refuse_other_columns(train: Rows, test: Rows, columns: Columns, config: DataConfig) -> None:
    """InputError where the test split lacks a column that is read, or where it holds something else."""
    for name in columns.read:
        if name not in test.columns:
            raise InputError(f"split {config.test_split!r} has no column {name!r}, which the train split has")
        refuse_difference(
            name, test.columns[name], train.columns[name], *map(repr, (config.test_split, config.train_split))
        )


def classes_of(train: Rows, test: Rows, columns: Columns, config: DataConfig) -> Classes:
    """The classes of a dataset: those that it names, or the values of its label column in the train split.

    Raises:
        InputError: The test split has other values, or there are too many.
    """
    if columns.label is None:
        return Classes()
    if train.columns[columns.label].kind == "classes":
        return Classes(train.columns[columns.label].names)
    values = sorted(value for value in train.distinct(columns.label) if value is not None)
    if len(values) > MOST_CLASSES:
        raise InputError(
            f"column {columns.label!r} has {len(values):,} values, expected at most {MOST_CLASSES:,} classes; choose "
            "another with --label-column, or read none: --label-column none"
        )
    unknown = [value for value in test.distinct(columns.label) if value is not None and value not in values]
    if unknown:
        raise InputError(
            f"column {columns.label!r} has {_some(sorted(unknown))} in split {config.test_split!r}, which the train "
            f"split has not: its classes are {_some(values)}"
        )
    return Classes(tuple(unicodedata.normalize("NFC", str(value)) for value in values), tuple(values))


def _some(values: list[Label] | tuple[Label, ...]) -> str:
    shown = ", ".join(repr(value) for value in values[:10])
    return shown + (", …" if len(values) > 10 else "")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
