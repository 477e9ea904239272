"""The pixel-level baselines."""

from pixel_baselines.models import *
