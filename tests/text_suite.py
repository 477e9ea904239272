"""What must hold for every model of images given texts, beside what holds for every autoregressive model."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from functools import partial
from typing import ClassVar

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline.verification.subject import every_grid, random_symbols
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch
from stage2_prior.conditioning.text import TextImageModel
from tests.autoregressive_suite import AutoregressiveSuite, decoded_logits, randomized

TOKENS, LENGTH = 4, 3
"""Of the texts of the suite's models."""


def texts_of(*texts: list[int]) -> TextBatch:
    return TextBatch.of([torch.tensor(text, dtype=torch.int64) for text in texts])


def every_text(tokens: int, length: int) -> TextBatch:
    """All texts of up to ``length`` tokens."""
    return texts_of(
        *(
            list(text)
            for count in range(length + 1)
            for text in itertools.product(range(tokens), repeat=count)
        )
    )


def follows(counts: Tensor, expected: Tensor) -> bool:
    """Whether counts pass a chi-square test; what is expected less than five times is taken together."""
    likely = expected >= 5
    observed, wanted = (
        torch.cat([part[likely].double(), part[~likely].sum()[None].double()]) for part in (counts, expected)
    )
    kept = wanted > 0
    return bool(chisquare(observed[kept], wanted[kept] * (observed.sum() / wanted.sum())).pvalue > 1e-4)


MIXED = texts_of([3], [], [1, 0, 2])
"""Texts of different lengths, one of them empty."""


class TextSuite(AutoregressiveSuite):
    """The properties of p(image | text). ``build`` gives models of texts of ``TOKENS`` and ``LENGTH``."""

    grids: ClassVar[list[Grid]] = [Grid(1, 3, 4, 9), Grid(2, 3, 2, 4)]
    tiny_grids: ClassVar[list[Grid]] = [Grid(1, 2, 2, 3)]

    @abstractmethod
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> TextImageModel: ...

    def test_normalised_given_a_text(self) -> None:
        """After any text, the probabilities of all images sum to 1."""
        grid = self.tiny_grids[0]
        model, images = randomized(self.build(grid)), every_grid(grid)
        for row in range(len(MIXED)):
            text = MIXED[torch.full((len(images),), row)]
            with torch.no_grad():
                total = model.log_prob(images, Condition(text=text)).exp().sum().item()
            assert total == pytest.approx(1, abs=1e-9)

    def test_cached_is_naive_given_texts(self, grid: Grid) -> None:
        """Whatever lengths are mixed, a decoder's logits are the teacher-forced ones, also made for a capture."""
        model = randomized(self.build(grid), 0.1)
        symbols, condition = random_symbols(grid, 3), Condition(text=MIXED)
        with torch.no_grad():
            expected = grid.flatten(model(symbols, condition))
        captured = model.decoder(3, condition)
        assert sum(region.repeats * region.period for region in captured.capture_regions()) == grid.size
        for decoder in (model.decoder(3, condition), captured):
            assert (decoded_logits(decoder, symbols) - expected).abs().max() < 1e-10

    def test_images_drawn_after_a_text_follow_p(self) -> None:
        """4,000 images pass a chi-square test against the probabilities of all, given the same text."""
        grid = self.tiny_grids[0]
        model, images = randomized(self.build(grid)), every_grid(grid)
        with torch.no_grad():
            text = MIXED[torch.full((len(images),), 2)]
            expected = model.log_prob(images, Condition(text=text)).exp() * 4000
        condition = Condition(text=MIXED[torch.full((4000,), 2)])
        drawn = model.sample(4000, condition, generator=torch.Generator().manual_seed(1), batch_size=4000)
        powers = grid.levels ** torch.arange(grid.size - 1, -1, -1)
        counts = torch.bincount((grid.flatten(drawn) * powers).sum(1), minlength=len(images))
        assert follows(counts, expected)

    def test_a_text_counts_for_its_own_image(self, grid: Grid) -> None:
        """Every token of a text, and the order of tokens, change its image's log-probability, and no other's."""
        model, symbols = randomized(self.build(grid)), random_symbols(grid, 1).expand(3, -1, -1, -1)
        first = model.log_prob(symbols, Condition(text=MIXED))
        for other in ([1, 0, 1], [3, 0, 2], [0, 1, 2], [1, 0]):
            changed = model.log_prob(symbols, Condition(text=texts_of([3], [], other)))
            torch.testing.assert_close(changed[:2], first[:2], rtol=0, atol=1e-10)
            assert abs(changed[2] - first[2]) > 1e-6

    def test_padding_changes_nothing(self, grid: Grid) -> None:
        """A text has the same image whatever it is batched with; an empty text is none."""
        model, symbols = randomized(self.build(grid)), random_symbols(grid, 3)
        together = model.log_prob(symbols, Condition(text=MIXED))
        for row, text in enumerate(([3], [], [1, 0, 2])):
            alone = model.log_prob(symbols[row : row + 1], Condition(text=texts_of(text)))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-10)
        torch.testing.assert_close(model.log_prob(symbols[1:2])[0], together[1], rtol=0, atol=1e-10)

    def test_guided_by_texts(self, grid: Grid) -> None:
        """Guidance leads away from the empty text: cached and naive decoders draw the same."""
        model, condition = randomized(self.build(grid)), Condition(text=MIXED)

        def drawn() -> torch.Tensor:
            generator = torch.Generator().manual_seed(3)
            return model.sample(3, condition, sampling=Sampling(guidance=2.0), generator=generator)

        cached = drawn()
        model.decoder = partial(NaiveDecoder, model)  # type: ignore[method-assign]
        assert torch.equal(cached, drawn())

    def test_refuses_texts_that_do_not_fit(self) -> None:
        """Too long, of another tokenizer, or not as many as images: one line each."""
        model, symbols = self.build(self.tiny_grids[0]), random_symbols(self.tiny_grids[0], 1)
        for text, said in (
            (
                texts_of([0] * (LENGTH + 1)),
                f"a text has {LENGTH + 1} tokens, the model takes {LENGTH} at most",
            ),
            (texts_of([TOKENS]), rf"text tokens lie in \[{TOKENS}, {TOKENS}\], expected \[0, {TOKENS - 1}\]"),
            (texts_of([0], [1]), "2 texts for a batch of 1"),
        ):
            with pytest.raises(InputError, match=said):
                model.log_prob(symbols, Condition(text=text))
