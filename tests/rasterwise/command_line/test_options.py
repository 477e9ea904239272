"""The options of the training commands: what they share, and the order that users see."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pixel_baselines.options import TrainPixel
from rasterwise.command_line.options import TrainingOptions
from stage1_vqvae.train import TrainVQVAE
from stage2_prior.train import TrainPrior


def names(options_class: Any) -> str:
    return " ".join(field.name for field in dataclasses.fields(options_class))


@pytest.mark.parametrize(
    ("options_class", "own"),
    [
        (TrainVQVAE, "output data augmentation model perceptual adversarial training"),
        (TrainPrior, "codes output model training label_dropout"),
        (
            TrainPixel,
            "model output data augmentation levels dynamic palette codes conditional training label_dropout",
        ),
    ],
)
def test_a_commands_own_options_come_first(options_class: Any, own: str) -> None:
    """In help texts and in run.json: those of its own, in its own order, then those that all have."""
    assert issubclass(options_class, TrainingOptions)
    assert names(options_class) == f"{own} resume dry_run force json"


def test_the_order_changes_nothing_else() -> None:
    """Defaults, equality and replacement are a dataclass's."""
    options = dataclasses.replace(TrainPrior(), label_dropout=0.5, force=True)
    assert options == TrainPrior(force=True, label_dropout=0.5)
    assert options != TrainPrior()
    assert " ".join(dataclasses.asdict(options)) == names(TrainPrior)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.force = False  # type: ignore[misc]
