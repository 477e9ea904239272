"""The built-in dataset: handwritten digits."""

from __future__ import annotations

from PIL import Image

from rasterwise.data.sources.rows import IndexedRows
from rasterwise.data.sources.tables import DatasetTable


def open_digits() -> IndexedRows:
    """scikit-learn's copy of the UCI digits (E. Alpaydin, C. Kaynak): 1,797 of them, 8×8, 17 greys."""
    import datasets
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in digits.images]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)])}
    )
    rows = {"image": images, "label": digits.target.tolist()}
    return IndexedRows(DatasetTable(datasets.Dataset.from_dict(rows, features=features)))
