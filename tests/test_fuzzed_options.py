"""Whatever is given for an option: a command and a configuration take it as it is, or refuse it in one line.

Configurations and flags are found, not listed: a new one is fuzzed as soon as it is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import math
import pkgutil
import re
import typing
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.dataclasses import is_pydantic_dataclass

from pipeline.cli import COMMANDS
from pipeline.cli import main as run_rasterwise
from pipeline.models import model_classes, tokenizer_classes
from rasterwise.errors import InputError
from rasterwise.files import from_json
from rasterwise.symbols.grid import Grid
from stage1_vqvae.quantizers.table import QUANTIZERS

ROOMS = ("rasterwise", "pixel_baselines", "stage1_vqvae", "stage2_prior", "pipeline")
NUMBERS: list[Any] = [
    *(
        0,
        1,
        2,
        3,
        -1,
        7,
        255,
        256,
        257,
        10**6,
        10**9,
        10**12,
        2**31 - 1,
        2**31,
        2**63 - 1,
        2**63,
        2**70,
        -(2**70),
    ),
    *(0.0, -0.0, 0.5, 1.0, 2.0, -0.5, 1.5, 1e-39, 5e-324, 1e39, -1e308, math.nan, math.inf, -math.inf),
]
OTHERS: list[Any] = [
    True,
    False,
    None,
    "",
    "3",
    "nan",
    "x",
    (),
    (1,),
    (-1,),
    (True,),
    [1],
    {},
    {"x": 1},
    b"3",
    1j,
]
WORDS = [
    *map(str, NUMBERS),
    "",
    "x",
    "None",
    "True",
    "1e3",
    "0x10",
    "1_0",
    "٣",
    "-",
    "3.",
    "1,2",
    "bicubic",
    "a b",
    "'",
    "{",
]

SHORT = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(SHORT, max_examples=500)
anything = st.one_of(
    st.sampled_from(NUMBERS + OTHERS),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.tuples(st.integers()),
)


@cache
def configurations() -> list[type]:
    """Every configuration of the house that can be made."""
    found = set[type]()
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                found |= {
                    member
                    for member in vars(importlib.import_module(module.name)).values()
                    if inspect.isclass(member)
                    and is_pydantic_dataclass(member)
                    and not inspect.isabstract(member)
                }
    return sorted((each for each in found if "[" not in each.__name__), key=lambda each: each.__qualname__)


def kinds_of(hint: Any) -> set[Any]:
    """The plain types in an annotation."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return set().union(*(kinds_of(one) for one in typing.get_args(hint)))
    return {typing.get_origin(hint) or hint}


def required(owner: type) -> dict[str, Any]:
    """Good values for the fields that have no default."""
    examples = {str: "x", int: 2, tuple: (), Path: Path("x"), Grid: Grid(1, 2, 2, 2)}
    given: dict[str, Any] = {}
    for field in dataclasses.fields(owner):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            (kind,) = kinds_of(typing.get_type_hints(owner)[field.name])
            given[field.name] = examples[kind] if kind in examples else _made(kind)
    return given


def _made(kind: Any) -> Any:
    return kind(**required(kind)) if is_pydantic_dataclass(kind) else None


def one_line(error: InputError) -> None:
    """What a user is told."""
    assert str(error)
    assert "\n" not in str(error)


