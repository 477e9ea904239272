"""The any-order prior: the shared suite in raster order, and its properties in random orders and in groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.verification.batches import batch_invariance, condition_counts, repeats
from pipeline.verification.coding import codec_round_trip
from pipeline.verification.decoding import cached_is_naive, guidance_is_exact
from pipeline.verification.files import saved_and_opened
from pipeline.verification.likelihood import (
    causality,
    exchange,
    normalisation,
    receptive_field,
    samples_follow_probabilities,
)
from pipeline.verification.verify import verify
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.grid import Grid
from stage2_prior import AnyOrderPrior, AnyOrderPriorConfig, TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    holds,
    random_condition,
    random_symbols,
    randomized,
)
from tests.capturing import capturing

GRID = Grid(1, 3, 4, 5)


def small(grid: Grid = GRID, classes: tuple[str, ...] = (), **changes: Any) -> AnyOrderPrior:
    sizes = {"depth": 3, "width": 24, "heads": 2, "final_random_share": 1.0, **changes}
    return AnyOrderPrior(AnyOrderPriorConfig(grid=grid, classes=classes, **sizes))


class TestAnyOrderPrior(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> AnyOrderPrior:
        return small(grid, classes)


def random_groups(grid: Grid, seed: int = 0) -> list[Tensor]:
    """A random permutation, cut at random: groups of 1 to 4 positions."""
    generator = torch.Generator().manual_seed(seed)
    rest, groups = torch.randperm(grid.size, generator=generator), []
    while len(rest):
        size = int(torch.randint(1, 5, (), generator=generator))
        groups, rest = [*groups, rest[:size]], rest[size:]
    return groups


def in_some_order(model: AnyOrderPrior, order: str) -> AnyOrderPrior:
    size = model.grid.size
    if order == "random":
        permutation = torch.randperm(size, generator=torch.Generator().manual_seed(1))
        return model.in_order(list(permutation.split(1)))
    if order == "groups":
        return model.in_order(random_groups(model.grid))
    return model.in_steps({"one step": 1, "steps": max(2, size // 3), "as many": size}[order])


ORDERS = ["random", "groups", "one step", "steps", "as many"]


@pytest.mark.parametrize("order", ORDERS)
class TestOrders:
    """What must hold for every model, in other orders than raster order."""

    @pytest.mark.parametrize("grid", AutoregressiveSuite.tiny_grids, ids=str)
    def test_normalised(self, order: str, grid: Grid) -> None:
        """The probabilities of all grids sum to 1, those of the steps that are drawn."""
        model = in_some_order(randomized(small(grid)), order)  # type: ignore[arg-type]
        holds(normalisation(model, random_symbols(grid, 2)))

    @pytest.mark.parametrize("grid", [GRID, Grid(3, 2, 3, 4)], ids=str)
    def test_causal(self, order: str, grid: Grid) -> None:
        """Logits react to every symbol of earlier steps, and to no other: not to those of their own step."""
        model, symbols = in_some_order(randomized(small(grid)), order), random_symbols(grid, 2)  # type: ignore[arg-type]
        holds(causality(model, symbols, range(grid.size)))
        holds(exchange(model, symbols, range(grid.size)))
        field = receptive_field(model, symbols, range(grid.size))
        assert field.measured == (0 if order == "one step" else 1)

    @pytest.mark.parametrize("grid", [GRID, Grid(3, 2, 3, 4)], ids=str)
    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_cached_is_naive(
        self, order: str, grid: Grid, batch_size: int, dtype: torch.dtype, tolerance: float
    ) -> None:
        """The decoder's logits are the teacher-forced ones of this order; a decoder that is full says so."""
        model = in_some_order(randomized(small(grid, CLASSES), 0.1).to(dtype), order)  # type: ignore[arg-type]
        symbols, condition = random_symbols(grid, batch_size), random_condition(batch_size)
        decoders = [
            model.decoder(batch_size, condition),
            NaiveDecoder(model, batch_size, condition, model.order),
        ]
        holds(cached_is_naive(model, symbols, condition, most=tolerance, among=decoders))
        for decoder in decoders:
            with pytest.raises(InputError, match="full"):
                decoder.logits()

    def test_symbols_may_be_given_unseen(self, order: str) -> None:
        """Advancing without asking for logits leaves a decoder where asking would have."""
        model, symbols = in_some_order(randomized(small()), order), random_symbols(GRID, 2)  # type: ignore[arg-type]
        with torch.no_grad():
            expected = GRID.flatten(model(symbols))
        decoder = model.decoder(2)
        *earlier, last = decoder.steps
        for positions in earlier:
            decoder.advance(GRID.flatten(symbols)[:, positions])
        torch.testing.assert_close(decoder.logits(), expected[:, last], rtol=0, atol=1e-10)

    def test_samples_follow_p(self, order: str) -> None:
        """Frequencies of 20,000 samples pass a chi-square test against the exact probabilities of these steps."""
        model = in_some_order(randomized(small(Grid(1, 2, 2, 3))), order)  # type: ignore[arg-type]
        holds(samples_follow_probabilities(model, 20_000, least=1e-4, batch_size=20_000))

    def test_batches(self, order: str) -> None:
        """A seed gives one image, however batched or captured; likelihoods are a row's own; known symbols stay."""
        model = in_some_order(randomized(small(classes=CLASSES)), order)  # type: ignore[arg-type]
        symbols, condition = random_symbols(GRID, 3), random_condition(3)
        for check in (batch_invariance, repeats, condition_counts, guidance_is_exact):
            holds(check(model, symbols, condition))
        mask = torch.zeros(GRID.shape, dtype=torch.bool)
        mask[:, 1, 1:] = True

        def drawn(**options: Any) -> Tensor:
            return model.sample(
                3, condition, known=symbols, mask=mask, sampling=Sampling(guidance=1.5),
                generator=torch.Generator().manual_seed(5), **options,
            )  # fmt: skip

        whole = drawn()
        assert torch.equal(whole[:, mask], symbols[:, mask])
        assert torch.equal(whole, drawn(batch_size=2))
        assert not torch.equal(whole[0], whole[1])
        with capturing():
            assert torch.equal(whole, drawn())

    def test_codes_come_back(self, order: str) -> None:
        """Compression goes by the same steps."""
        model = in_some_order(randomized(small(Grid(1, 4, 4, 50))), order)  # type: ignore[arg-type]
        holds(codec_round_trip(model, random_symbols(model.grid, 3)))


