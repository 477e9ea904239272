"""Settings that ``--preset`` starts from; other flags change them."""

from __future__ import annotations

from pipeline.compare.plan.settings import Settings
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig

QUICK = Settings(budget="20s", samples=256, sample_batch=64, sample_limit="30s")
"""The built-in digits."""

EMOJI = Settings(
    data=DataConfig(dataset="", resample="box"),
    augmentation=Augmentation(flip=True, shift=0.06, scale=0.1, rotate=8, fill=255),
)
"""Any dataset of objects on white."""

PHOTOS = Settings(
    data=DataConfig(dataset="", resample="box"),
    augmentation=Augmentation(flip=True, crop=2),
)
"""Any dataset of photographs."""