def check(owner: type, name: str, value: Any) -> bool:
    """Give a field a value, in Python and in JSON; returns whether it was taken.

    It is taken only if it is of the field's type, and comes back from JSON the same.
    """
    kinds = kinds_of(typing.get_type_hints(owner)[name])
    plain = {**required(owner), name: value}
    try:
        made = owner(**plain)
    except InputError as error:
        made = None
        one_line(error)
    if made is not None:
        kept = getattr(made, name)
        assert kept == value
        if kinds & {int, float, bool} and kept is not None:
            assert type(kept) in kinds | ({int} if float in kinds else set())
            assert math.isfinite(kept)
        content = json.loads(json.dumps(dataclasses.asdict(made), default=str, allow_nan=False))
        assert from_json(owner, content, "config.json") == made
        assert json.dumps(content) == json.dumps(
            dataclasses.asdict(from_json(owner, content, "x")), default=str
        )
    if kinds <= {int, float, bool, str, NoneType} and isinstance(value, int | float | str | NoneType):
        default = {} if made is None else dataclasses.asdict(made)
        try:
            read = from_json(
                owner, {**_plain(required(owner)), **_plain(default), name: value}, "config.json"
            )
        except InputError:
            read = None
        assert (read is None) == (made is None), (read, made)
    return made is not None


def _plain(content: dict[str, Any]) -> Any:
    whole = {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        for name, value in content.items()
    }
    return json.loads(json.dumps(whole, default=str))


def test_every_option_is_declared() -> None:
    """What a model, a tokenizer or a command is made from is a configuration, and has no unlimited number in it."""
    found = configurations()
    built = [*model_classes().values(), *tokenizer_classes().values()]
    assert {one.config_class for one in built} <= set(found)
    assert set(QUANTIZERS.values()) <= set(found)
    assert len(found) > 30
    for owner in found:
        for name, hint in typing.get_type_hints(owner, include_extras=True).items():
            for kind in (int, float):
                assert hint is not kind, f"{owner.__name__}.{name}: {kind.__name__} says no range"
                assert hint != kind | None, f"{owner.__name__}.{name}: {kind.__name__} says no range"


def test_every_field_at_its_edges() -> None:
    """Each numeric field of each configuration takes some of these values and refuses others, each in one line."""
    tries = 0
    for owner in configurations():
        for name, hint in typing.get_type_hints(owner).items():
            if kinds_of(hint) & {int, float}:
                taken = [check(owner, name, value) for value in NUMBERS + OTHERS]
                tries += len(taken)
                assert not all(taken), f"{owner.__name__}.{name}"
    assert tries > 2000


def _fuzz_fields(data: st.DataObject) -> None:
    owner = data.draw(st.sampled_from(configurations()))
    hints = typing.get_type_hints(owner)
    # A command's model is of any class: `--model NAME` says which, and the class then checks itself.
    if names := [
        field.name for field in dataclasses.fields(owner) if not isinstance(hints[field.name], typing.TypeVar)
    ]:
        check(owner, data.draw(st.sampled_from(names)), data.draw(anything))


def _fuzz_models(data: st.DataObject) -> None:
    """A model made of small numbers gives a grid a finite likelihood, or is refused."""
    owner = data.draw(st.sampled_from(sorted(model_classes().values(), key=lambda one: one.kind)))
    options: dict[str, Any] = {}
    grid = [data.draw(st.integers(low, high)) for low, high in ((1, 3), (1, 4), (1, 4), (2, 5))]
    hints = typing.get_type_hints(owner.config_class)
    numeric = [name for name, hint in hints.items() if hint in (int, float) or typing.get_args(hint)]
    for name in data.draw(
        st.lists(st.sampled_from(sorted({*numeric} - {"classes"})), max_size=4, unique=True)
    ):
        hint = hints[name]
        if hint is int:
            options[name] = data.draw(st.integers(0, 16))
        elif hint is float:
            options[name] = data.draw(st.sampled_from([0, 0.5, 1.0, 1e-39]))
        else:
            options[name] = data.draw(st.sampled_from(typing.get_args(hint)))
    try:
        model = owner(owner.config_class(grid=Grid(*grid), **options)).eval()
    except InputError as error:
        one_line(error)
        return
    symbols = torch.randint(grid[3], (2, *grid[:3]), generator=torch.Generator().manual_seed(0))
    assert model.log_prob(symbols).isfinite().all(), options


