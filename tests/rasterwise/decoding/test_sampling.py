"""From logits to symbols."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from rasterwise.decoding.sampling import (
    HIGHEST_UNIFORM,
    Sampling,
    _uniform,
    check_drawn,
    draw,
    draw_by_gumbel,
    guided,
)
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.documents.grammar import Grammar, constrain
from rasterwise.symbols.grid import Grid

NAN, INF = float("nan"), float("inf")
LOGITS = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64))


def test_default_is_the_model_itself() -> None:
    """Temperature 1, no top-k and no top-p change nothing."""
    torch.testing.assert_close(Sampling().probabilities(LOGITS), LOGITS.exp())


def test_temperature() -> None:
    """Probabilities go as p^(1/T); 0 takes the likeliest."""
    expected = LOGITS.exp().square() / LOGITS.exp().square().sum()
    torch.testing.assert_close(Sampling(temperature=0.5).probabilities(LOGITS), expected)
    assert Sampling(temperature=0).probabilities(LOGITS).tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), 2),
        (Sampling(top_k=99), 4),
        (Sampling(top_p=0.39), 1),
        (Sampling(top_p=0.41), 2),
        (Sampling(top_p=0.95), 4),
        (Sampling(top_p=1e-9), 1),
        (Sampling(top_k=3, top_p=0.9), 3),  # of the three left, 0.444 + 0.333 is below 0.9
        (Sampling(top_k=3, top_p=0.7), 2),
        (Sampling(temperature=0.1, top_p=0.9), 1),
    ],
)
def test_what_top_k_and_top_p_keep(sampling: Sampling, kept: int) -> None:
    """The likeliest symbols stay, in proportion, and sum to 1."""
    probabilities = sampling.probabilities(LOGITS)
    assert int((probabilities > 0).sum()) == kept
    assert probabilities.sum().item() == pytest.approx(1)
    if sampling.temperature == 1:
        expected = LOGITS.exp()[:, :kept] / LOGITS.exp()[:, :kept].sum()
        torch.testing.assert_close(probabilities[:, :kept], expected)


def test_top_k_keeps_exactly_k_of_equals() -> None:
    """Ties do not let more than k symbols through."""
    assert int((Sampling(top_k=2).probabilities(torch.zeros(1, 5)) > 0).sum()) == 2


def test_draw_follows_the_probabilities_and_never_takes_a_zero() -> None:
    """Chi-square over 40,000 draws; zeros at both ends and in the middle are never drawn."""
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]).expand(40_000, -1)
    uniform = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw(probabilities, uniform), minlength=6)
    assert counts[[0, 2, 5]].sum() == 0
    assert chisquare(counts[[1, 3, 4]], [20_000, 12_000, 8_000]).pvalue > 1e-4


def test_draw_at_the_ends_of_the_noise() -> None:
    """Noise of 0 and of just below 1 fall on the first and the last symbol that has mass."""
    probabilities = torch.tensor([[0.0, 0.1, 0.9, 0.0]] * 2)
    assert draw(probabilities, torch.tensor([0.0, HIGHEST_UNIFORM], dtype=torch.float64)).tolist() == [1, 2]


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0), Sampling(temperature=0.5, top_k=3), Sampling(top_p=0.6)],
    ids=str,
)
def test_many_positions_are_drawn_as_each_of_them(sampling: Sampling) -> None:
    """Leading dimensions are a batch: ``(B, T, K)`` gives what its T parts ``(B, K)`` give."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 7, generator=generator, dtype=torch.float64)
    uniform = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    together = draw(sampling.probabilities(logits), uniform)
    for position in range(3):
        alone = draw(sampling.probabilities(logits[:, position]), uniform[:, position])
        assert torch.equal(together[:, position], alone)


