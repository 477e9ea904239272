"""A new model is one class: with the naive decoder alone it does whatever the others do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import CLASSES, random_condition, random_symbols, randomized
from tests.capturing import capturing


@dataclass(frozen=True, kw_only=True)
class RunningSumConfig(AutoregressiveConfig):
    """A running sum of symbol vectors."""

    width: int = 8


class RunningSum(AutoregressiveModel):
    """What a newcomer writes: configuration, layers, teacher-forced logits."""

    kind = "running-sum"
    config_class = RunningSumConfig
    config: RunningSumConfig

    def __init__(self, config: RunningSumConfig) -> None:
        super().__init__(config)
        self.symbol = nn.Embedding(config.grid.levels, config.width)
        self.label = nn.Embedding(len(config.classes) + 1, config.width)
        self.head = nn.Linear(config.width, config.grid.levels)

    def embed(self, symbols: Tensor) -> Tensor:
        return self.symbol(symbols)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        vectors = self.grid.flatten(inputs)
        start = self.label(self.class_index(condition, len(inputs)))[:, None]
        return self.grid.unflatten(self.head((start + vectors.cumsum(1) - vectors).tanh()))


GRID = Grid(2, 3, 4, 5)


@pytest.fixture
def model() -> AutoregressiveModel:
    return randomized(RunningSum(RunningSumConfig(grid=GRID, classes=CLASSES)), 1.0)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(guidance=1.5), Sampling(noise="gumbel")], ids=str)
def test_a_model_without_a_decoder_samples(model: AutoregressiveModel, sampling: Sampling) -> None:
    """Conditioned, guided and completed; by both methods; captured and not: the same images."""
    known, mask = (
        random_symbols(GRID, 3),
        torch.rand(GRID.shape, generator=torch.Generator().manual_seed(1)) < 0.3,
    )
    arguments = {"condition": random_condition(3), "sampling": sampling, "known": known, "mask": mask}

    def drawn(**way: object) -> Tensor:
        return model.sample(3, **arguments, **way, generator=torch.Generator().manual_seed(5))  # type: ignore[arg-type]

    symbols = drawn()
    GRID.check(symbols)
    assert torch.equal(symbols[:, mask], known[:, mask])
    assert torch.equal(drawn(method="fixed-point"), symbols)
    assert torch.equal(drawn(batch_size=1), symbols)
    assert torch.equal(drawn(capture=False), symbols)
    with capturing() as capture:
        assert torch.equal(drawn(), symbols)
    assert not capture.captured


def test_it_is_decoded_naively(model: AutoregressiveModel) -> None:
    """Until it brings a decoder of its own."""
    assert type(model.decoder(2)) is NaiveDecoder
    assert model.wavefront_decoder(2) is None
    assert type(model.sampling_decoder(SamplingPlan.of(GRID, 2))) is NaiveDecoder


def test_it_is_saved_and_opened(model: AutoregressiveModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """As any other."""
    opened = RunningSum.from_pretrained(model.float().save_pretrained(tmp_path / "model"))
    assert opened.fingerprint == model.fingerprint
