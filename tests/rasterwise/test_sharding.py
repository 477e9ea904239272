"""Weights over processes, as one process sees them; two are in test_processes.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.errors import InputError
from rasterwise.grid import Grid
from rasterwise.sharding import check_sharding, shard_like, sharded_like, whole, whole_model
from stage2_prior import TransformerPrior, TransformerPriorConfig

GRID = Grid(1, 3, 3, 4)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def prior() -> TransformerPrior:
    torch.manual_seed(0)
    return TransformerPrior(TransformerPriorConfig(grid=GRID, depth=1, width=8, heads=2, dropout=0.0))


class FSDPAccelerator:
    """As Accelerate's is on GPUs with an FSDP configuration."""

    distributed_type = "FSDP"

    def __init__(self, version: int) -> None:
        self.is_fsdp2 = version == 2


def test_only_some_models_are_sharded() -> None:
    check_sharding(prior(), FSDPAccelerator(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fsdp_version 1, expected 2"):
        check_sharding(prior(), FSDPAccelerator(1))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a gated-pixelcnn is not trained with"):
        check_sharding(GatedPixelCNN(GatedPixelCNNConfig(grid=GRID, depth=1, width=4)), FSDPAccelerator(2))  # type: ignore[arg-type]


def test_what_is_whole_stays_as_it_is() -> None:
    model, tensor = prior(), torch.ones(2)
    assert whole_model(model) is model
    assert whole(tensor) is tensor
    assert sharded_like(tensor, torch.zeros(2)) is tensor


def test_there_and_back(process_group: None) -> None:
    model, twin = prior(), prior()
    symbols = torch.randint(4, (2, *GRID.shape))
    expected = model.log_prob(symbols)
    fully_shard(model)
    shard_like(twin, model)
    assert all(isinstance(parameter, DTensor) for parameter in twin.parameters())
    state = torch.get_rng_state()
    copy = whole_model(twin)
    assert torch.equal(torch.get_rng_state(), state)
    assert copy.training == twin.training
    assert torch.equal(copy.log_prob(symbols), expected)
