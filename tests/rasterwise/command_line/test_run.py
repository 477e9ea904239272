"""How commands end: a report, or one line and a status."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import field
from pathlib import Path

import pytest

from rasterwise.command_line.run import run_command
from rasterwise.configuration import Count, Share, configuration
from rasterwise.errors import InputError, NonFiniteError


@configuration()
class Inner:
    """A part of a command.

    Attributes:
        size: How large.
        share: How much of it.
        limit: The most of it.
    """

    size: Count = 3
    share: Share = 0.5
    limit: Count | None = None


@configuration()
class Options:
    """A command.

    Attributes:
        inner: A part.
        json: As JSON.
    """

    inner: Inner = field(default_factory=Inner)
    json: bool = False


def test_report_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines for people, JSON for programs."""
    report = {"output": Path("x"), "share": 0.12345, "test": {"items": 12345}}
    assert run_command(lambda _: report, Options, []) == 0
    assert capsys.readouterr().out.splitlines() == ["output  x", "share   0.1235", "test", "  items  12,345"]
    assert run_command(lambda options: {"size": options.inner.size}, Options, ["--size", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"size": 5}


def test_a_report_is_json_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has neither infinities nor NaN: null, and a word for what it was."""
    report = {"psnr_db": float("inf"), "test": {"standard_error": float("nan"), "items": 1}}
    assert run_command(lambda _: report, Options, ["--json"]) == 0
    printed = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert printed["psnr_db"] is printed["test"]["standard_error"] is None
    assert printed["not_finite"] == {"psnr_db": "inf"}
    assert printed["test"]["not_finite"] == {"standard_error": "nan"}
    assert run_command(lambda _: report, Options, []) == 0
    assert "psnr_db  inf" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("no such\n  thing"), 2, "rasterwise: no such thing\n"),
        (NonFiniteError("loss is nan at step 3"), 1, "rasterwise: loss is nan at step 3\n"),
        (KeyboardInterrupt(), 130, "rasterwise: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "model.safetensors"), 2, "the disk is full"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with the status; standard output stays empty."""

    def fail(_: Options) -> dict[str, object]:
        raise error

    assert run_command(fail, Options, []) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    """Any other exception is not hidden."""

    def fail(_: Options) -> dict[str, object]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_command(fail, Options, [])


def test_unknown_flags_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """And one line that names the flag, and the one that may have been meant."""
    assert run_command(lambda _: {}, Options, ["--sise", "5"]) == 2
    assert (
        capsys.readouterr().err == "rasterwise: Unrecognized options: --sise, 5; perhaps you meant --size\n"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", "x"], "--size is 'x', expected a whole number"),
        (["--size", "0"], "size is 0, expected 1 or more"),
        (["--share", "x"], "--share is 'x', expected a number"),
        (["--share", "nan"], "share is nan, expected a finite number"),
        (["--share", "2"], "share is 2.0, expected at most 1"),
        (["--limit", "x"], "--limit is 'x', expected {None}|INT"),
        (["--size"], "Missing value for argument '--size'. Expected 1 values."),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_value_is_refused_in_one_line(
    flags: list[str],
    said: str,
    encoding: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With status 2, before the command begins, whatever the terminal can show."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert run_command(lambda _: pytest.fail("it began"), Options, flags) == 2
    assert capsys.readouterr().err == f"rasterwise: {said}\n"


@pytest.mark.parametrize("flags", [["--resume", ""], ["--resume="], ["--resume"]])
def test_an_empty_run_cannot_be_resumed(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It would start a new run."""
    assert run_command(lambda _: pytest.fail("it began"), Options, flags, resumes="train") == 2
    assert capsys.readouterr().err == "rasterwise: --resume is '', expected a run's folder\n"


def test_help_shows_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag's help is its line of the docstring."""
    with pytest.raises(SystemExit):
        run_command(lambda _: {}, Options, ["--help"], "rasterwise command")
    shown = capsys.readouterr().out
    assert "usage: rasterwise command" in shown
    assert "--size" in shown
    assert "How large." in shown
