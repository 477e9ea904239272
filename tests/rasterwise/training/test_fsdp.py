"""Weights over processes, as one process sees them; two are in test_processes.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch
from rasterwise.training.fsdp import (
    check_sharding,
    configure_sharding,
    shard_like,
    sharded_like,
    whole,
    whole_model,
)
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.objective import Objective
from stage2_prior import (
    AnyOrderPrior,
    AnyOrderPriorConfig,
    HierarchicalPrior,
    HierarchicalPriorConfig,
    TransformerPrior,
    TransformerPriorConfig,
)
from stage2_prior.any_order.network import QueryBlock
from stage2_prior.any_order.objective import AnyOrderObjective
from stage2_prior.models import TEXT_MODELS
from stage2_prior.objectives import CaptionedImageObjective
from stage2_prior.transformer.blocks import TransformerBlock

GRID = Grid(1, 3, 3, 4)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def prior() -> TransformerPrior:
    torch.manual_seed(0)
    return TransformerPrior(TransformerPriorConfig(grid=GRID, depth=1, width=8, heads=2, dropout=0.0))


def configured(**settings: Any) -> Any:
    """As an accelerator is on GPUs with an FSDP configuration."""
    plugin = FullyShardedDataParallelPlugin(**settings)
    return SimpleNamespace(
        distributed_type=DistributedType.FSDP,
        state=SimpleNamespace(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fsdp_version": 1}, "has fsdp_version 1, expected 2"),
        ({"fsdp_version": 2, "cpu_offload": True}, "has fsdp_offload_params"),
        ({"fsdp_version": 2, "activation_checkpointing": True}, "has fsdp_activation_checkpointing"),
        ({"fsdp_version": 2, "ignored_modules": "model.start"}, "has fsdp_ignored_modules"),
    ],
)
def test_what_no_training_does_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configure_sharding(configured(**settings))


def test_precision_is_left_to_autocast() -> None:
    """FSDP's own would cast the loss, too."""
    accelerator = configured(fsdp_version=2, mixed_precision_policy="bf16")
    configure_sharding(accelerator)
    assert accelerator.state.fsdp_plugin.mixed_precision_policy == MixedPrecisionPolicy()


def test_only_some_models_are_sharded() -> None:
    check_sharding(prior(), configured(fsdp_version=2))
    with pytest.raises(InputError, match="a gated-pixelcnn is not trained with"):
        check_sharding(
            GatedPixelCNN(GatedPixelCNNConfig(grid=GRID, depth=1, width=4)), configured(fsdp_version=2)
        )


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


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_models_of_text_and_images_are_sharded(name: str, process_group: None) -> None:
    """Their losses and gradients on shards are those on whole weights, whatever part of a model a loss asks."""
    sizes: dict[str, Any] = {"depth": 1, "width": 8, "heads": 2, "dropout": 0.0, "text_tokens": 4}
    config = TEXT_MODELS[name].config_class(grid=GRID, text_length=3, **sizes)
    batch = Batch(torch.randint(4, (3, *GRID.shape)), texts=TextBatch.of([torch.tensor([1, 2])] * 3))
    assert_shards_change_nothing(lambda: CaptionedImageObjective(TEXT_MODELS[name](config)), batch)


def test_the_any_order_prior_is_sharded(process_group: None) -> None:
    """In random orders, each way the same ones."""
    config = AnyOrderPriorConfig(grid=GRID, depth=2, width=8, heads=2, dropout=0.0)
    batch = Batch(torch.randint(4, (3, *GRID.shape)))
    assert_shards_change_nothing(lambda: AnyOrderObjective(AnyOrderPrior(config)), batch)


def test_a_prior_of_two_grids_is_sharded(process_group: None) -> None:
    """Both transformers and the encoder between them."""
    sizes: dict[str, Any] = {"depth": 1, "top_depth": 1, "encoder_depth": 1, "width": 8, "heads": 2}
    config = HierarchicalPriorConfig(grid=Grid(1, 5, 2, 4), dropout=0.0, **sizes)
    batch = Batch(torch.randint(4, (3, *config.grid.shape)))
    assert HierarchicalPrior.can_be_sharded
    assert_shards_change_nothing(lambda: LikelihoodObjective(HierarchicalPrior(config)), batch)


def assert_shards_change_nothing(build: Callable[[], Objective], batch: Batch) -> None:
    found = []
    for sharded in (False, True):
        torch.manual_seed(0)
        objective = build()
        if sharded:
            for module in objective.modules():
                if isinstance(module, TransformerBlock | QueryBlock):
                    fully_shard(module)
            fully_shard(objective)
        torch.manual_seed(1)
        total = objective(batch).total
        total.backward()
        gradients = [whole(one.grad) for one in objective.parameters() if one.grad is not None]
        assert len(gradients) == len(list(objective.parameters()))  # else processes would wait for each other
        found.append([total.detach(), *gradients])
    torch.testing.assert_close(found[1], found[0])
