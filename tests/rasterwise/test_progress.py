"""What progress says in a log."""

from __future__ import annotations

import re

import pytest

from rasterwise.progress import Progress


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasterwise.progress.LOG_SECONDS", -1.0)


def test_images_done_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Parts of an image move the percentage; images are counted without decimals."""
    with Progress("sampling", "image") as progress:
        progress(0.5, 64)
        progress(23.7, 64, "a note")
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"sampling:  37%\|.*\| 24/64 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(image/s|s/image), a note\]", line
    ), line


def test_work_of_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody knows how much there is, what is done is counted."""
    with Progress("reading", "image") as progress:
        progress(7)
    assert "reading: 7image [" in capsys.readouterr().err


def test_processes_that_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """All but one are silent."""
    with Progress("sampling", shown=False) as progress:
        progress(1, 2)
        progress.line("text")
    assert capsys.readouterr().err == ""
