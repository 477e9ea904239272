"""Chameleon: both suites, and the exactness of whole documents by enumeration."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.verification.subject import every_grid, random_symbols
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.document import Document, ImageSegment, TextSegment, document_batch
from rasterwise.symbols.documents.grammar import Form
from rasterwise.symbols.documents.vocabulary import BOI, BOS, EOS, PAD
from rasterwise.symbols.grid import Grid
from stage2_prior import Chameleon, ChameleonConfig
from stage2_prior.documents.generation import document_decoder, prefix_lengths
from tests.autoregressive_suite import randomized
from tests.capturing import CpuCapture
from tests.rasterwise.symbols.documents.test_grammar import legal_documents, padded
from tests.text_suite import LENGTH, MIXED, TOKENS, TextSuite, every_text, follows, texts_of

TINY = Grid(1, 1, 2, 2)
FORMS: tuple[Form, ...] = ("interleaved", "text-to-image", "image-to-text", "image")


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> Chameleon:
    sizes = {"depth": 2, "width": 24, "heads": 2, "text_tokens": TOKENS, "text_length": LENGTH, **changes}
    return Chameleon(ChameleonConfig(grid=grid, classes=classes, **sizes))


class TestChameleon(TextSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> Chameleon:
        return small(grid, classes)


def tiny(**changes: Any) -> Chameleon:
    """Few enough documents to sum over: 2 tokens, 4 images, 9 ids."""
    torch.manual_seed(0)
    model = small(TINY, text_tokens=2, text_length=2, length=9, depth=1, **changes)
    randomized(model)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_all_legal_documents_sum_to_one(form: Form) -> None:
    """Whatever the form: text and images in any order, each id by the model's own logits."""
    model = tiny()
    grammar = model.grammar(form)
    ids = padded(legal_documents(grammar), grammar.length)
    with torch.no_grad():
        assert model.document_log_probs(ids, form).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-9)


@torch.no_grad()
def test_chain_rule_and_bayes() -> None:
    """p(text) p(image | text) is the document's; Bayes' p(text | image) is that of the enumerated documents."""
    model = tiny()
    texts, images = every_text(2, 2), every_grid(TINY)
    rows = torch.arange(len(texts)).repeat_interleave(len(images))
    pairs, shown = texts[rows], images.repeat(len(texts), 1, 1, 1)
    parts = model.text_log_prob(pairs) + model.log_prob(shown, Condition(text=pairs))
    ids = model.document_ids(pairs, shown, "text-to-image")
    whole = model.document_log_probs(ids, "text-to-image").sum(1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    joint = whole.exp().view(len(texts), len(images))
    assert joint.sum().item() == pytest.approx(1, abs=1e-9)
    posterior = (model.text_log_prob(pairs) + model.log_prob(shown, Condition(text=pairs))).view_as(joint)
    torch.testing.assert_close(posterior.softmax(0), joint / joint.sum(0), rtol=0, atol=1e-10)
    # The other direction is the model's own, and a distribution over texts for every image.
    captions = model.caption_log_prob(pairs, shown).view_as(joint).exp()
    torch.testing.assert_close(captions.sum(0), torch.ones(len(images), dtype=torch.float64))


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "pre"}, {"qk_norm": False}, {"qk_norm": False, "norm": "pre", "heads": 3}],
    ids=str,
)
@torch.no_grad()
def test_cached_documents_are_naive(changes: dict[str, Any]) -> None:
    """After prefixes of different lengths, at every position, also made for a capture."""
    grid = Grid(2, 2, 2, 5)
    model = randomized(small(grid, length=40, **changes), 0.1)
    grammar = model.grammar()
    image = ImageSegment(random_symbols(grid, 1)[0])
    words = TextSegment(torch.tensor([2, 0]))
    ids = document_batch(
        [Document((words, image, words)), Document((image, image)), Document((words,))], grammar
    )
    expected = model.document_logits(ids)
    for lengths in (torch.tensor([5, 13, 2]), torch.tensor([1, 1, 1])):
        prefixes = torch.where(torch.arange(13) < lengths[:, None], ids[:, :13], PAD)[:, : int(lengths.max())]
        assert torch.equal(prefix_lengths(prefixes, grammar), lengths)
        steps = ids.shape[1] - int(lengths.max())
        for captured in (False, True):
            decoder: Any = document_decoder(model, prefixes, lengths, grammar, steps)
            if captured:
                decoder.capture_regions()
            for step in range(steps):
                place = lengths + step
                logits = expected[torch.arange(3), place]
                allowed = grammar.allowed(grammar.states(ids)[torch.arange(3), place])
                found = decoder.logits()[:, 0]
                assert torch.equal(found > -torch.inf, allowed)
                assert (found - logits).abs()[allowed].max() < 1e-10
                decoder.advance(ids[torch.arange(3), place][:, None])


