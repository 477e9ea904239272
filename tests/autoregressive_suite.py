"""The shared suite: what must hold for every autoregressive model.

A model's test module subclasses ``AutoregressiveSuite`` and gives ``build``; every property is then proven for
every case in ``cases``. Exactness is proven in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from pipeline.verification.batches import batch_invariance, condition_counts, repeats
from pipeline.verification.check import Check
from pipeline.verification.decoding import cached_is_naive, fixed_point_is_sequential, guidance_is_exact
from pipeline.verification.files import saved_and_opened
from pipeline.verification.likelihood import (
    causality,
    exchange,
    normalisation,
    receptive_field,
    samples_follow_probabilities,
)
from pipeline.verification.subject import random_symbols
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.decoder import decoded_logits as decoded_logits
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch
from tests.capturing import OneDevice, capture_by_doing, capturing

CLASSES = ("a", "b", "c")


def randomized(model: AutoregressiveModel, scale: float = 0.3) -> AutoregressiveModel:
    """Random weights everywhere (fresh models have zeros that would hide a leak), float64, evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return model


def random_condition(batch_size: int) -> Condition:
    return Condition(torch.arange(batch_size) % len(CLASSES))


def holds(check: Check) -> None:
    """A property holds; the failure says what was measured."""
    assert check.verdict in ("passes", "noted"), check


