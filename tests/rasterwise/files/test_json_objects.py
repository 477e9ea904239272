"""JSON: standard in what is written, and named where what is read has the wrong shape."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rasterwise.configuration import configuration
from rasterwise.errors import InputError
from rasterwise.files import as_json, from_json, member, parse_json, read_json, sealed, write_json
from rasterwise.symbols.grid import Grid


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1', "not whole JSON"),
        ("", "not whole JSON"),
        ("[1]", "is a list"),
        ("null", "is a NoneType"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ('{"a": 1e999}', "1e999 is too large"),
        ('{"a": {"b": 1, "b": 2}}', "'b' comes twice"),
        ("[" * 100_000, "not whole JSON"),
        ('{"a": 1, "not_finite": {"b": "nan"}}', "not_finite that does not fit"),
        ('{"a": 1, "not_finite": ["a"]}', "not_finite that does not fit"),
    ],
)
def test_what_is_no_json_object_is_named(text: str, said: str, tmp_path: Path) -> None:
    """Cut short, another type, a number or a name that JSON does not allow."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Absent, a folder, or bytes that are no text."""
    with pytest.raises(InputError, match=r"holds no config\.json"):
        read_json(tmp_path / "config.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match="not whole JSON"):
        read_json(tmp_path / "config.json")


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    """Null in the file, with a word why, also within lists; the number itself once it is read again."""
    content = {"test": {"psnr_db": math.inf, "mse": 0.0}, "losses": [1.0, math.nan, [-math.inf]], "x": None}
    text = as_json(content)
    standard = json.loads(text, parse_constant=lambda _: pytest.fail("this is no JSON"))
    assert standard["test"] == {"psnr_db": None, "mse": 0.0, "not_finite": {"psnr_db": "inf"}}
    assert standard["not_finite"] == {"losses": {"1": "nan", "2": {"0": "-inf"}}}
    write_json(tmp_path / "report.json", content, checksum=True)
    assert repr(read_json(tmp_path / "report.json")) == repr(content)


def test_every_changed_value_is_found_by_the_checksum(tmp_path: Path) -> None:
    """Each byte of a file with a checksum, changed in three ways: the same content, or refused."""
    path, content = (
        tmp_path / "run.json",
        {"steps": 2000, "rate": 0.001, "data": {"name": "digits"}, "on": True},
    )
    write_json(path, content, checksum=True)
    whole, refused = path.read_bytes(), 0
    for index in range(len(whole)):
        for change in (1, 4, 32):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ change]) + whole[index + 1 :])
            try:
                found = read_json(path)
            except InputError:
                refused += 1
            else:  # a letter of the word "checksum", or white space
                assert {name: found.get(name) for name in content} == content
    assert refused > 2.5 * len(whole)


def test_white_space_and_order_are_free() -> None:
    """A file that was indented otherwise holds the same; taking the checksum out makes a change one's own."""
    text = json.dumps(dict(reversed(sealed({"a": 1, "b": [1.5, "x"]}).items())), indent=8)
    assert parse_json(text, "x.json") == {"a": 1, "b": [1.5, "x"]}
    with pytest.raises(InputError, match=r"x\.json is damaged"):
        parse_json(text.replace("1.5", "2.5"), "x.json")
    assert parse_json('{"a": 2}', "x.json") == {"a": 2}


@pytest.mark.parametrize("value", [[1], "x", 3, None, 1.5, True])
def test_a_member_of_another_type_is_named(value: Any) -> None:
    """With the file, the name, what is there and what belongs there."""
    with pytest.raises(InputError, match=r"x\.json has config = .*, expected an object"):
        member({"config": value}, "config", dict, "x.json")
    with pytest.raises(InputError, match=r"x\.json has no 'config', expected an object"):
        member({}, "config", dict, "x.json")
    assert member({}, "config", dict, "x.json", {}) == {}


@configuration()
class Outer:
    grid: Grid
    names: tuple[str, ...]


def test_dataclasses_come_back_from_json() -> None:
    """Nested ones and tuples too; a field missing, unknown or of another type is named."""
    content = {"grid": {"channels": 1, "height": 2, "width": 3, "levels": 4}, "names": ["a", "b"]}
    assert from_json(Outer, content, "x.json") == Outer(Grid(1, 2, 3, 4), ("a", "b"))
    for broken, name in (
        ({"names": []}, "grid"),
        ({**content, "colour": 1}, "colour"),
        ({**content, "grid": {**content["grid"], "width": "wide"}}, "width"),  # type: ignore[dict-item]
        ({**content, "grid": {**content["grid"], "width": 0}}, "width"),  # type: ignore[dict-item]
        ({**content, "grid": [1]}, "grid"),
        ([1], "expected an object"),
    ):
        with pytest.raises(InputError, match=name):
            from_json(Outer, broken, "x.json")
