"""The fixed point: the images of sequential decoding, and how many evaluations they take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.fixed_point import jacobi_decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel, SamplingMethod
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import CLASSES, random_condition, random_symbols, randomized
from tests.rasterwise.decoding.test_decoder import Table

GRID = Grid(2, 3, 4, 9)


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    return randomized(
        TransformerPrior(TransformerPriorConfig(grid=GRID, classes=CLASSES, depth=2, width=24, heads=2))
    )


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Drawn:
    """What Jacobi iteration drew, both of it there."""

    symbols: Tensor
    evaluations: Tensor


def jacobi(model: AutoregressiveModel, n: int, condition: Condition | None = None, **arguments: Any) -> Drawn:
    drawn = model.draw(SamplingPlan.of(model.grid, n, condition, **arguments), method="fixed-point")
    assert drawn.evaluations is not None
    return Drawn(drawn.symbols, drawn.evaluations)


class Shown(AutoregressiveModel):
    """A model of x_i that keeps how many images it was shown in each pass."""

    kind = "counting"
    config_class = AutoregressiveConfig

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown: list[int] = []

    def embed(self, symbols: Tensor) -> Tensor:
        return symbols.double()

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        self.shown.append(len(inputs))
        return self.grid.unflatten(self.sequence_logits(self.grid.flatten(inputs).long()))

    def sequence_logits(self, symbols: Tensor) -> Tensor:
        raise NotImplementedError


class Counting(Shown):
    """Every symbol is the one before it plus 1, and the first one is 1, for certain."""

    def sequence_logits(self, symbols: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(symbols[:, :1]), symbols[:, :-1]], 1)
        certain = torch.nn.functional.one_hot((before + 1) % self.grid.levels, self.grid.levels)
        return torch.where(certain.bool(), 0.0, -torch.inf).double()


class Unsteady(Shown):
    """Never gives the same logits twice: the worst that rounding could do."""

    def sequence_logits(self, symbols: Tensor) -> Tensor:
        assert len(self.shown) <= self.grid.size, "it does not end"
        return torch.randn(*symbols.shape, self.grid.levels)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=1.7),
        Sampling(top_k=3),
        Sampling(top_p=0.7),
        Sampling(guidance=0),
        Sampling(guidance=2.5),
        Sampling(temperature=0.8, top_k=5, top_p=0.9, guidance=1.5),
        Sampling(noise="gumbel"),
        Sampling(temperature=0.8, top_k=5, top_p=0.9, guidance=1.5, noise="gumbel"),
    ],
    ids=str,
)
def test_every_way_of_sampling(model: AutoregressiveModel, sampling: Sampling) -> None:
    """Temperature, top-k, top-p and guidance give the images of sequential decoding, with and without known symbols."""
    mask = torch.rand(4, *GRID.shape, generator=seeded()) < 0.3
    for completion in ({}, {"known": random_symbols(GRID, 4), "mask": mask}):
        arguments: dict[str, Any] = {"condition": random_condition(4), "sampling": sampling, **completion}
        sequential = model.sample(4, **arguments, generator=seeded())
        drawn = jacobi(model, 4, **arguments, generator=seeded())
        assert torch.equal(drawn.symbols, sequential)
        assert drawn.evaluations.max() <= GRID.size
        windowed = model.sample(4, **arguments, generator=seeded(), method="fixed-point", window=7)
        assert torch.equal(windowed, sequential)


@pytest.mark.parametrize("noise", ["uniform", "gumbel"])
def test_batches_and_rows_change_nothing(
    model: AutoregressiveModel, noise: Literal["uniform", "gumbel"]
) -> None:
    """An image and what it took are the same in any batch; a share of the images is that share."""
    condition, rows, sampling = random_condition(7), torch.tensor([5, 6, 0]), Sampling(noise=noise)
    whole = jacobi(model, 7, condition, sampling=sampling, generator=seeded())
    assert torch.equal(whole.symbols, model.sample(7, condition, sampling=sampling, generator=seeded()))
    for batch_size in (1, 3):
        parts = jacobi(model, 7, condition, sampling=sampling, generator=seeded(), batch_size=batch_size)
        assert torch.equal(parts.symbols, whole.symbols)
        assert torch.equal(parts.evaluations, whole.evaluations)
    share = jacobi(model, 7, condition, sampling=sampling, generator=seeded(), rows=rows)
    assert torch.equal(share.symbols, whole.symbols[rows])
    assert torch.equal(share.evaluations, whole.evaluations[rows])
    sequential = model.sample(7, condition, sampling=sampling, generator=seeded(), rows=rows, batch_size=2)
    assert torch.equal(sequential, whole.symbols[rows])


def test_a_chain_takes_an_evaluation_a_symbol() -> None:
    """Where each symbol hangs on the one before it, nothing is gained: N evaluations; known ones break it."""
    grid = Grid(1, 3, 4, 20)
    model = Counting(AutoregressiveConfig(grid=grid))
    drawn = jacobi(model, 2)
    expected = torch.arange(1, 13).expand(2, 12)
    assert torch.equal(grid.flatten(drawn.symbols), expected)
    assert drawn.evaluations.tolist() == [12, 12]
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[:, 1, 0] = True  # two chains, of 4 and of 7
    completed = jacobi(model, 2, known=grid.unflatten(expected), mask=mask)
    assert torch.equal(grid.flatten(completed.symbols), expected)
    assert completed.evaluations.tolist() == [7, 7]


def test_what_is_all_known_takes_one_evaluation() -> None:
    """It shows that nothing is left to draw."""
    grid = Grid(1, 3, 4, 20)
    known, mask = random_symbols(grid, 2), torch.ones(grid.shape, dtype=torch.bool)
    drawn = jacobi(Counting(AutoregressiveConfig(grid=grid)), 2, known=known, mask=mask)
    assert torch.equal(drawn.symbols, known)
    assert drawn.evaluations.tolist() == [1, 1]


def test_settled_images_leave_the_batch_and_others_enter() -> None:
    """The network sees an image as often as its evaluations say, and never more than a batch of them."""
    grid = Grid(1, 1, 6, 20)
    model = Counting(AutoregressiveConfig(grid=grid))
    mask = torch.zeros(5, *grid.shape, dtype=torch.bool)
    mask[0] = mask[3] = True  # one evaluation; the others take six
    known = grid.unflatten(torch.arange(1, 7).expand(5, 6))
    drawn = jacobi(model, 5, known=known, mask=mask, batch_size=2)
    assert drawn.evaluations.tolist() == [1, 6, 6, 1, 6]
    assert model.shown == [2] * 7 + [1] * 6


def test_rounding_cannot_keep_it_from_ending() -> None:
    """What has settled stays, even if the network never agrees with itself: at most N evaluations."""
    drawn = jacobi(Unsteady(AutoregressiveConfig(grid=Grid(1, 3, 4, 20))), 8, generator=seeded())
    assert drawn.evaluations.max() == 12


METHODS = pytest.mark.parametrize("method", ["sequential", "fixed-point"])


@METHODS
def test_progress_counts_images(model: AutoregressiveModel, method: SamplingMethod) -> None:
    """Parts of images, ever more of them, up to all."""
    calls: list[tuple[float, int]] = []
    model.sample(
        5,
        batch_size=2,
        generator=seeded(),
        method=method,
        progress=lambda *call: calls.append(call),  # type: ignore[arg-type]
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert 0 < done[0] < 2
    assert calls[-1] == (5, 5)
    assert all(total == 5 for _, total in calls)


@METHODS
def test_what_does_not_fit_is_refused(model: AutoregressiveModel, method: SamplingMethod) -> None:
    """Both ways of sampling check the same; see test_plan for all of it."""
    with pytest.raises(InputError, match="2 conditions for 3 samples"):
        model.sample(3, random_condition(2), method=method)
    with pytest.raises(InputError, match="label 7 is out of range"):
        model.sample(1, Condition(torch.tensor([7])), method=method)
    with pytest.raises(InputError, match="batches of 0"):
        model.sample(3, batch_size=0, method=method)
    with pytest.raises(InputError, match="no condition to guide"):
        model.sample(3, sampling=Sampling(guidance=3.0), method=method)


class Masked(Shown):
    """1, 2, 1, 2, …, for certain. After 0 comes 3, and after 3 nothing may follow: no image has either."""

    def sequence_logits(self, symbols: Tensor) -> Tensor:
        before = torch.cat([torch.full_like(symbols[:, :1], 2), symbols[:, :-1]], 1)
        follows = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
        return follows.double().log()[before]


def test_a_wrong_guess_may_have_no_distribution() -> None:
    """What has not settled counts for nothing: zeros, the first guess, lead to 3, and 3 to no distribution."""
    grid = Grid(1, 3, 4, 4)
    drawn = jacobi(Masked(AutoregressiveConfig(grid=grid)), 2)
    assert torch.equal(grid.flatten(drawn.symbols), torch.tensor([1, 2] * 6).expand(2, 12))


@METHODS
def test_logits_that_are_not_finite_end_it(method: SamplingMethod) -> None:
    """With a line, at the first symbol that they count for."""
    grid = Grid(1, 3, 4, 4)
    model = Masked(AutoregressiveConfig(grid=grid))
    known, mask = torch.full((4, *grid.shape), 3), torch.zeros(grid.shape, dtype=torch.bool)
    mask[:, 1, 1] = True  # nothing can follow it
    with pytest.raises(NonFiniteError, match="logits are NaN or infinite"):
        model.sample(4, known=known, mask=mask, generator=seeded(), method=method)


def test_a_window_takes_no_more_positions_than_it_says(model: AutoregressiveModel) -> None:
    """It counts them, adapts below the most, and one of 1 is sequential; progress counts images."""
    shown: list[int] = []
    real = model.window_decoder

    def watched(batch_size: int, condition: Condition | None = None, *, window: int) -> Any:
        decoder = real(batch_size, condition, window=window)
        layers = decoder.pass_positions
        decoder.pass_positions = lambda stream: (shown.append(len(stream)), layers(stream))[1]  # type: ignore[func-returns-value]
        return decoder

    model.window_decoder = watched  # type: ignore[method-assign]
    try:
        for window in (1, 6):
            plan = SamplingPlan.of(GRID, 3, generator=seeded())
            calls: list[tuple[float, int]] = []
            drawn = model.draw(
                plan,
                method="fixed-point",
                window=window,
                progress=partial(lambda calls, *call: calls.append(call), calls),
            )
            assert drawn.evaluations is not None
            assert drawn.positions is not None
            assert (len(shown), sum(shown)) == (int(drawn.evaluations.sum()), int(drawn.positions.sum()))
            assert max(shown) == window
            assert calls == sorted(calls)
            assert calls[-1] == (3, 3)
            shown.clear()
    finally:
        model.window_decoder = real  # type: ignore[method-assign]


def test_a_window_that_does_not_fit_is_refused(model: AutoregressiveModel) -> None:
    """In one line."""
    with pytest.raises(InputError, match="window is 0, expected 1 or more"):
        model.sample(1, method="fixed-point", window=0)
    with pytest.raises(InputError, match="the method is sequential"):
        model.sample(1, window=4)
    with pytest.raises(InputError, match="a counting is drawn without a window"):
        Counting(AutoregressiveConfig(grid=Grid(1, 1, 6, 20))).sample(1, method="fixed-point", window=4)


def test_logits_that_are_not_finite_end_a_window_too() -> None:
    """At the first symbol that they count for."""
    model = randomized(TransformerPrior(TransformerPriorConfig(grid=GRID, depth=1, width=24, heads=2)))
    with torch.no_grad():
        model.llama.lm_head.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="logits are NaN or infinite"):
        model.sample(1, method="fixed-point", window=4)


def test_the_model_is_any_that_gives_teacher_forced_logits() -> None:
    """No class of ours is asked for."""
    grid = Grid(1, 3, 4, 20)
    drawn = jacobi_decode(Table(grid), SamplingPlan.of(grid, 2, generator=seeded()))
    assert drawn.symbols.shape == (2, *grid.shape)
