"""JSON objects: what is written is standard JSON, what is read is checked."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rasterwise.configuration import first_error
from rasterwise.errors import InputError
from rasterwise.files.whole import new_file

CHECKSUM = "checksum"
NOT_FINITE = "not_finite"
MEND = "restore it from a copy or write it again"

KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}
"""What JSON calls a Python type."""

T = TypeVar("T")


def as_json(content: Any, *, indent: int | None = 2) -> str:
    """Content as standard JSON, which has neither infinities nor NaN.

    Such a number is written as null, and ``not_finite`` in the same object says what it was. ``parse_json`` restores
    it.

    Example:
        >>> import math
        >>> print(as_json({"psnr_db": math.inf, "mse": 0.0}, indent=None))
        {"psnr_db": null, "mse": 0.0, "not_finite": {"psnr_db": "inf"}}
    """
    return json.dumps(_standard(content)[0], indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with a checksum of itself, which ``parse_json`` verifies."""
    plain = json.loads(as_json(content))
    return {**plain, CHECKSUM: _checksum(plain)}


def write_json(path: Path, content: Any, *, checksum: bool = False) -> None:
    """Write JSON; the file is whole or absent.

    Args:
        path: The file.
        content: JSON-like values. Numbers may be infinite or NaN, see ``as_json``.
        checksum: Add a checksum to the object. Files that a manifest lists need none.
    """
    with new_file(path) as pending:
        pending.write_text(as_json(sealed(content) if checksum else content) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an InputError if the file is absent, damaged, or something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected a JSON file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not whole JSON ({error}); {MEND}") from None
    return parse_json(text, path)


def parse_json(text: str, where: object) -> dict[str, Any]:
    """A JSON object from its text.

    Args:
        text: Standard JSON: NaN, infinities and a name that comes twice are refused.
        where: What errors name.

    Raises:
        InputError: The text is no such object, or not the one that its checksum was made of.
    """
    content = _decoded(text, where)
    checksum = content.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(content):
        raise InputError(
            f"{where} is damaged: its content is not that of its {CHECKSUM}; restore it from a copy, or take the "
            f"{CHECKSUM} out if the change is yours"
        )
    try:
        return _restored(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{where} has a {NOT_FINITE} that does not fit its numbers; {MEND}") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, each with the number of its line, from 1.

    Empty lines are skipped. These are users' files, in which ``checksum`` has no special meaning.

    Raises:
        InputError: There is no file, or a line is no JSON object; it is named.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a file of JSON lines")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _decoded(line, f"{path}:{number}:")


def member(content: dict[str, Any], name: str, kind: type[T], where: object, default: T | None = None) -> T:
    """A value of a JSON object, which must have a certain type.

    Args:
        content: The object.
        name: Of the value.
        kind: dict, list, str or int.
        where: What errors name.
        default: Used where the name is absent; None if it must be there.

    Raises:
        InputError: The name is absent, or the value has another type.
    """
    value = content.get(name, default)
    if value is None and name not in content:
        raise InputError(f"{where} has no {name!r}, expected {KINDS[kind]}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where} has {name} = {json.dumps(value)[:80]}, expected {KINDS[kind]}")
    return value


def from_json(data_class: type, content: Any, where: object) -> Any:
    """A configuration from JSON, lists for tuples and objects for the configurations in it.

    Raises:
        InputError: Names the first field that does not fit, as the class's constructor does.
    """
    try:
        return _adapter(data_class).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise InputError(f"{where} does not fit {data_class.__name__}: {first_error(error)}") from None


@functools.cache
def _adapter(data_class: type) -> TypeAdapter[Any]:
    return TypeAdapter(data_class)


def _decoded(text: str | bytes, where: object) -> dict[str, Any]:
    try:
        content = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_json, parse_float=_finite_number
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not whole JSON ({error}); {MEND}") from None
    if not isinstance(content, dict):
        raise InputError(f"{where} is a {type(content).__name__}, expected a JSON object")
    return content


def _checksum(content: dict[str, Any]) -> str:
    """16 hex digits. The order of names and the white space between them do not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _standard(value: Any) -> tuple[Any, Any]:
    """A value in standard JSON, and its mark for ``not_finite``.

    The mark of an infinite or NaN number is its name ("inf", "-inf" or "nan"). The mark of a list holds the marks of
    its items by index. All other values have none.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None, str(float(value))
    if isinstance(value, dict):
        content, marks = {}, {}
        for name, item in value.items():
            content[name], mark = _standard(item)
            if mark is not None:
                marks[name] = mark
        return ({**content, NOT_FINITE: marks} if marks else content), None
    if isinstance(value, list | tuple):
        items = [_standard(item) for item in value]
        marks = {str(index): mark for index, (_, mark) in enumerate(items) if mark is not None}
        return [item for item, _ in items], marks or None
    return value, None


def _restored(value: Any) -> Any:
    """What ``_standard`` was given."""
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    content = {name: _restored(item) for name, item in value.items() if name != NOT_FINITE}
    for name, mark in value.get(NOT_FINITE, {}).items():
        content[name] = _unmarked(content[name], mark)
    return content


def _unmarked(value: Any, mark: Any) -> Any:
    if isinstance(mark, str):
        return float(mark)
    return [_unmarked(item, mark[str(i)]) if str(i) in mark else item for i, item in enumerate(value)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return content


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number
