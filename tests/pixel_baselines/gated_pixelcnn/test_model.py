"""Gated PixelCNN passes the shared suite; spatial conditions do what labels do there."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.gated_pixelcnn.decoder import negated_gate
from pixel_baselines.gated_pixelcnn.model import GatedPixelCNN
from pixel_baselines.gated_pixelcnn.network import GatedPixelCNNConfig
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    random_symbols,
    randomized,
)
from tests.capturing import capturing


class TestGatedPixelCNN(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> GatedPixelCNN:
        # Blue sees its own site's green through blue's features alone: wide enough that the head's ReLU
        # never shuts all of them at once, which would look like a blind spot.
        return GatedPixelCNN(
            GatedPixelCNNConfig(
                grid=grid, classes=classes, width=48, depth=3, input_kernel=5, output_width=48
            )
        )


class TestGatedPixelCNNOverCodes(AutoregressiveSuite):
    """Learned vectors, levels beyond 256, several codes a site, and a kernel that keeps two rows."""

    grids: ClassVar = [Grid(1, 4, 5, 300), Grid(2, 4, 3, 12)]
    tiny_grids: ClassVar = [Grid(1, 3, 2, 3), Grid(2, 2, 2, 2)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> GatedPixelCNN:
        return GatedPixelCNN(
            GatedPixelCNNConfig(
                grid=grid,
                classes=classes,
                width=8,
                depth=3,
                input_kernel=3,
                kernel=5,
                output_width=24,
                embedding="learned",
                embedding_width=5,
            )
        )


@pytest.mark.parametrize("grid", [Grid(1, 6, 7, 4), Grid(3, 4, 5, 4)], ids=str)
def test_no_blind_spot_in_its_structure(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a head that is never flat, every symbol reaches every later one, also in the default depth."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    model = randomized(GatedPixelCNN(GatedPixelCNNConfig(grid=grid, width=6, output_width=6)), 0.1)
    inputs = model.embed(random_symbols(grid, 1)).requires_grad_()
    logits = grid.flatten(model.logits_from(inputs))
    for index in range(grid.size):
        (gradient,) = torch.autograd.grad(logits[0, index].square().sum(), inputs, retain_graph=True)
        reached = grid.flatten(gradient)[0] != 0
        assert reached.tolist() == [earlier < index for earlier in range(grid.size)]


def spatial_model(grid: Grid, depth: int = 2) -> GatedPixelCNN:
    config = GatedPixelCNNConfig(
        grid=grid, classes=CLASSES, width=8, depth=depth, input_kernel=5, output_width=24, spatial_features=3
    )
    return randomized(GatedPixelCNN(config), 0.2)  # type: ignore[return-value]


def random_map(grid: Grid, batch_size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, 3, grid.height, grid.width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("given", ["label", "map", "both"])
@pytest.mark.parametrize("grid", [Grid(1, 4, 5, 4), Grid(3, 3, 4, 8)], ids=str)
def test_cached_is_naive_under_a_spatial_condition(grid: Grid, given: str, depth: int) -> None:
    """The decoder's logits are the teacher-forced ones at every site, whatever the condition holds."""
    model = spatial_model(grid, depth)
    label = None if given == "map" else torch.tensor([0, 2, -1])
    condition = Condition(label, None if given == "label" else random_map(grid, 3))
    symbols = random_symbols(grid, 3)
    with torch.no_grad():
        expected = grid.flatten(model(symbols, condition))
    found = decoded_logits(model.decoder(3, condition), symbols)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_replayed_rows_read_their_own_row_of_the_map(guidance: float) -> None:
    """A captured row reads the map where it is, not where it was captured."""
    grid = Grid(3, 6, 2, 4)
    model, condition = spatial_model(grid), Condition(torch.tensor([0, 2, -1]), random_map(grid, 3))
    arguments: dict[str, Any] = {"condition": condition, "sampling": Sampling(guidance=guidance)}
    plain = model.sample(3, **arguments, generator=torch.Generator().manual_seed(0))
    with capturing() as capture:
        replayed = model.sample(3, **arguments, generator=torch.Generator().manual_seed(0))
    assert torch.equal(replayed, plain)
    assert [work.replays for work in capture.captured] == [5]


def test_a_spatial_condition_counts_and_does_not_leak() -> None:
    """A row's map changes its own log-probability and no other row's; a map of zeros is no condition."""
    grid = Grid(3, 3, 4, 8)
    model, symbols, maps = (
        spatial_model(grid),
        random_symbols(grid, 1).expand(3, -1, -1, -1),
        random_map(grid, 3),
    )
    changed = maps.clone()
    changed[1] += 1
    with torch.no_grad():
        conditioned = model.log_prob(symbols, Condition(spatial=maps))
        other = model.log_prob(symbols, Condition(spatial=changed))
        zeros = model.log_prob(symbols, Condition(spatial=torch.zeros_like(maps)))
        unconditional = model.log_prob(symbols)
    assert (conditioned == other).tolist() == [True, False, True]
    assert torch.equal(zeros, unconditional)


