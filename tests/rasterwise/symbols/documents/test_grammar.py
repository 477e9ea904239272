"""The grammar: exactly the legal documents, by one pass and id by id, and probabilities that sum to 1."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.documents.grammar import _STAGES, Form, Grammar, constrain
from rasterwise.symbols.documents.vocabulary import BOI, BOS, EOI, EOS, PAD
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob
from tests.capturing import OneDevice

FORMS = tuple(_STAGES)
PATTERNS = {
    "interleaved": r"b(t|i{image}j)*e",
    "text-to-image": r"bt*i{image}je",
    "image-to-text": r"bi{image}jt*e",
    "image": r"bi{image}je",
}
"""The four languages as regular expressions: an independent definition."""
TINY = Grammar(text=2, grid=Grid(1, 1, 2, 2), length=10)
RANDOM_WALK = Grammar(text=5, grid=Grid(3, 2, 4, 7), length=100)


def legal_documents(grammar: Grammar) -> list[tuple[int, ...]]:
    """Every legal sequence of ids up to EOS, from the regular expression."""
    pattern = re.compile(PATTERNS[grammar.form].format(image=f"c{{{grammar.grid.size}}}"))
    image = "i" + "c" * grammar.grid.size + "j"
    shapes = set()
    for count in range(grammar.length):
        for segments in itertools.product(("t", image), repeat=count):
            shape = "b" + "".join(segments) + "e"
            if len(shape) <= grammar.length and pattern.fullmatch(shape):
                shapes.add(shape)
    vocabulary = grammar.vocabulary
    ids = {"b": [BOS], "e": [EOS], "i": [BOI], "j": [EOI]}
    ids["t"] = list(range(vocabulary.first_text, vocabulary.first_image))
    ids["c"] = list(range(vocabulary.first_image, vocabulary.size))
    return [
        document for shape in sorted(shapes) for document in itertools.product(*(ids[one] for one in shape))
    ]


def padded(documents: list[tuple[int, ...]], length: int) -> Tensor:
    return torch.tensor([document + (PAD,) * (length - len(document)) for document in documents])


def random_logits(ids: Tensor, size: int, seed: int, scale: float = 2.0) -> Tensor:
    """Logits ``(B, T, V)``, at t a random function of all ids before t; float64."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(ids.shape[1], size, 8, generator=generator, dtype=torch.float64)
    head = torch.randn(8, size, generator=generator, dtype=torch.float64)
    seen = embedding[torch.arange(ids.shape[1]), ids].cumsum(1)
    before = torch.cat([torch.ones_like(seen[:, :1]), seen[:, :-1]], 1)
    return torch.sin(before) @ head * scale


