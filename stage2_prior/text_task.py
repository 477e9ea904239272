"""What is trained of text and images: the data, the text tokenizer that fits them, and the model that fits both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from PIL import Image

from rasterwise.codes.dataset import open_codes
from rasterwise.codes.documents import holds_documents, open_documents
from rasterwise.codes.texts import DocumentSequences, TokenizedCaptions, captions_of, document_lengths
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.splits import Split
from rasterwise.errors import InputError
from rasterwise.files import copied_folder
from rasterwise.images import image_grid
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.text import TextTokenizer, TextTokenizerConfig
from rasterwise.training.autoregressive import Decode, sample_image
from rasterwise.training.objective import TrainingTask
from stage2_prior.conditioning.text import TextImageModel
from stage2_prior.documents.model import Chameleon
from stage2_prior.evaluation import evaluate_captioned, evaluate_documents
from stage2_prior.models import text_model_of
from stage2_prior.objectives import CaptionedImageObjective, DocumentObjective
from stage2_prior.options import TrainTextPrior


def text_task(options: TrainTextPrior[Any], decode: Decode | None = None) -> TrainingTask:
    """The training that options ask for, of a new model.

    Args:
        options: The command's.
        decode: Decodes codes to images, for sample images; None for none.

    Raises:
        InputError: The codes have no texts, or the model cannot be trained on documents.
    """
    if holds_documents(options.codes):
        return _documents_task(options, decode)
    codes = open_codes(options.codes)
    tokenizer = _tokenizer(options, captions_of(codes.train))
    texts = chain(captions_of(codes.train), captions_of(codes.test))
    config = dataclasses.replace(
        options.model,
        grid=codes.key.grid,
        tokenizer=codes.key.tokenizer,
        text_tokens=tokenizer.size,
        text_length=_longest(texts, tokenizer),
        text_tokenizer=tokenizer.fingerprint,
    )
    test = TokenizedCaptions(codes.test, tokenizer)
    return TrainingTask(
        CaptionedImageObjective(text_model_of(config), options.text_dropout),
        TokenizedCaptions(codes.train, tokenizer),
        evaluate=lambda model, accelerator: evaluate_captioned(model, test, accelerator),
        draw=None if decode is None else lambda model: captioned_samples(model, test, decode),
        card=f"A model of captions and grids of codes, {codes.key.grid}.",
        save_tokenizer=lambda folder: copied_folder(codes.folder / "tokenizer", folder),
        text_tokenizer=tokenizer,
    )


def _documents_task(options: TrainTextPrior[Any], decode: Decode | None) -> TrainingTask:
    data = open_documents(options.codes)
    tokenizer = _tokenizer(options, data.train.texts())
    both = [data.train, data.test]
    lengths = [int(document_lengths(some, tokenizer, data.key.grid.size).max()) for some in both]
    config = dataclasses.replace(
        options.model,
        grid=data.key.grid,
        tokenizer=data.key.tokenizer,
        text_tokens=tokenizer.size,
        text_length=_longest(chain(*(some.texts() for some in both)), tokenizer),
        text_tokenizer=tokenizer.fingerprint,
        **({"length": max(lengths)} if hasattr(options.model, "length") else {}),
    )
    model = text_model_of(config)
    if not isinstance(model, Chameleon):
        raise InputError(
            f"{options.codes} holds documents, and a {model.kind} is trained on captioned images; "
            "--model chameleon takes documents"
        )
    train, test = (
        IndexedSplit(DocumentSequences(some, tokenizer, model.grammar()), fingerprint, held=True)
        for some, fingerprint in zip(both, (data.key.train, data.key.test), strict=True)
    )
    return TrainingTask(
        DocumentObjective(model, options.text_dropout, options.text_weight),
        train,
        evaluate=lambda model, accelerator: evaluate_documents(model, tokenizer, test, accelerator),
        draw=None if decode is None else lambda model: sample_image(model, decode),
        card=f"A model of documents of text and images, grids of codes {data.key.grid}.",
        save_tokenizer=lambda folder: copied_folder(data.folder / "tokenizer", folder),
        text_tokenizer=tokenizer,
    )


def captioned_samples(
    model: TextImageModel, test: Split, decode: Decode, *, rows: int = 8, columns: int = 8, seed: int = 0
) -> Image.Image:
    """Samples at temperature 1 as one image: a row for each of the first captions."""
    batch = next(test.ordered(rows))
    assert batch.texts is not None, "the split has texts"
    each = torch.arange(len(batch)).repeat_interleave(columns)
    generator = torch.Generator().manual_seed(seed)
    drawn = model.sample(len(each), Condition(text=batch.texts[each]), generator=generator)
    return image_grid(decode(drawn), columns=columns)


def _tokenizer(options: TrainTextPrior[Any], texts: Iterable[str]) -> TextTokenizer:
    """The text tokenizer that options ask for, trained on texts."""
    limit = options.text_limit or None
    config = TextTokenizerConfig(
        options.text_tokenizer, options.text_vocabulary, options.lower_case, limit, truncate=limit is not None
    )
    return TextTokenizer(config) if config.method == "bytes" else TextTokenizer.train(texts, config)


def _longest(texts: Iterable[str], tokenizer: TextTokenizer) -> int:
    return max((len(tokenizer.encode(text)) for text in set(texts)), default=1) or 1