def test_a_spatial_condition_acts_where_it_is_said() -> None:
    """What is said of a site reaches the site itself and the row below, never an earlier row."""
    grid = Grid(1, 5, 5, 4)
    model, symbols = spatial_model(grid), random_symbols(grid, 1)
    maps = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    maps[0, :, 2, 2] = 1
    with torch.no_grad():
        difference = model(symbols, Condition(spatial=maps)) - model(symbols)
    changed = difference[0, 0].abs().sum(-1) > 0
    assert changed[2, 2]
    assert not changed[:2].any()
    assert changed[3, 1:4].all()


def test_guidance_with_a_spatial_condition() -> None:
    """Scale 1 draws the conditional model's images and scale 0 the unconditional one's, exactly."""
    grid = Grid(1, 4, 4, 4)
    model = spatial_model(grid)
    condition = Condition(torch.tensor([0, 1, 2, 0]), random_map(grid, 4))

    def drawn(condition: Condition | None, guidance: float) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return model.sample(
            4, condition, sampling=Sampling(guidance=guidance), generator=generator, batch_size=3
        )

    assert torch.equal(drawn(condition, 1.0), drawn(condition, 1.0 + 1e-12))
    assert torch.equal(drawn(None, 1.0), drawn(condition, 1e-12))
    assert not torch.equal(drawn(condition, 1.0), drawn(None, 1.0))


def test_a_condition_keeps_label_and_map_together() -> None:
    """Slices, and the unconditioned rows of guidance, are of both."""
    condition = Condition(torch.tensor([4, 5, 6]), torch.arange(12.0).view(3, 1, 2, 2))
    part = condition[1:]
    assert len(part) == 2
    assert part.label is not None
    assert part.spatial is not None
    assert part.label.tolist() == [5, 6]
    assert part.spatial.flatten().tolist() == list(range(4, 12))
    both = Condition(spatial=part.spatial).with_unconditioned().to("cpu")
    assert both.label is None
    assert both.spatial is not None
    assert both.spatial.flatten().tolist() == [*range(4, 12), *[0] * 8]
    with pytest.raises(InputError, match="needs a label or a spatial map"):
        Condition()
    with pytest.raises(InputError, match="2 labels but 3"):
        Condition(torch.tensor([0, 1]), torch.zeros(3, 1, 2, 2))


def test_negated_gate() -> None:
    """One sigmoid over (2a, b) gives the gated activation unit with its sign reversed."""
    a, b = torch.randn(2, 5, 7, dtype=torch.float64).unbind(0)
    out = torch.empty(5, 7, dtype=torch.float64)
    negated_gate(torch.cat([2 * a, b], -1).sigmoid(), out)
    torch.testing.assert_close(out, -a.tanh() * b.sigmoid(), rtol=0, atol=1e-15)


def test_decoder_memory_grows_with_rows_not_with_the_area() -> None:
    """A grid three times as high needs no larger buffers."""

    def elements(height: int) -> int:
        decoder = GatedPixelCNN(GatedPixelCNNConfig(grid=Grid(3, height, 5, 4), width=12, depth=3)).decoder(2)
        return sum(value.numel() for value in vars(decoder).values() if isinstance(value, Tensor))

    assert elements(12) == elements(4)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition(spatial=torch.zeros(2, 3, 4, 4)), r"\(2, 3, 4, 4\), expected float \(1, 3, 4, 4\)"),
        (Condition(spatial=torch.zeros(1, 2, 4, 4)), r"\(1, 2, 4, 4\), expected float \(1, 3, 4, 4\)"),
        (Condition(spatial=torch.zeros(1, 3, 4, 4, dtype=torch.int64)), "torch.int64"),
        (Condition(torch.tensor([9]), torch.zeros(1, 3, 4, 4)), "label 9"),
    ],
)
def test_refuses_a_condition(condition: Condition, message: str) -> None:
    model = spatial_model(Grid(1, 4, 4, 4))
    with pytest.raises(InputError, match=message):
        model.log_prob(random_symbols(model.grid, 1), condition)
    with pytest.raises(InputError, match=message):
        model.decoder(1, condition)


def test_refuses_a_map_where_it_takes_none() -> None:
    model = GatedPixelCNN(GatedPixelCNNConfig(grid=Grid(1, 4, 4, 4), width=4, depth=1))
    with pytest.raises(InputError, match="spatial_features 0"):
        model.log_prob(random_symbols(model.grid, 1), Condition(spatial=torch.zeros(1, 3, 4, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth is 0"),
        ({"spatial_features": -1}, "spatial_features is -1"),
        ({"width": 2}, "width"),
    ],
)
def test_refuses_a_configuration(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GatedPixelCNNConfig(**{"grid": Grid(3, 4, 4, 256), **changes})