def walks(grammar: Grammar, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Documents drawn id by id from the allowed ones alike, and the allowed ids at every step."""
    generator = torch.Generator().manual_seed(seed)
    state, ids, masks = grammar.start(count), [], []
    for _ in range(grammar.length):
        masks.append(grammar.allowed(state))
        by_kind = masks[-1].double() / masks[-1].sum(-1, keepdim=True)
        ids.append(torch.multinomial(by_kind, 1, generator=generator)[:, 0])
        state = grammar.advance(state, ids[-1])
    return torch.stack(ids, 1), torch.stack(masks, 1)


def prefixes(grammar: Grammar) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """All prefixes that the automaton reaches and their states, ended ones last."""
    stack: list[tuple[tuple[int, ...], Tensor]] = [((), grammar.start(1))]
    while stack:
        prefix, state = stack.pop()
        yield prefix, state
        if prefix[-1:] != (EOS,):
            for number in grammar.allowed(state)[0].nonzero().flatten().tolist():
                stack.append(((*prefix, number), grammar.advance(state, torch.tensor([number]))))


@pytest.mark.parametrize("form", FORMS)
def test_the_automaton_accepts_exactly_the_legal_documents(form: Form) -> None:
    """Following allowed ids from the start ends in EOS within the length, always, and in every legal document."""
    grammar = replace(TINY, form=form, length=9)
    ended = [prefix for prefix, _ in prefixes(grammar) if prefix[-1:] == (EOS,)]
    assert sorted(ended) == sorted(legal_documents(grammar))
    assert all(len(prefix) <= 9 for prefix, _ in prefixes(grammar))


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_of_all_legal_documents_sum_to_one(form: Form) -> None:
    """Whatever the logits: two random models, float64."""
    grammar = replace(TINY, form=form)
    ids = padded(legal_documents(grammar), grammar.length)
    for seed, scale in ((0, 2.0), (1, 30.0)):
        logits = random_logits(ids, grammar.vocabulary.size, seed, scale)
        total = grammar.log_probs(logits, ids).sum(1).exp().sum()
        assert abs(float(total) - 1) < 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_no_other_sequence_has_any_probability(form: Form) -> None:
    """Of all V ** 5 sequences, those that are legal documents have a finite log-probability, and no nan occurs."""
    grammar = Grammar(text=1, grid=Grid(1, 1, 1, 2), length=5, form=form)
    size = grammar.vocabulary.size
    ids = torch.cartesian_prod(*[torch.arange(size)] * 5)
    nats = grammar.log_probs(random_logits(ids, size, 0), ids).sum(1)
    legal = {tuple(row) for row in padded(legal_documents(grammar), 5).tolist()}
    assert {tuple(row) for row in ids[nats.isfinite()].tolist()} == legal
    assert not nats.isnan().any()
    assert abs(float(nats.exp().sum()) - 1) < 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_one_pass_and_id_by_id_agree(form: Form) -> None:
    """States and masks of all prefixes of all legal documents, and of long random ones with three codes a site."""
    grammar = replace(TINY, form=form)
    ids = padded(legal_documents(grammar), grammar.length)
    state, states = grammar.start(len(ids)), grammar.states(ids)
    for step in range(grammar.length):
        assert torch.equal(states[:, step], state)
        state = grammar.advance(state, ids[:, step])
    assert torch.equal(states[:, -1], state)
    grammar = replace(RANDOM_WALK, form=form)
    drawn, masks = walks(grammar, 20, seed=1)
    assert torch.equal(grammar.allowed(grammar.states(drawn)[:, :-1]), masks)


@given(
    text=st.integers(0, 3),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    slack=st.integers(0, 40),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_legal_prefix_can_be_completed(
    text: int, sides: tuple[int, int, int], slack: int, form: Form, seed: int
) -> None:
    """Random walks in random grammars end in time, whatever was drawn; check accepts them."""
    grid = Grid(*sides, 3)
    shortest = 2 if form == "interleaved" else grid.size + 4
    grammar = Grammar(text, grid, shortest + slack, form)
    ids, masks = walks(grammar, 4, seed)
    grammar.check(ids)
    assert masks.any(-1).all()
    with pytest.raises(InputError, match="has at least"):
        replace(grammar, length=shortest - 1)


def test_padding_and_what_must_follow_cost_nothing() -> None:
    """BOS, EOI and PAD have probability 1, and a longer padding leaves every log-probability as it is."""
    ids = padded(legal_documents(TINY), TINY.length)
    logits = random_logits(ids, TINY.vocabulary.size, 0)
    nats = TINY.log_probs(logits, ids)
    assert not nats[(ids == BOS) | (ids == EOI) | (ids == PAD)].any()
    short = (ids != PAD).sum(1) <= 7
    assert torch.equal(TINY.log_probs(logits[short, :7], ids[short, :7]), nats[short, :7])


def test_a_grid_in_raster_order_is_the_document_of_one_image() -> None:
    """Its document is as likely as its codes under the logits of codes alone, and its codes are at its sites."""
    grid = Grid(2, 2, 3, 4)
    grammar = Grammar(text=6, grid=grid, length=grid.size + 4, form="image")
    symbols = torch.randint(4, (5, *grid.shape), generator=torch.Generator().manual_seed(0))
    codes = grid.flatten(symbols)
    ends = [torch.full((5, 1), number) for number in (BOS, BOI, EOI, EOS)]
    ids = torch.cat([*ends[:2], grammar.vocabulary.of_codes(codes), *ends[2:]], 1)
    logits = random_logits(ids, grammar.vocabulary.size, 0)
    of_codes = logits[:, 2:-2, grammar.vocabulary.first_image :]
    torch.testing.assert_close(
        grammar.log_probs(logits, ids).sum(1), categorical_log_prob(of_codes, codes).sum(1)
    )
    positions = grammar.positions(grammar.states(ids)[:, :-1])
    for index in range(grid.size):
        site = grid.site(index)
        found = [int(axis[0, index + 2]) for axis in positions[1:]]
        assert found == [site.row, site.column, site.channel]


def test_positions_count_text_along_the_sequence() -> None:
    """Every id has its number; row, column and channel are -1 but for codes."""
    ids, _ = walks(RANDOM_WALK, 20, seed=3)
    positions = RANDOM_WALK.positions(RANDOM_WALK.states(ids)[:, :-1])
    assert torch.equal(positions.sequence, torch.arange(RANDOM_WALK.length).expand(20, -1))
    is_code = RANDOM_WALK.vocabulary.is_code(ids)
    assert is_code.any()
    for axis, size in zip(positions[1:], (2, 4, 3), strict=True):
        assert torch.equal(axis >= 0, is_code)
        assert set(axis[is_code].tolist()) == set(range(size))
        assert (axis[~is_code] == -1).all()


def test_the_gradient_reaches_allowed_logits_alone() -> None:
    """And is finite: what the grammar forbids teaches nothing."""
    ids = padded(legal_documents(TINY)[:50], TINY.length)
    logits = random_logits(ids, TINY.vocabulary.size, 0).requires_grad_()
    TINY.log_probs(logits, ids).sum().backward()
    assert logits.grad is not None
    allowed = TINY.allowed(TINY.states(ids)[:, :-1])
    assert logits.grad.isfinite().all()
    assert not logits.grad[~allowed].any()
    assert logits.grad[allowed & (allowed.sum(-1, keepdim=True) > 1)].all()


def test_masks_stay_on_the_device() -> None:
    """Nothing is read on the host and nothing comes from it, so that decoding can be captured."""
    ids = torch.zeros(2, 9, dtype=torch.int64, device="meta")
    logits = torch.zeros(2, 9, TINY.vocabulary.size, device="meta")
    state = TINY.start(2, "meta")
    with OneDevice():
        TINY.positions(TINY.states(ids))
        assert TINY.log_probs(logits, ids).shape == (2, 9)
        allowed = TINY.allowed(TINY.advance(state, ids[:, 0]))
        assert constrain(logits[:, 0], allowed).shape == (2, TINY.vocabulary.size)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([BOS, 5, BOI, 7, EOI, EOS], "id 4 is EOI, expected image code"),
        ([BOS, 5, BOI, 7, 8, 8], "id 5 is image code 1, expected EOI"),
        ([BOS, 7, EOS], "id 1 is image code 0, expected EOS or BOI or text token"),
        ([5, EOS], "id 0 is text token 0, expected BOS"),
        ([BOS, EOS, 5], "id 2 is text token 0, expected PAD"),
        ([BOS, *[5] * 7, BOI], "id 8 is BOI, expected EOS or text token"),
        ([BOS, *[5] * 9], "id 9 is text token 0, expected EOS"),
        ([BOS, 5], "document 0 does not end with EOS"),
        ([BOS, 9, EOS], r"ids lie in \[1, 9\], expected \[0, 8\]"),
    ],
)
def test_check_says_what_came_and_what_was_expected(ids: list[int], message: str) -> None:
    """One line for each way to break the grammar."""
    with pytest.raises(InputError, match=message):
        TINY.check(torch.tensor([ids]))


def test_an_open_document_is_a_legal_prefix() -> None:
    """check without ``whole`` takes what can be continued."""
    TINY.check(torch.tensor([[BOS, 5, BOI, 7]]), whole=False)
    with pytest.raises(InputError, match="expected int64"):
        TINY.check(torch.tensor([[1.0]]))
