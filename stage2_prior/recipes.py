"""Stage 2 trainings worth repeating, with what they cost and reached."""

from __future__ import annotations

from pathlib import Path

from rasterwise.training.config import TrainingConfig
from stage2_prior.documents.network import ChameleonConfig
from stage2_prior.options import TrainPrior, TrainTextPrior
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


def documents_recipe(codes: Path, output: Path) -> TrainTextPrior[ChameleonConfig]:
    """A Chameleon on documents about digits: ``rasterwise quickstart documents``, whose report is its score.

    No first segment is left out: what follows an image at the beginning is then always its name. Text counts five times
    as much as codes, since a word is one id and a digit 16.
    """
    return TrainTextPrior[ChameleonConfig](
        codes=codes,
        output=output,
        model=ChameleonConfig(depth=4, width=96, heads=4, dropout=0.05),
        text_tokenizer="bpe",
        text_vocabulary=300,
        training=TrainingConfig(
            steps=1800,
            batch_size=48,
            accumulate=3,
            learning_rate=2e-3,
            weight_decay=0.1,
            ema_decay=0.99,
            evaluate_every=600,
        ),
        text_dropout=0.0,
        text_weight=5.0,
    )