@cache
def flags_of(command: str) -> list[str]:
    """The flags in a command's help."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        run_rasterwise([*command.split(), "--help"])
    return sorted(set(re.findall(r"--[a-z][\w-]+", shown.getvalue())) - {"--help"})


def _fuzz_flags(data: st.DataObject) -> None:
    """Parsed and made into options, or refused in one line with status 2; the command itself is not run."""
    command = data.draw(st.sampled_from(sorted(COMMANDS)))
    words = command.split()
    for _ in range(data.draw(st.integers(1, 3))):
        words.append(data.draw(st.sampled_from(flags_of(command))))
        if data.draw(st.integers(0, 9)):
            words.append(
                data.draw(st.sampled_from(WORDS) | st.integers().map(str) | st.text("ab1-. \n", max_size=4))
            )
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        status = run_rasterwise(words)
    if status:
        assert status == 2, words
        assert re.fullmatch(r"rasterwise: [^\n]+\n", said.getvalue()), (words, said.getvalue())
    else:
        assert said.getvalue() == "", (words, said.getvalue())
    assert list(Path.cwd().iterdir()) == [], words


def _fuzz_dry_runs(data: st.DataObject) -> None:
    """A training of the digits is measured, or refused, and writes nothing."""
    command = data.draw(st.sampled_from(["train vqvae", "train pixel", "train pixel --model image-gpt"]))
    words = [*command.split(), "--dry-run", "--json", "--width", "16", "--batch-size", "2"]
    for _ in range(data.draw(st.integers(1, 2))):
        number = st.integers(-1, 40).map(str) | st.sampled_from(["0.5", "1", "1e-39", "nan", "x", str(2**70)])
        words += [data.draw(st.sampled_from(flags_of(" ".join(words[:2])))), data.draw(number)]
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        status = run_rasterwise(words)
    assert status in (0, 2), words
    if status:
        assert re.fullmatch(r"rasterwise: [^\n]+\n", said.getvalue()), (words, said.getvalue())
    else:
        assert json.loads(printed.getvalue())["parameters"] > 0
    assert list(Path.cwd().iterdir()) == [], words


@pytest.fixture
def parsed_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands end where their work would begin; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rasterwise.command_line.run.report_of", lambda work, *, as_json: 0)


@SHORT
@given(st.data())
def test_fields_given_anything(data: st.DataObject) -> None:
    """Any value for any field of any configuration: taken as it is, or refused in one line."""
    _fuzz_fields(data)


@SHORT
@given(st.data())
def test_flags_given_anything(parsed_only: None, data: st.DataObject) -> None:
    """Any words after any command's flags: options, or one line and status 2; nothing is written."""
    _fuzz_flags(data)


@settings(SHORT, max_examples=15)
@given(st.data())
def test_models_of_small_numbers(data: st.DataObject) -> None:
    """Whatever a model's configuration takes, the model can be made of and used."""
    _fuzz_models(data)


@pytest.mark.long
@settings(LONG, max_examples=800)
@given(st.data())
def test_fields_given_anything_at_length(data: st.DataObject) -> None:
    """As above, 800 tries."""
    _fuzz_fields(data)


@pytest.mark.long
@settings(LONG, max_examples=800)
@given(st.data())
def test_flags_given_anything_at_length(parsed_only: None, data: st.DataObject) -> None:
    """As above, 800 tries."""
    _fuzz_flags(data)


@pytest.mark.long
@settings(LONG, max_examples=340)
@given(st.data())
def test_models_of_small_numbers_at_length(data: st.DataObject) -> None:
    """As above, 340 tries."""
    _fuzz_models(data)


@pytest.mark.long
@settings(LONG, max_examples=60)
@given(st.data())
def test_dry_runs_of_the_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: st.DataObject) -> None:
    """Sixty trainings of the digits with flags at random: measured or refused; nothing is written."""
    monkeypatch.chdir(tmp_path)
    _fuzz_dry_runs(data)
