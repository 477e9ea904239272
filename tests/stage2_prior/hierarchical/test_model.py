"""The hierarchical prior: the shared suite, and how its two grids depend on each other."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.two_grids import TwoGrids, joined, separated
from stage2_prior import HierarchicalPrior, HierarchicalPriorConfig, TransformerPrior
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    random_condition,
    random_symbols,
    randomized,
)


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> HierarchicalPrior:
    sizes = {"depth": 2, "top_depth": 1, "encoder_depth": 1, "width": 24, "heads": 2, **changes}
    return HierarchicalPrior(HierarchicalPriorConfig(grid=grid, classes=classes, **sizes))


class TestHierarchicalPrior(AutoregressiveSuite):
    """Joint grids of a top grid of 1×2, 2×1, …"""

    grids: ClassVar[list[Grid]] = [Grid(1, 5, 2, 256), Grid(1, 10, 1, 2), Grid(3, 5, 2, 8)]
    tiny_grids: ClassVar[list[Grid]] = [Grid(1, 5, 2, 2), Grid(1, 5, 1, 4), Grid(2, 5, 1, 2)]
    sampled_grid: ClassVar[Grid] = Grid(1, 5, 1, 3)
    tall_grids: ClassVar[list[Grid]] = [Grid(1, 20, 2, 5), Grid(3, 20, 1, 4)]
    small_grids: ClassVar[list[Grid]] = [Grid(1, 5, 1, 4), Grid(2, 5, 1, 4)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> HierarchicalPrior:
        return small(grid, classes)


def test_the_likelihood_is_that_of_a_chain() -> None:
    """log p(top) by a transformer prior alone, and log p(bottom | top), which sums to 1 for every top grid."""
    grids = TwoGrids.below(Grid(1, 1, 1, 4))
    model = randomized(small(grids.joint))
    tops = torch.arange(4).view(4, 1, 1, 1)
    bottoms = torch.cartesian_prod(*[torch.arange(4)] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        alone = model.top.log_prob(tops)
        for index, top in enumerate(tops):
            symbols = joined(top.expand(len(bottoms), -1, -1, -1), bottoms)
            of_top, of_bottom = model.grid_log_probs(symbols)
            assert of_top.allclose(alone[index].expand_as(of_top), rtol=0, atol=1e-12)
            assert abs(of_bottom.exp().sum() - 1) < 1e-9
            assert (of_top + of_bottom - model.log_prob(symbols)).abs().max() < 1e-12
    assert abs(alone.exp().sum() - 1) < 1e-9


def test_the_bottom_sees_all_of_the_top_and_the_top_nothing_of_the_bottom() -> None:
    """By gradients: of each position of the bottom grid to every top code, and to earlier bottom codes alone."""
    grids = TwoGrids.below(Grid(1, 2, 2, 5))
    model = randomized(small(grids.joint))
    inputs = model.embed(random_symbols(grids.joint, 1)).detach().requires_grad_()
    top, bottom = (part.flatten(1, 3)[0] for part in separated(model.logits_from(inputs)))
    for position, logits in enumerate(bottom):
        (gradient,) = torch.autograd.grad(logits.square().sum(), inputs, retain_graph=True)
        of_top, of_bottom = (part.abs().sum(-1).flatten() > 0 for part in separated(gradient))
        assert of_top.all()
        assert of_bottom.tolist() == [earlier < position for earlier in range(grids.bottom.size)]
    for position, logits in enumerate(top):
        (gradient,) = torch.autograd.grad(logits.square().sum(), inputs, retain_graph=True)
        of_top, of_bottom = (part.abs().sum(-1).flatten() > 0 for part in separated(gradient))
        assert of_top.tolist() == [earlier < position for earlier in range(grids.top.size)]
        assert not of_bottom.any()


@pytest.mark.parametrize("channels", [1, 2])
def test_features_of_the_top_lie_in_place(channels: int) -> None:
    """Without attention between sites, a top code reaches the four bottom sites below it, and no others."""
    grids = TwoGrids.below(Grid(channels, 2, 3, 5))
    model = randomized(small(grids.joint))
    for block in model.top_encoder.layers:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
    codes = random_symbols(grids.top, 1)
    other = codes.clone()
    other[:, -1, 1, 2] = (other[:, -1, 1, 2] + 1) % 5
    with torch.no_grad():
        before, after = (model.top_encoder(model.top.embed(one)) for one in (codes, other))
    changed = (before != after).any(1)[0]
    assert changed.nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    sequence = model.bottom.sequence_of(before)
    for index in range(grids.bottom.size):
        row, column, _ = grids.bottom.site(index)
        assert torch.equal(sequence[:, index], before[:, :, row, column])


def test_the_top_grid_is_encoded_once_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many codes are drawn."""
    model = randomized(small(Grid(1, 10, 2, 5)))
    calls: list[int] = []
    model.top_encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    model.sample(3)
    assert calls == [3]


