"""How well models of text and images predict a whole test split."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator

from rasterwise.data.splits import Split
from rasterwise.measure.metrics import Means
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.likelihoods import finite_log_prob
from rasterwise.tokenizers.text import TextTokenizer
from stage2_prior.conditioning.text import TextImageModel
from stage2_prior.documents.model import Chameleon


@torch.no_grad()
def evaluate_captioned(
    model: TextImageModel, split: Split, accelerator: Accelerator, *, batch_size: int = 64
) -> dict[str, float]:
    """Exact likelihoods of captioned images: every item of a split once.

    Args:
        model: In evaluation mode.
        split: Codes with texts and the captions that these are tokens of, see ``TokenizedCaptions``.
        accelerator: All processes call this and share the items.
        batch_size: Items at once in each process.

    Returns:
        nll_nats (mean of −log p(image | text)) with nll_nats_standard_error, nats_per_code, and items. Where the
        model has a distribution of texts, text_bits_per_byte; where it has one of texts given images,
        caption_bits_per_byte: both of UTF-8, a text's end included.

    Raises:
        NonFiniteError: The model's logits are infinite or NaN.
    """
    means = Means()
    for batch in split.ordered(batch_size, rank=accelerator.process_index, world=accelerator.num_processes):
        assert batch.texts is not None and batch.captions is not None, "the split has texts"  # noqa: PT018
        here = batch.to(model.device)
        assert here.texts is not None
        log_prob = model.log_prob(here.values, Condition(text=here.texts))
        found = {"nll_nats": -log_prob.double()}
        found["bytes"] = torch.tensor([float(len(one.encode())) for (one,) in batch.captions])
        text_log_prob: Any = getattr(model, "text_log_prob", None)
        if text_log_prob:
            found["text"] = -finite_log_prob(text_log_prob(here.texts).double())
        if isinstance(model, Chameleon):
            found["caption"] = -finite_log_prob(model.caption_log_prob(here.texts, here.values).double())
        means.add(**{name: value.cpu() for name, value in found.items()})
    means.reduce(accelerator)
    metrics = {
        "nll_nats": means.mean("nll_nats"),
        "nll_nats_standard_error": means.standard_error("nll_nats"),
        "nats_per_code": means.mean("nll_nats") / model.grid.size,
        "items": means.count("nll_nats"),
    }
    for name in ("text", "caption"):
        if name in means:
            metrics[f"{name}_bits_per_byte"] = means.mean(name) / means.mean("bytes") / math.log(2)
    return metrics


@torch.no_grad()
def evaluate_documents(
    model: Chameleon,
    tokenizer: TextTokenizer,
    split: Split,
    accelerator: Accelerator,
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """Exact likelihood of documents: every document of a split once.

    Args:
        model: In evaluation mode.
        tokenizer: Of the documents' texts.
        split: Documents as ids, see ``DocumentSequences``.
        accelerator: All processes call this and share the documents.
        batch_size: Documents at once in each process.

    Returns:
        nll_nats (mean of a document) with nll_nats_standard_error, nats_per_code, text_bits_per_byte (of UTF-8, with
        all that is no code: where a text ends, an image begins, the document ends), and items.

    Raises:
        NonFiniteError: The model's logits are infinite or NaN.
    """
    means, vocabulary = Means(), model.vocabulary
    bytes_of = tokenizer.bytes_per_token.double()
    for batch in split.ordered(batch_size, rank=accelerator.process_index, world=accelerator.num_processes):
        ids = batch.values.to(model.device)
        nats = -model.document_log_probs(ids).double()
        codes = vocabulary.is_code(ids)
        tokens = (ids - vocabulary.first_text)[vocabulary.is_text(ids)].cpu()
        rows = vocabulary.is_text(ids).nonzero()[:, 0].cpu()
        text_bytes = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, rows, bytes_of[tokens])
        means.add(
            nll_nats=-finite_log_prob(-nats.sum(1)).cpu(),
            code_nats=nats.where(codes, 0).sum(1).cpu(),
            codes=codes.double().sum(1).cpu(),
            text_nats=nats.where(~codes, 0).sum(1).cpu(),
            bytes=text_bytes,
        )
    means.reduce(accelerator)

    def rate(nats: str, of: str) -> float:
        return means.mean(nats) / means.mean(of) if means.mean(of) else math.nan

    return {
        "nll_nats": means.mean("nll_nats"),
        "nll_nats_standard_error": means.standard_error("nll_nats"),
        "nats_per_code": rate("code_nats", "codes"),
        "text_bits_per_byte": rate("text_nats", "bytes") / math.log(2),
        "items": means.count("nll_nats"),
    }