def test_drawn_documents_follow_p() -> None:
    """4,000 documents drawn from BOS on pass a chi-square test against the enumerated probabilities."""
    model = tiny()
    grammar = model.grammar()
    documents = legal_documents(grammar)
    with torch.no_grad():
        expected = model.document_log_probs(padded(documents, grammar.length)).sum(1).exp() * 4000
    drawn = model.generate(
        torch.full((4000, 1), BOS), generator=torch.Generator().manual_seed(1), batch_size=4000
    )
    where = {document: index for index, document in enumerate(documents)}
    counts = torch.zeros(len(documents), dtype=torch.float64)
    for row in drawn.tolist():
        counts[where[tuple(row[: row.index(EOS) + 1])]] += 1
    assert follows(counts, expected)


def test_drawn_captions_follow_p() -> None:
    """4,000 captions of one image too."""
    model, texts = tiny(), every_text(2, 2)
    image = every_grid(TINY)[1:2]
    with torch.no_grad():
        expected = model.caption_log_prob(texts, image.expand(len(texts), -1, -1, -1)).exp() * 4000
    drawn = model.caption(
        image.expand(4000, -1, -1, -1),
        generator=torch.Generator().manual_seed(1),
        batch_size=4000,
    )
    counts = torch.zeros(len(texts), dtype=torch.float64)
    for index in range(len(texts)):
        same = (drawn.tokens == texts.tokens[index]).all(1) & (drawn.lengths == texts.lengths[index])
        counts[index] = same.sum()
    assert counts.sum() == 4000
    assert follows(counts, expected)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=5, top_k=3),
        Sampling(top_p=0.3, guidance=8.0),
        Sampling(guidance=0.0),
    ],
    ids=str,
)
def test_the_grammar_is_never_left(sampling: Sampling) -> None:
    """With logits that prefer what is illegal by 1e4, continuations of any prefixes are legal and whole."""
    grid = Grid(1, 2, 2, 3)
    model = randomized(small(grid, length=24))
    with torch.no_grad():
        model.transformer.lm_head.weight[[PAD, BOS, EOS]] = 0
        model.transformer.lm_head.weight *= 1e4
    grammar = model.grammar()
    image, words = ImageSegment(random_symbols(grid, 1)[0]), TextSegment(torch.tensor([2, 0]))
    prefixes = torch.nn.utils.rnn.pad_sequence(
        [
            torch.tensor([BOS]),
            Document((words, image)).ids(grammar, whole=False),
            torch.cat([Document((words,)).ids(grammar, whole=False), torch.tensor([BOI, 5 + TOKENS])]),
            Document((image,)).ids(grammar),
        ],
        batch_first=True,
        padding_value=PAD,
    )
    drawn = model.generate(prefixes, sampling=sampling, generator=torch.Generator().manual_seed(0))
    grammar.check(drawn)
    for row, prefix in zip(drawn, prefixes, strict=True):
        kept = prefix[prefix != PAD]
        assert torch.equal(row[: len(kept)], kept)


