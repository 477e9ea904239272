"""Losses of captioned images and documents: the models' own likelihoods, and what dropout leaves."""

from __future__ import annotations

import pytest
import torch

from pipeline.verification.subject import random_symbols
from rasterwise.data.splits import Batch, joined
from rasterwise.errors import InputError
from rasterwise.symbols.documents.document import Document, ImageSegment, TextSegment, document_batch
from rasterwise.symbols.grid import Grid
from stage2_prior import Chameleon, ChameleonConfig
from stage2_prior.documents.losses import without_first_segment
from stage2_prior.objectives import CaptionedImageObjective, DocumentObjective
from tests.autoregressive_suite import randomized
from tests.text_suite import LENGTH, MIXED, TOKENS

GRID = Grid(1, 2, 2, 3)


def chameleon(z_loss: float = 0.0) -> Chameleon:
    torch.manual_seed(0)
    sizes = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0, "length": 24}
    config = ChameleonConfig(grid=GRID, text_tokens=TOKENS, text_length=LENGTH, z_loss=z_loss, **sizes)
    model = Chameleon(config)
    randomized(model)
    return model


def test_documents_are_minimised_by_their_likelihood() -> None:
    """nll_nats is the mean document's; the total is a mean over ids that could have been others; z-loss adds."""
    model, symbols = chameleon(), random_symbols(GRID, 3)
    ids = model.document_ids(MIXED, symbols, "image-to-text")
    losses = DocumentObjective(model, context_dropout=0)(Batch(ids))
    nats = -model.document_log_probs(ids).sum()
    assert losses.shown["nll_nats"].item() == pytest.approx(nats.item() / 3, rel=1e-5)
    grammar = model.grammar()
    choices = (grammar.allowed(grammar.states(ids)[:, :-1]).sum(-1) > 1).sum().item()
    assert losses.total.item() == pytest.approx(nats.item() / choices, rel=1e-5)
    heavier = DocumentObjective(chameleon(z_loss=1.0), context_dropout=0)(Batch(ids))
    assert heavier.total > losses.total + 1e-3
    assert heavier.shown == losses.shown


def test_the_first_segment_is_left_out() -> None:
    """Text or image, whatever follows it; a document of one segment stays."""
    grammar = chameleon().grammar()
    image, words = ImageSegment(random_symbols(GRID, 1)[0]), TextSegment(torch.tensor([1, 2]))
    before = [(words, image, words), (image, words), (words, image), (words,), (image,), ()]
    after = [(image, words), (words,), (image,), (words,), (image,), ()]
    whole, rest = (document_batch([Document(each) for each in part], grammar) for part in (before, after))
    assert torch.equal(without_first_segment(whole, grammar)[:, : rest.shape[1]], rest)


def test_captioned_images_are_documents_in_either_order() -> None:
    """Each draw's loss is one order's likelihood; with dropout, that of what is left."""
    model, symbols = chameleon(), random_symbols(GRID, 1)
    texts = MIXED[torch.tensor([2])]
    orders = [model.document_ids(texts, symbols, form) for form in ("text-to-image", "image-to-text")]
    expected = [-model.document_log_probs(ids).sum().item() for ids in orders]
    torch.manual_seed(0)
    batch = Batch(symbols, texts=texts)
    found = {round(CaptionedImageObjective(model, 0)(batch).shown["nll_nats"].item(), 3) for _ in range(20)}
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-3)
    alone = [-model.document_log_probs(without_first_segment(ids, model.grammar())).sum() for ids in orders]
    dropped = CaptionedImageObjective(model, 1)(batch).shown["nll_nats"].item()
    assert any(dropped == pytest.approx(value.item(), rel=1e-5) for value in alone)


def test_a_batch_without_texts_is_refused() -> None:
    with pytest.raises(InputError, match="no texts"):
        CaptionedImageObjective(chameleon())(Batch(random_symbols(GRID, 2)))


def test_batches_carry_their_texts() -> None:
    """Through slices and joins of batches padded to other lengths."""
    batch = Batch(random_symbols(GRID, 3), texts=MIXED)
    again = joined([batch[:1], batch[1:]])
    assert again.texts is not None
    assert torch.equal(again.texts.tokens, MIXED.tokens)
    assert torch.equal(again.texts.lengths, MIXED.lengths)
