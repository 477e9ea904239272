"""Datasets opened: Hub ids, folders, parquet files, and the built-in digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rasterwise.data.config import DataConfig
from rasterwise.data.parquet import HoldOut, ParquetRows
from rasterwise.data.rows import (
    IndexedRows,
)
from rasterwise.errors import InputError

if TYPE_CHECKING:
    pass


def _open_splits(config: DataConfig) -> tuple[Any, Any]:
    if config.dataset == "digits":
        return _digits()
    splits = _load(config)
    if config.train_split not in splits:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.train_split!r}, it has {', '.join(splits)}; "
            "name one with --train-split"
        )
    train = splits[config.train_split]
    test_name = next((name for name in (config.test_split, "validation") if name in splits), None)
    if test_name and test_name != config.train_split:
        return train, splits[test_name]
    if config.test_split != DataConfig.test_split:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.test_split!r} apart from the train split, "
            f"it has {', '.join(splits)}; name one with --test-split"
        )
    return _set_aside(train, one_in=10)


def _load(config: DataConfig) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    path = Path(config.dataset).expanduser()
    looks_local = path.exists() or config.dataset.startswith((".", "/", "~")) or config.dataset.count("/") > 1
    if looks_local and not path.is_dir():
        raise InputError(f"dataset folder {config.dataset!r} does not exist or is no folder")
    if looks_local and not any(file.is_file() for file in path.rglob("*")):
        raise InputError(f"dataset folder {config.dataset!r} is empty, expected images or parquet files")
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        source = str(path.resolve()) if looks_local else config.dataset
        if config.streaming:
            builder = datasets.load_dataset_builder(source, config.subset)
            files = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
            if files and all(file.endswith(".parquet") for some in files.values() for file in some):
                return {name: ParquetRows.open(some, builder.info.features) for name, some in files.items()}
            if not looks_local or builder.info.builder_name != "imagefolder":
                raise InputError(
                    f"dataset {config.dataset!r} cannot be streamed: that takes parquet files or a folder of "
                    "images; leave out --streaming"
                )
        loaded = datasets.load_dataset(source, config.subset)
        return {name: IndexedRows(_undecoded(rows)) for name, rows in loaded.items()}
    except InputError:
        raise
    except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "no data" in reason:
            raise InputError(f"dataset {config.dataset!r} is empty, expected images") from None
        raise InputError(
            f"dataset {config.dataset!r} cannot be opened ({reason}); expected 'digits', a folder of images "
            "or parquet files, or a Hugging Face dataset id"
        ) from None
    finally:
        if bars:
            datasets.enable_progress_bars()


def _undecoded(rows: Any) -> Any:
    """The rows with images as their files' bytes, so that we decode them and can name one that does not."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _digits() -> tuple[Any, Any]:
    """scikit-learn's copy of the UCI digits (E. Alpaydin, C. Kaynak): 1,797 of them, 8×8, 17 greys."""
    import datasets
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in digits.images]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)])}
    )
    rows = datasets.Dataset.from_dict({"image": images, "label": digits.target.tolist()}, features=features)
    return _set_aside(IndexedRows(_undecoded(rows)), one_in=5)


def _set_aside(rows: Any, one_in: int) -> tuple[Any, Any]:
    """Split off one of every ``one_in`` rows: the same ones in memory and streamed."""
    kept, hold_out = HoldOut(one_in, False), HoldOut(one_in, True)
    train, test = (
        rows.select(part)
        if isinstance(rows, ParquetRows)
        else IndexedRows(rows.table, np.flatnonzero(part.mask(0, len(rows))))
        for part in (kept, hold_out)
    )
    if len(rows) and not len(test):
        raise InputError(f"{len(rows)} images are too few to set some aside for a test split; add more")
    return train, test