def test_a_document_does_not_depend_on_its_batch() -> None:
    """The same seed and place give the same document, whatever it is batched with; guided ones too."""
    model = randomized(small(Grid(1, 2, 2, 3), length=24))
    prefixes = torch.tensor([[BOS, PAD, PAD], [BOS, 6, BOI], [BOS, 5, PAD]])
    for guidance in (1.0, 2.0):
        together, apart = (
            model.generate(
                prefixes,
                sampling=Sampling(guidance=guidance),
                generator=torch.Generator().manual_seed(1),
                batch_size=batch_size,
            )
            for batch_size in (3, 1)
        )
        assert torch.equal(together, apart)


def test_captured_documents_are_plain_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are captured and replayed draw the same ids, guided and within the grammar."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 5)
    model = randomized(small(Grid(1, 2, 2, 3), length=24))
    prefixes = torch.tensor([[BOS, PAD, PAD], [BOS, 6, BOI]])

    def drawn() -> torch.Tensor:
        generator = torch.Generator().manual_seed(2)
        return model.generate(prefixes, sampling=Sampling(guidance=2.0), generator=generator)

    plain, capture = drawn(), CpuCapture()
    monkeypatch.setattr("stage2_prior.documents.generation.capture_on", lambda device: capture)
    assert torch.equal(drawn(), plain)
    assert any(work.replays > 1 for work in capture.captured)


@torch.no_grad()
def test_padding_documents_changes_nothing() -> None:
    """More PAD after EOS leaves every id's log-probability as it was, and costs none."""
    model = randomized(small(Grid(1, 2, 2, 3)))
    ids = model.document_ids(MIXED, random_symbols(model.grid, 3), "text-to-image")
    longer = torch.nn.functional.pad(ids, (0, 4), value=PAD)
    nats = model.document_log_probs(longer)
    torch.testing.assert_close(nats[:, : ids.shape[1]], model.document_log_probs(ids), rtol=0, atol=1e-10)
    assert not nats[:, ids.shape[1] :].any()


@torch.no_grad()
def test_qk_norm_makes_the_size_of_queries_and_keys_count_for_nothing() -> None:
    """A thousand times larger weights of queries and keys change no logit; without the norm they do."""
    for qk_norm in (True, False):
        model = randomized(small(Grid(1, 2, 2, 3), qk_norm=qk_norm))
        ids = model.document_ids(MIXED, random_symbols(model.grid, 3), "text-to-image")
        before = model.document_logits(ids)
        for block in model.transformer.model.blocks:
            block.self_attn.q_proj.weight *= 1000
            block.self_attn.k_proj.weight *= 1000
        change = (model.document_logits(ids) - before).abs().max()
        assert change < 1e-3 if qk_norm else change > 1e-2  # the norm's eps is not scaled with them


def test_parameters_by_hand() -> None:
    """Embedding and head of 5 + 4 + 3 ids; two blocks of attention, MLP and norms; the last norm."""
    model = small(Grid(1, 2, 2, 3), ("a",), depth=2, width=24, heads=2, mlp_width=40)
    vocabulary, width, head_width = 5 + TOKENS + 3, 24, 12
    block = 4 * width**2 + 3 * width * 40 + 2 * width + 2 * 2 * head_width
    expected = 2 * vocabulary * width + 2 * block + width + 2 * width
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_refusals() -> None:
    """Prefixes that break the grammar, and lengths without room for an image, in one line."""
    model = small(Grid(1, 2, 2, 3))
    with pytest.raises(InputError, match="expected BOS"):
        model.generate(torch.tensor([[EOS]]))
    with pytest.raises(InputError, match="PAD after the last one alone"):
        model.generate(torch.tensor([[BOS, PAD, 6]]))
    with pytest.raises(InputError, match="length is 7, but a document of one image has 8 ids"):
        small(Grid(1, 2, 2, 3), length=7)
    with pytest.raises(InputError, match="not image"):
        model.document_ids(texts_of([1]), random_symbols(model.grid, 1), "image")
