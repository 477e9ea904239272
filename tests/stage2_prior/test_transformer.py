"""The transformer prior passes the shared suite."""

from __future__ import annotations

from rasterwise.grid import Grid
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import AutoregressiveSuite


class TestTransformerPrior(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> TransformerPrior:
        return TransformerPrior(
            TransformerPriorConfig(grid=grid, classes=classes, depth=2, width=24, heads=2)
        )
