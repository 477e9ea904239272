"""The benchmark of a tokenizer's training step. No test of a time."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks.tokenizer_step import LOSSES, TokenizerStepBenchmark, measure_steps, table
from rasterwise.errors import InputError
from rasterwise.measure.frozen_network import FrozenNetwork
from stage1_vqvae.losses import perceptual


def test_every_objective_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [nn.Conv2d(3, 4, 3, stride=2) if number == 0 else nn.Identity() for number in range(4)]
    network = FrozenNetwork("small", 8, stages, nn.Identity(), (0.5,), (0.5,))
    monkeypatch.setattr(perceptual, "open_frozen_network", lambda _: network)
    options = TokenizerStepBenchmark(
        batch_size=2, side=16, width=16, perceptual_side=16, discriminator_width=8, steps=1
    )
    cell = measure_steps(options)
    assert cell["seconds"].keys() == cell["processor_seconds"].keys() == LOSSES.keys()
    assert "VQGAN: both" in table([{"label": "16×16", **cell}])


def test_bad_input() -> None:
    """Refused before anything is measured."""
    with pytest.raises(InputError, match="asked for batches of 0"):
        TokenizerStepBenchmark(batch_size=0)
