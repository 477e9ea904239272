"""Parti: both suites, and what its encoder does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch
from stage2_prior import Parti, PartiConfig
from tests.autoregressive_suite import randomized
from tests.text_suite import LENGTH, MIXED, TOKENS, TextSuite


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> Parti:
    sizes = {"depth": 2, "encoder_depth": 2, "width": 24, "heads": 2, **changes}
    return Parti(PartiConfig(grid=grid, classes=classes, text_tokens=TOKENS, text_length=LENGTH, **sizes))


class TestParti(TextSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> Parti:
        return small(grid, classes)


def test_the_encoder_runs_once_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many codes are drawn."""
    model = randomized(small(Grid(1, 3, 4, 5)))
    encode, calls = model.encode, []

    def counted(texts: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(model, "encode", counted)
    model.sample(3, Condition(text=MIXED))
    assert calls == [3]


def test_the_encoder_reads_in_both_directions_and_no_padding() -> None:
    """Each token of a text counts at each of its positions, and none of another text or of padding."""
    model = randomized(small(Grid(1, 2, 2, 3)))
    embedding = model.encoder.embed_tokens
    vectors: list[torch.Tensor] = []
    embedding.register_forward_hook(
        lambda module, inputs, output: vectors.append(output.detach().requires_grad_()) or vectors[-1]
    )
    context, mask = model.encode(MIXED)
    for row, length in enumerate(MIXED.lengths.tolist()):
        assert mask[row].tolist() == [place <= length for place in range(LENGTH + 1)]
        for place in range(length + 1):
            weights = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            (gradient,) = torch.autograd.grad(
                (context[row, place] * weights).sum(), vectors, retain_graph=True
            )
            reached = gradient.abs().sum(2) > 0
            assert reached[row].tolist() == mask[row].tolist()
            assert int(reached.sum()) == length + 1


def test_parameters_by_hand() -> None:
    """Two encoder blocks, two decoder blocks with cross-attention, embeddings, head, start and last norms."""
    model = small(Grid(1, 2, 2, 3), ("a",), mlp_width=40)
    width = 24
    attention, mlp = 4 * width**2, 3 * width * 40
    encoder = 2 * (attention + mlp + 2 * width) + (TOKENS + 1) * width + width
    decoder = 2 * (2 * attention + mlp + 3 * width) + 2 * 3 * width + width
    assert sum(parameter.numel() for parameter in model.parameters()) == encoder + decoder + 2 * width