def test_a_step_does_not_change_what_its_symbols_are_given() -> None:
    """A symbol of a group has the logits that it has alone, as the next one after the groups before it."""
    model, symbols = randomized(small()), random_symbols(GRID, 2)
    groups = random_groups(GRID)
    assert any(len(group) > 1 for group in groups)
    with torch.no_grad():
        grouped = GRID.flatten(model.in_order(groups)(symbols))  # type: ignore[operator]
        for index, group in enumerate(groups):
            before, after = groups[:index], groups[index + 1 :]
            for position in group:
                others = [one for one in group if one != position]
                sequence = torch.cat([*before, torch.stack([position, *others]), *after])
                alone = GRID.flatten(model.in_order(list(sequence.split(1)))(symbols))  # type: ignore[operator]
                assert (alone[:, position] - grouped[:, position]).abs().max() < 1e-12


def test_log_prob_of_an_order_is_that_of_the_model_in_it() -> None:
    """By ``order=``, by ``in_order``, and a row each of several; orders differ, and leave the model in raster order."""
    model: Any = randomized(small(classes=CLASSES))
    symbols, condition = random_symbols(GRID, 3), random_condition(3)
    with torch.no_grad():
        raster = model.log_prob(symbols, condition)
        sequences = torch.stack(
            [torch.randperm(GRID.size), torch.arange(GRID.size), torch.randperm(GRID.size)]
        )
        rows = model.log_prob_in_orders(symbols, condition, sequences)
        for row, sequence in enumerate(sequences):
            order = list(sequence.split(1))
            one = model.log_prob(symbols[row : row + 1], condition[row : row + 1], order=order)
            assert (one - rows[row]).abs() < 1e-10
        grouped = model.log_prob(symbols, condition, order=random_groups(GRID))
        assert torch.equal(grouped, model.in_order(random_groups(GRID)).log_prob(symbols, condition))
        assert rows[1] == pytest.approx(raster[1].item(), abs=1e-10)
        assert ((grouped - raster).abs() > 1e-3).all()
        assert torch.equal(model.log_prob(symbols, condition), raster)


