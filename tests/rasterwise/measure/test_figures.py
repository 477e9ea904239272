"""Plots as files, and what is said where there is no matplotlib."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rasterwise.errors import InputError
from rasterwise.measure.figures import new_figure, save_figure


def test_a_figure_is_saved_whole(tmp_path: Path) -> None:
    """In a folder that is made for it, at its size, with nothing left beside it."""
    figure = new_figure(2, 1)
    figure.subplots().plot([1, 2], [3, 4])
    save_figure(figure, tmp_path / "plots" / "line.png", dpi=50)
    assert Image.open(tmp_path / "plots" / "line.png").size == (100, 50)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["line.png"]


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path: Path) -> None:
    """The file that was there stays."""
    (tmp_path / "line.png").write_bytes(b"before")
    figure = new_figure(2, 1)
    figure.subplots().set_title("$\\no such command$")
    with pytest.raises(ValueError, match=r"no such command|Unknown symbol"):
        save_figure(figure, tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot says what to install."""
    monkeypatch.setattr("rasterwise.measure.figures.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'rasterwise\[plots\]'"):
        new_figure(1, 1)
