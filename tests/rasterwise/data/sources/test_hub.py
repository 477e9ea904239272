"""Datasets on the Hub: the one that was asked for, or one line."""

from __future__ import annotations

import logging
import types
from pathlib import Path
from typing import Any

import datasets
import pytest

from rasterwise.data.sources.hub import open_declared, open_hub
from rasterwise.errors import InputError
from tests.rasterwise.data.test_dataset import save_parquet

ADDRESS = "hf://datasets/owner/name"


class Builder:
    """What ``datasets`` opens an address with."""

    hash = "c0ffee"
    config = types.SimpleNamespace(data_files={"train": ["x.jsonl"]})

    def download_and_prepare(self) -> None:
        """Nothing is far away."""

    def as_dataset(self) -> dict[str, Any]:
        return {"train": datasets.Dataset.from_dict({"x": [1, 2]})}


class Cached(Builder):
    """What it opens what is in its cache with."""


Cached.__module__ = "datasets.packaged_modules.cache.cache"


def open_with(builder: Builder, monkeypatch: pytest.MonkeyPatch, *, streaming: bool = False) -> Any:
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    return open_hub(ADDRESS, None, None, streaming=streaming)


def test_the_commit_is_part_of_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another commit is other data."""
    assert list(open_with(Builder(), monkeypatch)["train"].files) == [f"{ADDRESS}@c0ffee"]


def test_a_cache_does_not_answer_for_the_hub(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless that was asked for, and then with a word."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=1"):
        open_with(Cached(), monkeypatch)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING):
        assert len(open_with(Cached(), monkeypatch)["train"]) == 2
    assert "read from the cache, commit c0ffee" in caplog.text


def test_what_cannot_be_streamed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mend, instead of being downloaded."""
    with pytest.raises(InputError, match="leave out --streaming"):
        open_with(Builder(), monkeypatch, streaming=True)


def test_a_copy_of_a_hub_dataset_is_what_its_card_declares(tmp_path: Path) -> None:
    """Its splits and subsets; a card that cannot be read is named."""
    folder = save_parquet(tmp_path / "set", [0, 1, 0], ["a", "b"], "one")
    save_parquet(folder, [0], ["a", "b"], "two")
    assert open_declared(folder, None) is None
    card = folder / "README.md"
    card.write_text(
        "---\nconfigs:\n- config_name: all\n  data_files:\n  - {split: train, path: one.parquet}\n"
        "  - {split: night, path: two.parquet}\n- config_name: half\n  data_files: two.parquet\n---\n"
    )
    both, half = open_declared(folder, "all"), open_declared(folder, "half")
    assert both is not None
    assert {name: len(rows) for name, rows in both.items()} == {"train": 3, "night": 1}
    assert half is not None
    assert {name: len(rows) for name, rows in half.items()} == {"train": 1}
    with pytest.raises(InputError, match="cannot be opened"):
        open_declared(folder, "third")
    card.write_text("---\nconfigs: [\n---\n")
    with pytest.raises(InputError, match=r"README\.md cannot be read"):
        open_declared(folder, None)