def test_guidance_leads_from_unconditional_to_conditional() -> None:
    """In log-probabilities: at scale 0 there, at 1 here, in between and beyond on the straight line."""
    conditional, unconditional = (
        LOGITS,
        LOGITS.flip(-1) + 3,
    )  # logits of one distribution may differ by a constant
    both = torch.cat([conditional, unconditional])
    torch.testing.assert_close(guided(both, 1).softmax(-1), conditional.softmax(-1))
    torch.testing.assert_close(guided(both, 0).softmax(-1), unconditional.softmax(-1))
    torch.testing.assert_close(guided(both, 2).softmax(-1), (2 * conditional - unconditional).softmax(-1))


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        *[({"temperature": value}, f"temperature is {value}") for value in (-1.0, NAN, INF)],
        ({"top_k": -1}, "top_k is -1"),
        *[({"top_p": value}, f"top_p is {value}") for value in (0.0, 1.5, NAN, INF)],
        *[({"guidance": value}, f"guidance is {value}") for value in (NAN, INF, -INF)],
        ({"noise": "white"}, "noise is 'white', expected 'uniform' or 'gumbel'"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(setting: dict[str, Any], name: str) -> None:
    """The message names the setting and what came."""
    with pytest.raises(InputError, match=name):
        Sampling(**setting)


def test_gumbel_noise_follows_the_probabilities_and_never_takes_a_zero() -> None:
    """Chi-square over 40,000 draws: over images at one position, and over the positions of one image."""
    seeds = torch.randint(-(2**63), 2**63 - 1, (40_000,), generator=torch.Generator().manual_seed(0))
    some, all_of_them = torch.tensor([17]), torch.arange(40_000)
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    over_images = draw_by_gumbel(probabilities.expand(40_000, 1, -1), seeds, some)[:, 0]
    over_positions = draw_by_gumbel(probabilities.expand(1, 40_000, -1), seeds[:1], all_of_them)[0]
    for drawn in (over_images, over_positions):
        counts = torch.bincount(drawn, minlength=6)
        assert counts[[0, 2, 5]].sum() == 0
        assert chisquare(counts[[1, 3, 4]], [20_000, 12_000, 8_000]).pvalue > 1e-4


def test_gumbel_noise_is_that_of_the_image_and_the_position() -> None:
    """Whatever else is drawn; numbers are uniform, and neighbours know nothing of one another."""
    seeds = torch.tensor([5, -7, 2**62])
    whole = _uniform(seeds, torch.arange(200), 50)
    assert torch.equal(_uniform(seeds[1:], torch.tensor([63]), 50), whole[1:, 63:64])
    assert whole.dtype == torch.float64
    assert 0 < whole.min() < whole.max() < 1
    counts = torch.histc(whole, bins=20, min=0, max=1)
    assert chisquare(counts).pvalue > 1e-4
    for lag in (1, 50):  # the next symbol's number, the next position's
        pair = torch.stack([whole.flatten(1)[:, :-lag].flatten(), whole.flatten(1)[:, lag:].flatten()])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 4 / pair.shape[1] ** 0.5


def test_gumbel_noise_never_rounds_to_1() -> None:
    """The largest of SplitMix64's outputs would: a symbol of probability 0 would then come first, or 0 / 0."""

    def unmixed(state: int, bits: int) -> int:
        """The state of which ``state ^ (state >> bits)`` is the argument."""
        found = state
        for _ in range(64 // bits):
            found = state ^ (found >> bits)
        return found

    whole = 2**64
    state = unmixed(whole - 1, 31)
    state = unmixed(state * pow(0x94D049BB133111EB, -1, whole) % whole, 27)
    state = unmixed(state * pow(0xBF58476D1CE4E5B9, -1, whole) % whole, 30)
    seed = (state - 0x9E3779B97F4A7C15) % whole  # of which output number 1 is all ones
    seeds = torch.tensor([seed - whole if seed >= whole // 2 else seed])
    uniform = _uniform(seeds, torch.tensor([0]), 3)
    assert uniform[0, 0, 0] == 1 - 2**-53
    assert draw_by_gumbel(torch.tensor([[[0.0, 0.5, 0.5]]]), seeds, torch.tensor([0])).item() != 0


@pytest.mark.parametrize("temperature", [1e-320, 1e-39, 1e-38, 1e-20, 1e-7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_lowest_temperatures_take_the_likeliest(temperature: float, dtype: torch.dtype) -> None:
    """Nothing overflows; equals share; what is impossible stays so."""
    logits = torch.tensor([[3.0, 700.0, 700.0, -INF], [-5.0, -7.0, -9.0, -INF]], dtype=dtype)
    expected = [[0, 0.5, 0.5, 0], [1, 0, 0, 0]]
    assert Sampling(temperature).probabilities(logits).tolist() == expected


def test_a_low_temperature_is_the_limit_of_higher_ones() -> None:
    """The same distribution on both sides of where the arithmetic changes."""
    logits = torch.tensor([[0.0, 1e-6, -2e-6]], dtype=torch.float64)
    above, below = (Sampling(1e-6 * factor).probabilities(logits) for factor in (1, 1 - 1e-12))
    torch.testing.assert_close(above, below, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "row", [[0.0, NAN, 1.0], [0.0, INF, 1.0], [INF, INF, 0.0], [-INF, -INF, -INF]], ids=str
)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.5),
        Sampling(0),
        Sampling(1e-9),
        Sampling(top_k=1),
        Sampling(top_k=2),
        Sampling(top_p=0.5),
    ],
    ids=str,
)
def test_what_is_no_distribution_is_never_drawn_from(row: list[float], sampling: Sampling) -> None:
    """It gives K, by both kinds of noise, which is found when it is read; other rows are not touched."""
    logits = torch.tensor([[row, [0.0, 0.0, -INF]]])
    probabilities = sampling.probabilities(logits)
    seeds, positions = torch.tensor([5]), torch.arange(2)
    for drawn in (
        draw(probabilities, torch.tensor([[0.2, 0.9]], dtype=torch.float64)),
        draw_by_gumbel(probabilities, seeds, positions),
    ):
        assert drawn[0, 0] == 3
        assert drawn[0, 1] < 2
        with pytest.raises(NonFiniteError, match="logits are NaN or infinite"):
            check_drawn(drawn, 3)
        check_drawn(drawn[:, 1:], 3)


GRAMMAR = Grammar(text=3, grid=Grid(1, 1, 2, 4), length=20)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0),
        Sampling(temperature=1e-6, guidance=7.5),
        Sampling(temperature=50.0, top_k=2),
        Sampling(top_k=1, top_p=0.3, guidance=0.0),
        Sampling(top_p=0.01, guidance=-3.0),
    ],
    ids=str,
)
def test_adversarial_logits_never_leave_the_grammar(sampling: Sampling) -> None:
    """The likeliest ids are always illegal ones, by far; every document drawn is legal and ends in time."""
    generator = torch.Generator().manual_seed(0)
    state, ids = GRAMMAR.start(64), []
    for _ in range(GRAMMAR.length):
        allowed = GRAMMAR.allowed(state)
        logits = torch.randn(128, GRAMMAR.vocabulary.size, generator=generator)
        logits = torch.where(allowed.repeat(2, 1), logits - 1e4, logits * 10 + 1e4)
        probabilities = sampling.probabilities(constrain(guided(logits, sampling.guidance), allowed))
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(64))
        assert not probabilities[~allowed].any()
        ids.append(draw(probabilities, torch.rand(64, generator=generator, dtype=torch.float64)))
        state = GRAMMAR.advance(state, ids[-1])
    GRAMMAR.check(torch.stack(ids, 1))


