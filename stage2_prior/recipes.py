"""Stage 2 trainings worth repeating, with what they cost and reached."""

from __future__ import annotations

from pathlib import Path

from rasterwise.training.config import TrainingConfig
from stage2_prior.options import TrainPrior
from stage2_prior.transformer.network import TransformerPriorConfig


def prior_recipe(codes: Path, output: Path) -> TrainPrior:
    """Stage 2 on digits: a small transformer over 16 codes a digit.

    From the training digits alone it would learn them by heart: docs/experiments.md shows how. Augmented copies
    make it general.
    """
    return TrainPrior(
        codes=codes,
        output=output,
        model=TransformerPriorConfig(depth=4, width=128, heads=4, dropout=0.2),
        training=TrainingConfig(
            steps=1200, batch_size=128, learning_rate=1e-3, weight_decay=0.1, evaluate_every=300
        ),
    )