def test_steps_share_the_weights() -> None:
    """A model in steps is no copy; back in raster order, and saved, it is the model that it was."""
    model: Any = randomized(small()).float()
    in_steps = model.in_steps(4)
    assert [one.data_ptr() for one in in_steps.parameters()] == [one.data_ptr() for one in model.parameters()]
    assert len(in_steps.order) == 4
    assert len(model.order) == GRID.size
    with torch.no_grad():
        symbols = random_symbols(GRID, 3)
        assert torch.equal(in_steps.in_order(model.order).log_prob(symbols), model.log_prob(symbols))
    for one in (model, in_steps):
        holds(saved_and_opened(one, symbols))


def test_verification_goes_by_the_steps() -> None:
    """``verify`` passes a model in steps, and finds symbols of one step that see one another."""
    model: Any = randomized(small(Grid(1, 2, 3, 3))).float().in_steps(3)
    verification = verify(model)
    assert verification.passed, str(verification)
    causal = model.in_order(random_groups(model.grid))
    causal.logits_from = model.in_order(list(torch.arange(6).split(1))).logits_from
    assert "causality" in verify(causal).failed


@pytest.mark.parametrize(
    "changes", [{"depth": 2, "heads": 1}, {"depth": 5, "mlp_width": 7}, {"heads": 3}], ids=str
)
def test_every_architecture_is_decoded(changes: dict[str, Any]) -> None:
    """Whatever the heads, widths and depths, cached logits are the teacher-forced ones; half precisions stay near."""
    model: Any = randomized(small(**changes), 0.1)
    symbols = random_symbols(GRID, 3)
    for ordered in (model, model.in_steps(5)):
        with torch.no_grad():
            expected = GRID.flatten(ordered(symbols))
        assert (decoded_logits(ordered.decoder(3), symbols) - expected).abs().max() < 1e-10
    half = model.to(torch.bfloat16).in_steps(5)
    assert (decoded_logits(half.decoder(3), symbols).double() - expected).abs().max() < 0.2


def test_refusals() -> None:
    """Steps that do not fit, models that were not trained for several a step, and orders that are no permutation."""
    model, raster = small(), small(final_random_share=0.0)
    for steps in (0, -1, 13):
        for one in (model, raster):
            with pytest.raises(InputError, match=f"steps is {steps}, expected 1 to 12"):
                one.in_steps(steps)
    with pytest.raises(InputError, match="ended its training in raster order alone"):
        raster.in_steps(4)
    other: AutoregressiveModel = TransformerPrior(TransformerPriorConfig(grid=GRID, width=24, heads=2))
    with pytest.raises(InputError, match="a transformer-prior was trained to draw one symbol a step"):
        other.in_steps(4)
    with pytest.raises(InputError, match="a transformer-prior is in raster order alone"):
        other.in_order(random_groups(GRID))
    permutation = torch.randperm(12)
    for order in (
        permutation[:-1].split(1),
        [*permutation.split(4), permutation[:1]],
        (permutation + 1).split(1),
        [],
    ):
        with pytest.raises(InputError, match="no permutation"):
            model.log_prob(random_symbols(GRID, 1), order=order)
    for order in ([permutation, permutation[:0]], [permutation.int()], [permutation[None]], [[0, 1]]):  # type: ignore[assignment]
        with pytest.raises(InputError, match="list of steps"):
            model.in_order(order)
    plan = SamplingPlan.of(GRID, 1)
    with pytest.raises(InputError, match="fixed point is of raster order"):
        model.in_steps(4).draw(plan, method="fixed-point")
    with pytest.raises(InputError, match="depth is 1, expected 2 or more"):
        small(depth=1)