def test_a_mask_renormalises_over_what_is_allowed() -> None:
    """The allowed symbols keep their proportions, and a mask of all symbols changes nothing."""
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    allowed = torch.tensor([True, True, False, False])
    expected = torch.tensor([1 / 3, 2 / 3, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(Sampling().probabilities(constrain(logits, allowed)), expected)
    assert torch.equal(constrain(logits, torch.ones(4, dtype=torch.bool)), logits)


def test_drawn_documents_follow_the_probabilities() -> None:
    """Chi-square of 20,000 drawn documents against exp(log_probs) of the legal ones."""
    grammar = Grammar(text=2, grid=Grid(1, 1, 1, 2), length=7)
    table = torch.randn(7, 4, grammar.vocabulary.size, generator=torch.Generator().manual_seed(1)).double()
    generator = torch.Generator().manual_seed(2)
    state, ids = grammar.start(20_000), torch.zeros(20_000, 0, dtype=torch.int64)
    for step in range(7):
        logits = table[step, ids.sum(1) % 4]
        probabilities = Sampling().probabilities(constrain(logits, grammar.allowed(state)))
        drawn = draw(probabilities, torch.rand(20_000, generator=generator, dtype=torch.float64))
        state, ids = grammar.advance(state, drawn), torch.cat([ids, drawn[:, None]], 1)
    grammar.check(ids)
    documents, counts = ids.unique(dim=0, return_counts=True)
    sums = torch.cat([torch.zeros(len(documents), 1).long(), documents.cumsum(1)[:, :-1]], 1)
    expected = 20_000 * grammar.log_probs(table[torch.arange(7), sums % 4], documents).sum(1).exp()
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    wanted = torch.cat([expected[~rare], (20_000 - expected[~rare].sum())[None]])
    assert chisquare(observed, wanted).pvalue > 1e-4
