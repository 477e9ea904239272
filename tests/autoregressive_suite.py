"""The shared suite: what must hold for every autoregressive model.

A model's test module subclasses ``AutoregressiveSuite`` and gives ``build``; every property is then proven for
every case in ``cases``. Exactness is proven in float64.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.loop import walk
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from tests.recording import OneDevice, recorded_by_doing, replaying

CLASSES = ("a", "b", "c")


def every_grid(grid: Grid) -> Tensor:
    """All symbols that a small grid can hold, int64 ``(K^N, C, H, W)``."""
    sequences = torch.tensor(list(itertools.product(range(grid.levels), repeat=grid.size)))
    return grid.unflatten(sequences)


def randomized(model: AutoregressiveModel, scale: float = 0.3) -> AutoregressiveModel:
    """Random weights everywhere (fresh models have zeros that would hide a leak), float64, evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return model


def random_symbols(grid: Grid, batch_size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(grid.levels, (batch_size, *grid.shape), generator=generator)


def random_condition(batch_size: int) -> Condition:
    return Condition(torch.arange(batch_size) % len(CLASSES))


class AutoregressiveSuite(ABC):
    """The properties of design.md, one test each.

    Attributes:
        grids: Grids on which causality and the decoder are proven: odd, not square, every kind of data.
        tiny_grids: Grids small enough to sum over everything they can hold.
        blind_spot: True for a model whose paper has one: earlier symbols may then be cut off.
    """

    grids: ClassVar[list[Grid]] = [Grid(1, 5, 4, 2), Grid(1, 3, 5, 256), Grid(3, 3, 4, 8)]
    tiny_grids: ClassVar[list[Grid]] = [Grid(1, 3, 3, 2), Grid(1, 2, 2, 5), Grid(3, 1, 2, 3)]
    blind_spot: ClassVar[bool] = False

    @abstractmethod
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> AutoregressiveModel:
        """A small model of the grid, in float32, with fresh weights."""

    def test_normalised(self, tiny_grid: Grid) -> None:
        """The probabilities of all grids sum to 1."""
        model = randomized(self.build(tiny_grid))
        with torch.no_grad():
            total = model.log_prob(every_grid(tiny_grid)).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-9)

    def test_causal(self, grid: Grid) -> None:
        """Logits have gradient exactly 0 to every symbol not before them, and reach every one before them."""
        model = randomized(self.build(grid))
        inputs = model.embed(random_symbols(grid, 2)).detach().requires_grad_()
        logits = grid.flatten(model.logits_from(inputs))
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(grid.levels, generator=generator, dtype=torch.float64)
        for index in range(grid.size):
            (gradient,) = torch.autograd.grad(
                (logits[:, index] * weights).sum(), inputs, retain_graph=True, allow_unused=True
            )
            if gradient is None:
                gradient = torch.zeros_like(inputs)
            reached = (
                grid.flatten(gradient).flatten(2).abs().sum(2)
                if inputs.ndim > 4
                else grid.flatten(gradient).abs()
            )
            assert not reached[:, index:].any(), f"symbol {index} sees itself or a later one"
            if not self.blind_spot:
                assert (reached[:, :index] > 0).all(), f"symbol {index} is cut off from an earlier one"

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_cached_is_naive(self, grid: Grid, batch_size: int, dtype: torch.dtype, tolerance: float) -> None:
        """The decoders' logits are the teacher-forced ones at every site; so are those by fronts."""
        model = randomized(self.build(grid, CLASSES), 0.1).to(dtype)
        symbols, condition = random_symbols(grid, batch_size), random_condition(batch_size)
        with torch.no_grad():
            expected = grid.flatten(model(symbols, condition))
        for decoder in (model.decoder(batch_size, condition), model.naive_decoder(batch_size, condition)):
            for index, column in enumerate(grid.flatten(symbols).unbind(1)):
                difference = (decoder.logits() - expected[:, index]).abs().max().item()
                assert difference < tolerance, f"symbol {index} of {type(decoder).__name__}"
                decoder.push(column)
            with pytest.raises(InputError, match="full"):
                decoder.push(column)
            with pytest.raises(InputError, match="full"):
                decoder.logits()
        by_fronts = model.wavefront_decoder(batch_size, condition)
        for places in by_fronts.places if by_fronts else []:
            difference = (by_fronts.logits() - expected[:, places]).abs().max().item()
            assert difference < tolerance, f"symbols {places.tolist()} of {type(by_fronts).__name__}"
            by_fronts.advance(grid.flatten(symbols)[:, places])

    def test_samples_follow_p(self) -> None:
        """Frequencies of 20,000 samples pass a chi-square test against the exact probabilities."""
        from scipy.stats import chisquare

        grid = Grid(1, 2, 2, 3)
        model = randomized(self.build(grid))
        everything = every_grid(grid)
        with torch.no_grad():
            expected = model.log_prob(everything).exp()
        samples = model.sample(20_000, generator=torch.Generator().manual_seed(0), batch_size=20_000)
        powers = grid.levels ** torch.arange(grid.size - 1, -1, -1)
        counts = torch.bincount((grid.flatten(samples) * powers).sum(1), minlength=len(everything))
        likely = expected * len(samples) >= 5
        observed = torch.cat([counts[likely].double(), counts[~likely].sum()[None].double()])
        model_counts = torch.cat([expected[likely], expected[~likely].sum()[None]]) * len(samples)
        kept = model_counts > 0
        assert (
            chisquare(observed[kept], model_counts[kept] * observed.sum() / model_counts.sum()).pvalue > 1e-4
        )

    def test_same_seed_same_sample(self, grid: Grid) -> None:
        """A seed gives one image, however the images are batched; another seed another."""
        model = randomized(self.build(grid))
        first = model.sample(3, generator=torch.Generator().manual_seed(5))
        again = model.sample(3, generator=torch.Generator().manual_seed(5), batch_size=2)
        other = model.sample(3, generator=torch.Generator().manual_seed(6))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_cached_sample_is_naive_sample(self, grid: Grid) -> None:
        """Cached and naive sampling draw the same image from the same seed."""
        model = randomized(self.build(grid))
        cached = model.sample(2, generator=torch.Generator().manual_seed(5))
        model.decoder = model.naive_decoder  # type: ignore[method-assign]
        model.wavefront_decoder = lambda batch_size, condition=None: None  # type: ignore[method-assign]
        assert torch.equal(cached, model.sample(2, generator=torch.Generator().manual_seed(5)))

    def test_parallel_sample_is_sequential_sample(self, grid: Grid) -> None:
        """Drawn all at once until they agree, images are those of the walk, told and completed ones too."""
        model = randomized(self.build(grid, CLASSES))
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        mask[:, grid.height // 2, 1:] = True  # neither at the start nor at the end
        completion = {"known": random_symbols(grid, 3), "mask": mask}
        for arguments in ({}, {"condition": random_condition(3)} | completion):
            walked = model.sample(3, **arguments, generator=torch.Generator().manual_seed(5))
            drawn = model.sample_parallel(3, **arguments, generator=torch.Generator().manual_seed(5))
            assert torch.equal(drawn.symbols, walked)
            assert drawn.evaluations.shape == (3,)
            assert 1 <= drawn.evaluations.min() <= drawn.evaluations.max() <= grid.size

    # Of several periods of every model, and a rest.
    @pytest.mark.parametrize("tall", [Grid(1, 13, 2, 5), Grid(3, 13, 1, 4)], ids=str)
    def test_replayed_sample_is_plain_sample(self, tall: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
        """A walk that is recorded and replayed draws the same symbols, in whatever way they are drawn."""
        monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 8)
        model = randomized(self.build(tall, CLASSES))
        known, mask = random_symbols(tall, 3), torch.zeros(tall.shape, dtype=torch.bool)
        mask[:, 3:9, -1] = True
        told, completion = {"condition": random_condition(3)}, {"known": known, "mask": mask}
        ways: list[dict[str, Any]] = [
            {"n": 1, "sampling": Sampling(0.8, top_k=3, top_p=0.9)},
            {"n": 3, "sampling": Sampling(guidance=1.5), "batch_size": 2} | told | completion,
            {"n": 3, "sampling": Sampling(noise="gumbel")} | told | completion,
        ]
        for way in ways:
            plain = model.sample(**way, generator=torch.Generator().manual_seed(5))
            with replaying() as recorder:
                replayed = model.sample(**way, generator=torch.Generator().manual_seed(5))
            assert torch.equal(replayed, plain), way
            assert any(recording.replays > 1 for recording in recorder.recordings)

    @pytest.mark.parametrize(
        ("small", "sampling"),
        [
            (Grid(1, 3, 2, 4), Sampling(0.7, top_k=1, top_p=0.5, guidance=2)),
            (Grid(3, 2, 1, 4), Sampling(noise="gumbel")),
        ],
        ids=str,
    )
    def test_recorded_work_stays_on_the_device(
        self, small: Grid, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A walk that is recorded reads no value on the host and takes no tensor from it."""
        model = self.build(small, CLASSES).eval().to("meta")
        untold = torch.zeros(4, dtype=torch.int64, device="meta")
        monkeypatch.setattr(model, "class_index", lambda condition, batch_size: untold[:batch_size])
        known, mask = random_symbols(small, 2), torch.ones(small.shape, dtype=torch.bool)
        plan = SamplingPlan.of(
            small, 2, random_condition(2), sampling=sampling, known=known, mask=mask, device="meta"
        )
        decoder = model.sampling_decoder(plan, recorded=True)
        sequence = torch.empty(2, small.size, dtype=torch.int64, device="meta")
        with OneDevice(), torch.no_grad():
            assert list(walk(decoder, plan, sequence, recorded_by_doing))[-1] == small.size

    def test_parallel_sampling_of_independent_symbols(self) -> None:
        """Where no symbol counts for another, one evaluation draws them all and a second one sees it."""
        model = randomized(self.build(self.grids[0]))
        others = model.embed(random_symbols(model.grid, 1)).detach()
        real = model.logits_from
        model.logits_from = lambda inputs, condition=None: real(  # type: ignore[method-assign]
            others.expand_as(inputs).clone(), condition
        )
        drawn = model.sample_parallel(8, generator=torch.Generator().manual_seed(0))
        assert drawn.evaluations.max() == 2

    def test_known_symbols_stay(self, grid: Grid) -> None:
        """A completion keeps the known symbols and draws the others."""
        model = randomized(self.build(grid))
        known = random_symbols(grid, 4)
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        mask[:, : grid.height // 2] = True
        completed = model.sample(4, known=known, mask=mask, generator=torch.Generator().manual_seed(0))
        assert torch.equal(completed[:, mask], known[:, mask])
        assert not torch.equal(completed[:, ~mask], known[:, ~mask])

    def test_saved_and_loaded(self, tmp_path) -> None:
        """A model comes back from its folder with bit-identical log-probabilities and the same fingerprint."""
        grid = self.grids[0]
        model = randomized(self.build(grid, CLASSES)).float()
        symbols, condition = random_symbols(grid, 3), random_condition(3)
        loaded = type(model).from_pretrained(model.save_pretrained(tmp_path / "model"))
        with torch.no_grad():
            assert torch.equal(loaded.log_prob(symbols, condition), model.log_prob(symbols, condition))
        assert loaded.fingerprint == model.fingerprint

    def test_condition_counts_and_does_not_leak(self, grid: Grid) -> None:
        """A row's label changes its own log-probability and no other row's."""
        model = randomized(self.build(grid, CLASSES))
        symbols = random_symbols(grid, 1).expand(3, -1, -1, -1)
        with torch.no_grad():
            told = model.log_prob(symbols, Condition(torch.tensor([0, 1, -1])))
            changed = model.log_prob(symbols, Condition(torch.tensor([0, 2, -1])))
            untold = model.log_prob(symbols)
        assert told[0] == changed[0]
        assert told[2] == changed[2]
        assert told[1] != changed[1]
        assert told[2] == pytest.approx(untold[2].item(), abs=1e-12)
        assert len({round(value, 9) for value in told.tolist()}) == 3

    def test_guidance(self) -> None:
        """Scale 1 draws the conditional model's images and scale 0 the unconditional one's, exactly."""
        grid = self.grids[0]
        model = randomized(self.build(grid, CLASSES))
        condition = random_condition(4)

        def drawn(condition: Condition | None, guidance: float) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return model.sample(4, condition, sampling=Sampling(guidance=guidance), generator=generator)

        assert torch.equal(drawn(condition, 1.0), drawn(condition, 1.0 + 1e-12))
        assert torch.equal(drawn(condition, 0.0), drawn(None, 1.0))
        assert torch.equal(drawn(condition, 0.0), drawn(condition, 1e-12))
        assert not torch.equal(drawn(condition, 0.0), drawn(condition, 1.0))

    def test_refuses_what_does_not_fit(self) -> None:
        """Symbols, labels and pushes that do not fit the model are refused by name."""
        grid = self.grids[0]
        model = self.build(grid, CLASSES).eval()
        with pytest.raises(InputError, match="shape"):
            model.log_prob(torch.zeros(1, 1, grid.height + 1, grid.width, dtype=torch.int64))
        with pytest.raises(InputError, match="int64"):
            model.log_prob(torch.zeros(1, *grid.shape))
        with pytest.raises(InputError, match=r"lie in \[9999, 9999\]"):
            model.log_prob(torch.full((1, *grid.shape), 9999))
        with pytest.raises(InputError, match="label 7"):
            model.log_prob(random_symbols(grid, 1), Condition(torch.tensor([7])))
        with pytest.raises(InputError, match="without classes"):
            self.build(grid).log_prob(random_symbols(grid, 1), Condition(torch.tensor([0])))
        for pushed in (
            torch.tensor([grid.levels]),
            torch.tensor([-1]),
            torch.tensor([0, 0]),
            torch.tensor([[0]]),
            torch.tensor([0], dtype=torch.int32),
            torch.tensor([0.0]),
        ):
            with pytest.raises(InputError, match="pushed"):
                model.decoder(1).push(pushed)
        with pytest.raises(InputError, match="mask"):
            model.sample(1, known=random_symbols(grid, 1), mask=torch.ones(2, 2, dtype=torch.bool))
