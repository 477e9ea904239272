"""Datasets on the Hugging Face Hub, at one commit, and what the Hub's files in a local folder declare."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.sources.rows import Rows
from rasterwise.data.sources.state import FileState
from rasterwise.data.sources.tables import DatasetTable, IndexedRows
from rasterwise.errors import InputError

HUB = "hf://datasets/"
"""What the address of a dataset on the Hub begins with."""

_log = logging.getLogger(__name__)


def open_hub(
    address: str, subset: str | None, revision: str | None, *, streaming: bool
) -> Mapping[str, Rows]:
    """The splits of a dataset on the Hub.

    A Hub that does not answer is an error: what a cache holds under the same name does not answer for it, unless
    HF_HUB_OFFLINE asks for that. Then a line says so.

    Args:
        address: "hf://datasets/OWNER/NAME".
        subset: One of its configurations; None for its default.
        revision: A branch, tag or commit; None for its default branch.
        streaming: Read its parquet files as they are needed, instead of downloading it.

    Raises:
        InputError: There is no such dataset or subset, the Hub does not answer, or it cannot be streamed.
    """
    import datasets

    name = address.removeprefix(HUB)
    offline = datasets.config.HF_HUB_OFFLINE
    with _errors_of_datasets(f"dataset {name!r}"):
        builder = datasets.load_dataset_builder(name, subset, revision=revision)
        if type(builder).__module__.startswith("datasets.packaged_modules.cache"):
            if not offline:
                raise ValueError(
                    "the Hub did not give it, and a cache was to answer; HF_HUB_OFFLINE=1 asks for that"
                )
            _log.warning(
                "HF_HUB_OFFLINE is set: dataset %r is read from the cache, commit %s", name, builder.hash
            )
        if streaming:
            splits = declared_parquet(builder)
            if splits is None:
                raise InputError(
                    f"dataset {name!r} cannot be streamed, since its files are no parquet files; leave out --streaming"
                )
            return splits
        builder.download_and_prepare()
        files = {f"{address}@{builder.hash}": FileState(0, 0)}
        loaded = builder.as_dataset()
        return {split: IndexedRows(DatasetTable(rows, files=files)) for split, rows in loaded.items()}


def open_declared(folder: Path, subset: str | None) -> Mapping[str, Rows] | None:
    """The parquet files that the README.md of a folder declares, as a copy of a Hub dataset does; None: it does not."""
    import datasets
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    try:
        if not card.is_file() or not (metadata_load(card) or {}).get("configs"):
            return None
    except Exception as error:  # of YAML, of UTF-8
        raise InputError(f"the head of {card} cannot be read ({error}); mend or remove it") from None
    with _errors_of_datasets(f"what {card} declares"):
        return declared_parquet(datasets.load_dataset_builder(str(folder), subset))


def declared_parquet(builder: Any) -> Mapping[str, Rows] | None:
    """The splits of a dataset whose files are parquet files; None where others are among them."""
    files = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    if not files or not all(file.endswith(".parquet") for some in files.values() for file in some):
        return None
    return {name: ParquetRows.open(some, builder.info.features) for name, some in files.items()}


@contextlib.contextmanager
def _errors_of_datasets(what: str) -> Iterator[None]:
    """One line of whatever goes wrong in ``datasets`` and on the way to the Hub; no progress bars."""
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    except InputError:
        raise
    except (DatasetsError, HTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{what} cannot be opened ({reason}); expected 'digits', a folder of images or parquet files, or a dataset "
            "on the Hugging Face Hub (OWNER/NAME)"
        ) from None
    finally:
        if bars:
            datasets.enable_progress_bars()