class AutoregressiveSuite(ABC):
    """The properties of design.md, one test each.

    Attributes:
        grids: Grids on which causality and the decoder are proven: odd, not square, every kind of data.
        tiny_grids: Grids small enough to sum over everything they can hold.
        sampled_grid: A grid small enough to count samples of everything it can hold.
        tall_grids: Grids of several periods of every decoder's steps, and a rest.
        small_grids: Grids of a few steps.
        blind_spot: True for a model whose paper has one: earlier symbols may then be cut off.
    """

    grids: ClassVar[list[Grid]] = [Grid(1, 5, 4, 2), Grid(1, 3, 5, 256), Grid(3, 3, 4, 8)]
    tiny_grids: ClassVar[list[Grid]] = [Grid(1, 3, 3, 2), Grid(1, 2, 2, 5), Grid(3, 1, 2, 3)]
    sampled_grid: ClassVar[Grid] = Grid(1, 2, 2, 3)
    tall_grids: ClassVar[list[Grid]] = [Grid(1, 13, 2, 5), Grid(3, 13, 1, 4)]
    small_grids: ClassVar[list[Grid]] = [Grid(1, 3, 2, 4), Grid(3, 2, 1, 4)]
    blind_spot: ClassVar[bool] = False

    @abstractmethod
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> AutoregressiveModel:
        """A small model of the grid, in float32, with fresh weights."""

    def test_normalised(self, tiny_grid: Grid) -> None:
        """The probabilities of all grids sum to 1."""
        holds(normalisation(randomized(self.build(tiny_grid)), random_symbols(tiny_grid, 2)))

    def test_causal(self, grid: Grid) -> None:
        """Logits have gradient exactly 0 to every symbol not before them, and reach every one before them."""
        model, symbols = randomized(self.build(grid)), random_symbols(grid, 2)
        holds(causality(model, symbols, range(grid.size)))
        holds(exchange(model, symbols, range(0, grid.size, 7)))
        if not self.blind_spot:
            assert receptive_field(model, symbols, range(grid.size)).measured == 1

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
    def test_cached_is_naive(self, grid: Grid, batch_size: int, dtype: torch.dtype, tolerance: float) -> None:
        """Every decoder's logits are the teacher-forced ones, position by position and in wavefronts."""
        model = randomized(self.build(grid, CLASSES), 0.1).to(dtype)
        symbols, condition = random_symbols(grid, batch_size), random_condition(batch_size)
        decoders = [model.decoder(batch_size, condition), NaiveDecoder(model, batch_size, condition)]
        wavefront = model.wavefront_decoder(batch_size, condition)
        if wavefront is not None:
            decoders += [wavefront, NaiveDecoder(model, batch_size, condition, wavefront.steps)]
        holds(cached_is_naive(model, symbols, condition, most=tolerance, among=decoders))
        for decoder in decoders:
            with pytest.raises(InputError, match="full"):
                decoder.advance(symbols[:, 0, 0, :1])
            with pytest.raises(InputError, match="full"):
                decoder.logits()

    def test_symbols_may_be_given_unseen(self, grid: Grid) -> None:
        """Advancing without asking for logits leaves a decoder where asking would have."""
        model = randomized(self.build(grid, CLASSES), 0.1)
        symbols, condition = random_symbols(grid, 2), random_condition(2)
        with torch.no_grad():
            expected = grid.flatten(model(symbols, condition))
        for decoder in (model.decoder(2, condition), model.wavefront_decoder(2, condition)):
            if decoder is not None:
                *earlier, last = decoder.steps
                for positions in earlier:
                    decoder.advance(grid.flatten(symbols)[:, positions])
                torch.testing.assert_close(decoder.logits(), expected[:, last], rtol=0, atol=1e-10)

    def test_samples_follow_p(self) -> None:
        """Frequencies of 20,000 samples pass a chi-square test against the exact probabilities."""
        model = randomized(self.build(self.sampled_grid))
        holds(samples_follow_probabilities(model, 20_000, least=1e-4, batch_size=20_000))

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
        model.decoder = partial(NaiveDecoder, model)  # type: ignore[method-assign]
        model.wavefront_decoder = lambda batch_size, condition=None: None  # type: ignore[method-assign]
        assert torch.equal(cached, model.sample(2, generator=torch.Generator().manual_seed(5)))

    def test_fixed_point_is_sequential_sample(self, grid: Grid) -> None:
        """Drawn all at once until they agree, images are those drawn symbol by symbol; completed ones too."""
        model = randomized(self.build(grid, CLASSES))
        holds(fixed_point_is_sequential(model, 3))
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        mask[:, grid.height // 2, 1:] = True  # neither at the start nor at the end
        completion: dict[str, Any] = {
            "condition": random_condition(3),
            "known": random_symbols(grid, 3),
            "mask": mask,
        }
        sequential = model.sample(3, **completion, generator=torch.Generator().manual_seed(5))
        plan = SamplingPlan.of(grid, 3, **completion, generator=torch.Generator().manual_seed(5))
        drawn = model.draw(plan, method="fixed-point")
        assert torch.equal(drawn.symbols, sequential)
        assert drawn.evaluations is not None
        assert drawn.evaluations.shape == (3,)
        assert 1 <= drawn.evaluations.min() <= drawn.evaluations.max() <= grid.size
        if type(model).window_decoder is AutoregressiveModel.window_decoder:
            with pytest.raises(InputError, match="without a window"):
                model.draw(plan, method="fixed-point", window=3)
            return
        for window in (1, 3, grid.size):
            drawn = model.draw(plan, method="fixed-point", window=window)
            assert torch.equal(drawn.symbols, sequential)
            assert drawn.evaluations is not None
            assert drawn.positions is not None
            assert (drawn.evaluations <= drawn.positions).all()
            assert (drawn.positions <= drawn.evaluations * window).all()
            assert (drawn.positions >= grid.size).all()

    def test_captured_sample_is_plain_sample(self, tall_grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
        """Steps that are captured and replayed draw the same symbols, in whatever way they are drawn."""
        monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 8)
        model = randomized(self.build(tall_grid, CLASSES))
        known, mask = random_symbols(tall_grid, 3), torch.zeros(tall_grid.shape, dtype=torch.bool)
        mask[:, 3:9, -1] = True
        condition, completion = {"condition": random_condition(3)}, {"known": known, "mask": mask}
        ways: list[dict[str, Any]] = [
            {"n": 1, "sampling": Sampling(0.8, top_k=3, top_p=0.9)},
            {"n": 3, "sampling": Sampling(guidance=1.5), "batch_size": 2} | condition | completion,
            {"n": 3, "sampling": Sampling(noise="gumbel")} | condition | completion,
        ]
        for way in ways:
            plain = model.sample(**way, generator=torch.Generator().manual_seed(5))
            with capturing() as capture:
                replayed = model.sample(**way, generator=torch.Generator().manual_seed(5))
            assert torch.equal(replayed, plain), way
            assert any(work.replays > 1 for work in capture.captured)

    @pytest.mark.parametrize(
        "sampling",
        [Sampling(0.7, top_k=1, top_p=0.5, guidance=2), Sampling(noise="gumbel")],
        ids=["guided", "gumbel"],
    )
    def test_captured_work_stays_on_the_device(
        self, small_grid: Grid, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Steps that are captured read no value on the host and take no tensor from it."""
        model = self.build(small_grid, CLASSES).eval().to("meta")
        labels = torch.zeros(4, dtype=torch.int64, device="meta")
        monkeypatch.setattr(
            AutoregressiveModel, "class_index", lambda self, condition, batch_size: labels[:batch_size]
        )
        monkeypatch.setattr("rasterwise.decoding.loop.check_drawn", lambda symbols, levels: None)
        known, mask = random_symbols(small_grid, 2), torch.ones(small_grid.shape, dtype=torch.bool)
        plan = SamplingPlan.of(
            small_grid, 2, random_condition(2), sampling=sampling, known=known, mask=mask, device="meta"
        )
        decoder = model.sampling_decoder(plan, captured=True)
        sequence = torch.empty(2, small_grid.size, dtype=torch.int64, device="meta")
        with OneDevice(), torch.no_grad():
            counts = list(decode(lambda captured: decoder, plan, sequence, capture_by_doing))
        assert counts[-1] == small_grid.size

    def test_fixed_point_of_independent_symbols(self) -> None:
        """Where no symbol counts for another, one evaluation draws them all and a second one sees it."""
        model = randomized(self.build(self.grids[0]))
        others = model.embed(random_symbols(model.grid, 1)).detach()
        real = model.logits_from
        model.logits_from = lambda inputs, condition=None: real(  # type: ignore[method-assign]
            others.expand_as(inputs).clone(), condition
        )
        plan = SamplingPlan.of(model.grid, 8, generator=torch.Generator().manual_seed(0))
        drawn = model.draw(plan, method="fixed-point")
        assert drawn.evaluations is not None
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

    def test_saved_and_loaded(self) -> None:
        """A model comes back from its folder with bit-identical log-probabilities and the same fingerprint."""
        grid = self.grids[0]
        model = randomized(self.build(grid, CLASSES)).float()
        holds(saved_and_opened(model, random_symbols(grid, 3), random_condition(3)))

    def test_any_size(self, grid: Grid) -> None:
        """A taller grid begins as a shorter one does, with the same weights, where the model takes any size."""
        model = randomized(self.build(grid))
        if not model.any_size:
            with pytest.raises(InputError, match="has the size that it was built for"):
                model.at_size(grid.height + 1, grid.width)
            return
        taller = model.at_size(grid.height + 4, grid.width)
        symbols = random_symbols(taller.grid, 2)
        top = symbols[:, :, : grid.height]
        with torch.no_grad():
            assert (taller(symbols)[:, :, : grid.height] - model(top)).abs().max() < 1e-10
        holds(cached_is_naive(taller, symbols))
        assert next(taller.parameters()).data_ptr() == next(model.parameters()).data_ptr()

    def test_condition_counts_and_does_not_leak(self, grid: Grid) -> None:
        """A row's label changes its own log-probability and no other row's."""
        model = randomized(self.build(grid, CLASSES))
        holds(condition_counts(model, random_symbols(grid, 3), random_condition(3)))
        holds(batch_invariance(model, random_symbols(grid, 3), random_condition(3)))
        holds(repeats(model, random_symbols(grid, 3), random_condition(3)))
        symbols = random_symbols(grid, 1).expand(3, -1, -1, -1)
        with torch.no_grad():
            conditioned = model.log_prob(symbols, Condition(torch.tensor([0, 1, -1])))
            changed = model.log_prob(symbols, Condition(torch.tensor([0, 2, -1])))
            unconditional = model.log_prob(symbols)
        assert conditioned[0] == changed[0]
        assert conditioned[2] == changed[2]
        assert conditioned[1] != changed[1]
        assert conditioned[2] == pytest.approx(unconditional[2].item(), abs=1e-12)
        assert len({round(value, 9) for value in conditioned.tolist()}) == 3

    def test_a_text_is_refused_where_none_is_taken(self) -> None:
        """It is never passed over in silence."""
        grid = self.grids[0]
        model, text = self.build(grid), TextBatch.of([torch.tensor([1])])
        if not model.takes_text:
            with pytest.raises(InputError, match="a text was given to a"):
                model.log_prob(random_symbols(grid, 1), Condition(text=text))

    def test_guidance(self) -> None:
        """Scale 1 draws the conditional model's images and scale 0 the unconditional one's, exactly."""
        grid = self.grids[0]
        model = randomized(self.build(grid, CLASSES))
        condition = random_condition(4)
        holds(guidance_is_exact(model, random_symbols(grid, 4), condition))

        def drawn(condition: Condition | None, guidance: float) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return model.sample(4, condition, sampling=Sampling(guidance=guidance), generator=generator)

        assert torch.equal(drawn(condition, 1.0), drawn(condition, 1.0 + 1e-12))
        assert torch.equal(drawn(condition, 0.0), drawn(None, 1.0))
        assert torch.equal(drawn(condition, 0.0), drawn(condition, 1e-12))
        assert not torch.equal(drawn(condition, 0.0), drawn(condition, 1.0))

    def test_refuses_what_does_not_fit(self) -> None:
        """Symbols and labels that do not fit the model are refused by name, by its decoders too."""
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
        wavefront = model.wavefront_decoder(1)
        for decoder in (model.decoder(1), NaiveDecoder(model, 1), *([wavefront] if wavefront else [])):
            for symbols, said in (
                (torch.tensor([[grid.levels]]), rf"lie in \[{grid.levels}, {grid.levels}\]"),
                (torch.tensor([[-1]]), r"lie in \[-1, -1\]"),
                (torch.tensor([[0], [0]]), r"int64 \(2, 1\), expected int64 \(1, 1\)"),
                (torch.tensor([0]), r"int64 \(1,\), expected int64 \(1, 1\)"),
                (torch.tensor([[0]], dtype=torch.int32), "int32"),
                (torch.tensor([[0.0]]), "float32"),
            ):
                with pytest.raises(InputError, match=said):
                    decoder.advance(symbols)
        with pytest.raises(InputError, match="method is 'parallel', expected one of sequential, fixed-point"):
            model.sample(1, method="parallel")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="mask"):
            model.sample(1, known=random_symbols(grid, 1), mask=torch.ones(2, 2, dtype=torch.bool))
