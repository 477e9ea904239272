"""What is minimised to train a model of documents."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.grammar import Grammar, constrain
from rasterwise.symbols.documents.vocabulary import BOI, EOS, PAD
from rasterwise.symbols.likelihoods import categorical_log_prob
from rasterwise.training.objective import Losses
from stage2_prior.documents.network import ChameleonNetwork


def document_losses(
    model: ChameleonNetwork,
    ids: Tensor,
    dropout: float,
    condition: Condition | None = None,
    *,
    text_weight: float = 1.0,
) -> Losses:
    """Negative log-likelihood of documents, a mean over the ids that are not the only ones allowed, and the z-loss.

    Args:
        model: What is trained.
        ids: int64 ``(B, T)``, padded with PAD.
        dropout: Share of documents whose first segment is left out, so that the model also learns what follows
            without it, which guidance needs.
        condition: B labels, or None.
        text_weight: How much more an id that is no code counts than a code, in what is minimised alone: an image has
            many more ids than the words that tell what it shows.

    References:
        The z-loss log² Z: Chowdhery et al., PaLM, 2022 (arXiv 2204.02311); in Chameleon, section 2.3.2.
    """
    grammar = model.grammar()
    dropped = torch.rand(len(ids), device=ids.device) < dropout
    ids = torch.where(dropped[:, None], without_first_segment(ids, grammar), ids)
    labels = None if condition is None or condition.label is None else replace(condition, text=None)
    allowed = grammar.allowed(grammar.states(ids)[:, :-1])
    logits = constrain(model.document_logits(ids, labels).float(), allowed)
    nats = -categorical_log_prob(logits, ids)
    chosen = allowed.sum(-1) > 1
    codes = model.vocabulary.is_code(ids)
    log_z = logits.logsumexp(-1).where(chosen, 0)
    weights = torch.where(codes, 1.0, text_weight) * chosen
    total = ((nats + model.config.z_loss * log_z.square()) * weights).sum() / weights.sum()
    shown = {
        "nll_nats": nats.sum() / len(ids),
        "nats_per_code": nats.where(codes, 0).sum() / codes.sum().clamp(min=1),
        "nats_per_token": nats.where(~codes, 0).sum() / (chosen & ~codes).sum().clamp(min=1),
    }
    return Losses(total, {name: value.detach() for name, value in shown.items()})


def without_first_segment(ids: Tensor, grammar: Grammar) -> Tensor:
    """Documents ``(B, T)`` without their first segment, padded with PAD; those of one segment as they are."""
    is_text = grammar.vocabulary.is_text(ids[:, 1:])
    size = torch.where(ids[:, 1] == BOI, grammar.grid.size + 2, is_text.long().cumprod(1).sum(1))
    place = torch.arange(ids.shape[1], device=ids.device)
    longer = F.pad(ids, (0, ids.shape[1]), value=PAD)
    source = place + size.clamp(max=ids.shape[1])[:, None] * (place > 0)
    rest = longer.gather(1, source)
    return torch.where(rest[:, 1:2] == EOS, ids, rest)