@pytest.mark.parametrize(
    "changes",
    [
        {"top_depth": 2, "depth": 1, "heads": 1},
        {"heads": 3, "mlp_width": 7, "encoder_depth": 2},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_every_architecture_is_decoded(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached logits are the teacher-forced ones, also made ready for a capture, where a position reads its bucket."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 3)
    grid = Grid(2, 10, 1, 7)
    model = randomized(small(grid, CLASSES, **changes))
    symbols, condition = random_symbols(grid, 3), random_condition(3)
    with torch.no_grad():
        expected = grid.flatten(model(symbols, condition))

    def apart(decoder: Decoder) -> Tensor:
        return (decoded_logits(decoder, symbols) - expected).abs().max()

    bucketed = model.decoder(3, condition)
    assert sum(region.repeats for region in bucketed.capture_regions()) == grid.size
    assert apart(bucketed) < 1e-10
    assert apart(model.decoder(3, condition)) < 1e-10


def test_labels_reach_both_grids() -> None:
    model = randomized(small(Grid(1, 5, 2, 5), CLASSES))
    symbols = random_symbols(model.grid, 1).expand(2, -1, -1, -1)
    for nats in model.grid_log_probs(symbols, Condition(torch.tensor([0, 1]))):
        assert nats[0] != nats[1]


def test_top_codes_alone_are_a_transformer_priors() -> None:
    """What is drawn first is what the top grid's transformer draws by itself from the same noise."""
    grids = TwoGrids.below(Grid(1, 2, 2, 5))
    model = randomized(small(grids.joint))
    known = joined(random_symbols(grids.top, 2), random_symbols(grids.bottom, 2))
    mask = joined(torch.zeros(1, *grids.top.shape), torch.ones(1, *grids.bottom.shape)).bool()[0]
    drawn = model.sample(2, known=known, mask=mask, generator=torch.Generator().manual_seed(3))
    again = model.sample(2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(separated(drawn).top, separated(again).top)
    assert torch.equal(separated(drawn).bottom, separated(known).bottom)
    assert isinstance(model.top, TransformerPrior)


def test_refusals() -> None:
    """A grid that is not two, and widths as of the transformer prior."""
    with pytest.raises(InputError, match="1×16×16 of 512 levels is not two grids in one"):
        HierarchicalPriorConfig(grid=Grid(1, 16, 16, 512))
    with pytest.raises(InputError, match="no multiple of 2 × 5 heads"):
        HierarchicalPriorConfig(width=64, heads=5)
    model = small(Grid(1, 5, 1, 4))
    with pytest.raises(InputError, match="a spatial condition was given to a transformer-prior"):
        model.log_prob(random_symbols(model.grid, 1), Condition(spatial=torch.zeros(1, 24, 1, 1)))
    with pytest.raises(InputError, match="without a window"):
        model.sample(1, method="fixed-point", window=4)
