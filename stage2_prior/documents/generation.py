"""Documents continued id by id."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.cuda_graph import capture_on
from rasterwise.decoding.decoder import Decoder, GuidedDecoder
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling, check_drawn
from rasterwise.errors import InputError
from rasterwise.symbols.documents.grammar import Form, Grammar
from rasterwise.symbols.documents.vocabulary import BOS, EOS, PAD
from rasterwise.symbols.grid import Grid
from stage2_prior.conditioning.text import placed, taken
from stage2_prior.documents.decoder import DocumentDecoder, GrammarDecoder
from stage2_prior.documents.network import ChameleonNetwork

IDS_BETWEEN_LOOKS = 16
"""After so many ids it is seen whether all documents have ended, for which a GPU must be waited for."""

ROWS_CHECKED = 256
"""Prefixes that are checked at once: what may follow each of their ids takes memory."""


@torch.no_grad()
def continued(
    model: ChameleonNetwork,
    prefixes: Tensor,
    form: Form,
    *,
    sampling: Sampling,
    generator: torch.Generator | None,
    batch_size: int,
    capture: bool,
) -> Tensor:
    """Draw what follows prefixes of documents; see ``Chameleon.generate``."""
    grammar = model.grammar(form)
    prefixes = prefixes.to(model.device)
    lengths = prefix_lengths(prefixes, grammar)
    # A document's noise depends on its place alone, not on how long the others are.
    plan = SamplingPlan.of(
        Grid(1, 1, grammar.length, grammar.vocabulary.size),
        len(prefixes),
        sampling=replace(sampling, guidance=1.0),
        generator=generator,
        batch_size=batch_size,
        device=model.device,
    )
    documents = F.pad(prefixes[:, : grammar.length], (0, grammar.length), value=PAD)
    for start in range(0, len(prefixes), batch_size):
        rows = slice(start, start + batch_size)
        drawn = _drawn(model, plan[rows], prefixes[rows], lengths[rows], grammar, sampling.guidance, capture)
        documents[rows] = placed(documents[rows], lengths[rows], drawn)
    return documents[:, : grammar.length]


def prefix_lengths(prefixes: Tensor, grammar: Grammar) -> Tensor:
    """How many ids each of some prefixes has, int64 ``(B,)``.

    Raises:
        InputError: One breaks the grammar or is longer than it allows, or they are no prefixes.
    """
    if prefixes.ndim != 2 or not prefixes.shape[1] or prefixes.dtype != torch.int64:
        raise InputError(f"prefixes are {prefixes.dtype} {tuple(prefixes.shape)}, expected int64 (B, P)")
    lengths = (prefixes != PAD).sum(1)
    inside = torch.arange(prefixes.shape[1], device=prefixes.device) < lengths[:, None]
    for number in (
        (lengths == 0) | (lengths > grammar.length) | ((prefixes != PAD) & ~inside).any(1)
    ).nonzero():
        raise InputError(
            f"prefix {int(number)} has {int(lengths[number])} ids, expected 1 to {grammar.length}, and PAD after the "
            "last one alone"
        )
    known = prefixes.clamp(0, grammar.vocabulary.size - 1)
    for rows in torch.arange(len(prefixes), device=prefixes.device).split(ROWS_CHECKED):
        allowed = grammar.allowed(grammar.states(known[rows])[:, :-1])
        legal = allowed.gather(2, known[rows, :, None])[:, :, 0] & (known[rows] == prefixes[rows])
        for row in rows[(~legal & inside[rows]).any(1)]:
            grammar.check(prefixes[row, : int(lengths[row])][None], whole=False)
    return lengths


def _drawn(
    model: ChameleonNetwork,
    plan: SamplingPlan,
    prefixes: Tensor,
    lengths: Tensor,
    grammar: Grammar,
    guidance: float,
    capture: bool,
) -> Tensor:
    """The ids that follow, int64 ``(B, n)``, PAD after EOS."""
    steps = grammar.length - int(lengths.min())
    drawn = torch.full((len(prefixes), max(steps, 1)), PAD, device=prefixes.device)
    if not steps:
        return drawn
    prefixes = prefixes[:, : int(lengths.max())]
    capturing = capture_on(model.device) if capture else None
    ended = (prefixes == EOS).any(1)

    def made(captured: bool) -> Decoder:
        return document_decoder(model, prefixes, lengths, grammar, steps, guidance)

    for count in decode(made, plan, drawn, capturing):
        if count % IDS_BETWEEN_LOOKS == 0 and bool((ended | (drawn[:, :count] == EOS).any(1)).all()):
            break
    check_drawn(drawn, grammar.vocabulary.size)
    return drawn


def document_decoder(
    model: ChameleonNetwork,
    prefixes: Tensor,
    lengths: Tensor,
    grammar: Grammar,
    steps: int,
    guidance: float = 1.0,
) -> Decoder:
    """What decodes the ids that follow prefixes.

    Args:
        model: In evaluation mode.
        prefixes: int64 ``(B, P)``, padded with PAD.
        lengths: int64 ``(B,)``.
        grammar: What may follow.
        steps: How many ids.
        guidance: Away from the documents that have BOS alone, and what there is of an open image.
    """
    grid = Grid(1, 1, steps, grammar.vocabulary.size)
    state = taken(grammar.states(prefixes), lengths, 1)[:, 0]
    if guidance == 1:
        return GrammarDecoder(DocumentDecoder(model, prefixes, lengths, grid), grammar, state)
    without, kept = without_context(prefixes, lengths, state)
    if guidance == 0:
        return GrammarDecoder(DocumentDecoder(model, without, kept, grid), grammar, state)
    both = F.pad(without, (0, prefixes.shape[1] - without.shape[1]), value=PAD)
    inner = DocumentDecoder(model, torch.cat([prefixes, both]), torch.cat([lengths, kept]), grid)
    return GrammarDecoder(GuidedDecoder(inner, guidance), grammar, state)


def without_context(prefixes: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Prefixes of which BOS alone is left, and what there is of an open image; and their lengths."""
    codes = state[:, 2]
    open_ids = torch.where(codes < 0, 0, codes + 1)  # BOI and codes
    kept, size = open_ids + 1, int(open_ids.max()) + 1
    source = (lengths - open_ids)[:, None] + torch.arange(-1, size - 1, device=prefixes.device)
    source = source.clamp(0, prefixes.shape[1] - 1)
    ids = prefixes.gather(1, source)
    ids[:, 0] = BOS
    return ids.masked_fill_(torch.arange(size, device=ids.device) >= kept[:, None], PAD), kept
