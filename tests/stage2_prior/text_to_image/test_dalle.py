"""DALL-E 1: both suites, texts by enumeration, its loss, and where sparse attention reaches."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch

from pipeline.verification.subject import every_grid, random_symbols
from rasterwise.data.splits import Batch
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from stage2_prior import DALLE, DALLEConfig
from stage2_prior.objectives import CaptionedImageObjective
from stage2_prior.text_to_image.sparse_attention import Kind, attended, kinds
from tests.autoregressive_suite import decoded_logits, randomized
from tests.text_suite import LENGTH, MIXED, TOKENS, TextSuite, every_text, texts_of


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> DALLE:
    sizes = {"depth": 2, "width": 24, "heads": 2, "text_tokens": TOKENS, "text_length": LENGTH, **changes}
    return DALLE(DALLEConfig(grid=grid, classes=classes, **sizes))


class TestDALLE(TextSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> DALLE:
        return small(grid, classes)


@torch.no_grad()
def test_texts_and_images_sum_to_one_and_bayes() -> None:
    """Over all texts; over all pairs; and p(text | image) is the share of its pair, which one pass gives too."""
    grid = Grid(1, 1, 2, 2)
    model = randomized(small(grid, text_tokens=2, text_length=2))
    texts, images = every_text(2, 2), every_grid(grid)
    assert model.text_log_prob(texts).exp().sum().item() == pytest.approx(1, abs=1e-9)
    rows = torch.arange(len(texts)).repeat_interleave(len(images))
    pairs, shown = Condition(text=texts[rows]), images.repeat(len(texts), 1, 1, 1)
    parts = model.text_log_prob(texts[rows]) + model.log_prob(shown, pairs)
    text_ids = model.text_ids(texts[rows])
    features = model._features_of(text_ids, model.embed(shown), None)
    codes = model.code_logits(features).log_softmax(2).gather(2, grid.flatten(shown)[..., None]).sum((1, 2))
    whole = (model.text_log_probs(features, text_ids).sum(1) + codes).exp().view(len(texts), -1)
    assert whole.sum().item() == pytest.approx(1, abs=1e-9)
    posterior = parts.view_as(whole).softmax(0)
    torch.testing.assert_close(posterior, whole / whole.sum(0), rtol=0, atol=1e-10)


@torch.no_grad()
def test_every_position_has_its_own_padding() -> None:
    """The padding of position i counts for texts that end before it, and for no other."""
    model, symbols = randomized(small(Grid(1, 2, 2, 3))), random_symbols(Grid(1, 2, 2, 3), 1)
    texts = texts_of([], [1], [1, 2], [1, 2, 3])
    before = model.log_prob(symbols.expand(4, -1, -1, -1), Condition(text=texts))
    for position in range(LENGTH):
        vector = model.transformer.model.embed_tokens.weight[TOKENS + position]
        vector += 1
        changed = model.log_prob(symbols.expand(4, -1, -1, -1), Condition(text=texts)) != before
        assert changed.tolist() == [length <= position for length in range(4)]
        vector -= 1
        before = model.log_prob(symbols.expand(4, -1, -1, -1), Condition(text=texts))


def test_the_loss_is_that_of_the_paper() -> None:
    """(text + 7 image) / 8 a position; what is shown is unweighted and the model's own likelihood."""
    model = randomized(small(Grid(1, 2, 2, 3), dropout=0.0))
    symbols, texts = random_symbols(model.grid, 2), texts_of([3], [1, 0, 2])
    losses = CaptionedImageObjective(model, 0)(Batch(symbols, texts=texts))
    image = -model.log_prob(symbols, Condition(text=texts)).mean().item()
    text = -model.text_log_prob(texts).mean().item()
    assert losses.shown["nll_nats"].item() == pytest.approx(image, rel=1e-9)
    assert losses.shown["text_nll_nats"].item() == pytest.approx(text, rel=1e-9)
    assert losses.total.item() == pytest.approx((text / LENGTH + 7 * image / 4) / 8, rel=1e-9)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_sparse_attention_reaches_what_the_paper_says(kind: Kind) -> None:
    """By gradient through one layer: the whole text, and of the image a row back, a column, or a 3×3 square."""
    grid, rows = Grid(1, 4, 5, 3), torch.arange(20) // 5
    model = small(grid, depth=1, attention="sparse", kernel=3)
    assert model.kinds == ["convolution"]
    model.kinds = [kind]
    model.register_buffer(f"{kind}_mask", attended(kind, grid, LENGTH + 1, 3), persistent=False)
    randomized(model)
    inputs = model.embed(random_symbols(grid, 1)).detach().requires_grad_()
    logits = grid.flatten(model.logits_from(inputs))
    for target in range(1, grid.size):
        (gradient,) = torch.autograd.grad(logits[0, target].sum(), inputs, retain_graph=True)
        reached = (grid.flatten(gradient)[0].abs().sum(1) > 0).nonzero().flatten().tolist()
        place = target - 1  # the position that predicts the target has the code before it
        expected = {
            "row": [at for at in range(place + 1) if place - at <= 5],
            "column": [at for at in range(place + 1) if at % 5 == place % 5],
            "convolution": [
                at
                for at in range(place + 1)
                if place - at
                in (0, 1, 4, 5, 6)  # beside it, and three in the row above; rows go on into each other
            ],
        }[kind]
        assert reached == expected, (target, rows[place])


def test_layers_are_in_the_order_of_the_paper() -> None:
    """Column attention in the second of every four, convolution in the last."""
    assert [kind[0] for kind in kinds(9)] == list("rcrrrcrrc")
    assert kinds(9)[-1] == "convolution"


def test_sparse_attention_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached logits are the teacher-forced ones, also made for a capture."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 5)
    grid = Grid(2, 3, 2, 4)
    model = randomized(small(grid, depth=4, attention="sparse", kernel=3), 0.1)
    symbols, condition = random_symbols(grid, 3), Condition(text=MIXED)
    with torch.no_grad():
        expected = grid.flatten(model(symbols, condition))
    captured = model.decoder(3, condition)
    captured.capture_regions()
    for decoder in (model.decoder(3, condition), captured):
        assert (decoded_logits(decoder, symbols) - expected).abs().max() < 1e-10


def test_parameters_by_hand() -> None:
    """Two blocks; embedding and head of tokens, padding and codes; positions of texts, rows and columns."""
    model = small(Grid(1, 2, 3, 5), ("a",), mlp_width=40)
    width, vocabulary = 24, TOKENS + LENGTH + 5
    blocks = 2 * (4 * width**2 + 3 * width * 40 + 2 * width)
    tables = 2 * vocabulary + 2 + LENGTH + 2 + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == blocks + tables * width + width


def test_texts_of_all_lengths_are_told_apart() -> None:
    """No two texts have the same ids."""
    model = small(Grid(1, 2, 2, 3))
    ids = model.text_ids(every_text(TOKENS, LENGTH)).tolist()
    assert all(one != other for one, other in itertools.combinations(ids, 2))
