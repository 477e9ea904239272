"""Encode a dataset to codes: ``rasterwise encode``, or ``python -m rasterwise encode`` under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from pipeline.models import open_tokenizer
from rasterwise.codes.encode import encode_dataset
from rasterwise.codes.encode_documents import encode_documents
from rasterwise.codes.writing import SHARD_SIZE, claim_codes
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Count, CountOrZero, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DIGITS, SAME, SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import open_images
from rasterwise.data.document_sources import (
    DigitDocumentsConfig,
    make_digit_documents,
    open_document_files,
)
from rasterwise.errors import InputError
from rasterwise.files import from_json
from rasterwise.images import Colour
from rasterwise.measure.metrics import histograms_entropy_nats
from rasterwise.progress import Progress
from rasterwise.tokenizers.image import ImageTokenizer

COLOURS: dict[int | None, Colour] = {1: "grey", 3: "rgb"}
"""Of images, by the channels that a tokenizer takes."""


@configuration()
class Encode:
    """Encode a dataset of images, or of documents of text and images, to codes, on which a prior is then trained.

    The same command goes on with an encoding that was stopped or killed.

    Attributes:
        tokenizer: A trained VQ-VAE: its run's folder, its model folder, or a Hub id.
        documents: Encode interleaved documents instead of images: a file of JSON lines or parquet, a folder with train
            and test files, or "digits" for documents made of the built-in digits. A row's "content" is a list of
            {"type": "text", "text": …} and {"type": "image", "image": path or bytes}.
        output: The codes' folder. Codes of the same images and tokenizer that it holds already are kept.
        data: The images.
        captions: Keep the captions of each image with its codes, for models of text and images.
        copies: Augmented copies of each training image to encode besides the image itself; for small datasets.
            Documents of digits draw from them.
        augmentation: How the copies differ from the image.
        batch_size: Images at once.
        shard_size: Images, or documents, in each file. A stop loses at most this many.
        made: The documents of "digits".
        json: Print the report as JSON.
    """

    tokenizer: str = "runs/vqvae"
    documents: str = ""
    output: Path = Path("runs/codes")
    data: DataConfig = SAME_DATA
    captions: bool = False
    copies: CountOrZero = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch_size: BatchSize = 256
    shard_size: Count = SHARD_SIZE
    made: DigitDocumentsConfig = field(default_factory=DigitDocumentsConfig)
    json: bool = False


def encode(options: Encode) -> dict[str, Any]:
    """Run the command; returns the code dataset's size and statistics."""
    claim_codes(options.output)
    # A process that is done waits for the slowest one, however long it takes.
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))]
    )
    tokenizer = open_tokenizer(options.tokenizer).to(accelerator.device)
    if options.documents:
        return _encode_documents(options, tokenizer, accelerator)
    main = accelerator.is_main_process
    with Progress("reading images", "image", shown=main) as progress:
        data = open_images(same_data(options.data, tokenizer.trained_on), progress, captions=options.captions)
    data.origin.refuse_output(options.output)
    broken = len(data.train.broken) + len(data.test.broken)
    with Progress("encoding", "image", shown=main) as progress:
        codes = encode_dataset(
            tokenizer,
            data,
            options.output,
            copies=options.copies,
            augmentation=options.augmentation,
            batch_size=options.batch_size,
            shard_size=options.shard_size,
            progress=progress,
            accelerator=accelerator,
        )
    # Broken images that were read into memory are counted above. Each other one lacks a grid, and so do its copies.
    broken += data.train.length - codes.train.length // (1 + options.copies)
    broken += data.test.length - codes.test.length
    batches = (batch.values for batch in codes.train.ordered(4096))
    return {
        "output": str(options.output),
        "train_grids": codes.train.length,
        "test_grids": codes.test.length,
        "images_found": data.found,
        "images_read": data.found - broken,
        "broken_images": broken,
        "grid": str(codes.key.grid),
        **_usage(batches, codes.key.grid.levels, tokenizer),
    }


def _encode_documents(options: Encode, tokenizer: ImageTokenizer, accelerator: Accelerator) -> dict[str, Any]:
    """Run the command with documents."""
    if options.data.dataset != SAME or options.captions:
        raise InputError("--documents has images and texts of its own; leave --dataset and --captions out")
    main = accelerator.is_main_process
    if options.documents == DIGITS:
        documents = make_digit_documents(
            options.made, copies=options.copies, augmentation=options.augmentation
        )
    elif options.copies:
        raise InputError(
            f"--copies {options.copies} is for images and for documents of digits: the images of one document "
            "belong together, and are not changed one by one"
        )
    else:
        trained: DataConfig | None = None
        if tokenizer.trained_on:
            trained = from_json(DataConfig, tokenizer.trained_on, "what the tokenizer was trained on")
        with Progress("reading documents", "document", shown=main) as progress:
            documents = open_document_files(
                Path(options.documents),
                size=options.data.size or (trained.size if trained else None),
                colour=COLOURS.get(tokenizer.channels),
                resample=trained.resample if trained else options.data.resample,
                progress=progress,
            )
        output = options.output.expanduser().resolve()
        if documents.folder and output.is_relative_to(documents.folder.resolve()):
            raise InputError(
                f"output {output} lies in the folder of the documents; name another with --output"
            )
    with Progress("encoding", "document", shown=main) as progress:
        data = encode_documents(
            tokenizer,
            documents,
            options.output,
            batch_size=options.batch_size,
            shard_size=options.shard_size,
            progress=progress,
            accelerator=accelerator,
        )
    parts = [part for document in data.train for part in document]
    grid = data.key.grid
    images = [grid.unflatten(torch.tensor(part)[None]) for part in parts if not isinstance(part, str)]
    return {
        "output": str(options.output),
        "train_documents": len(data.train),
        "test_documents": len(data.test),
        "train_images": len(images),
        "train_text_bytes": sum(len(part.encode()) for part in parts if isinstance(part, str)),
        "grid": str(grid),
        **_usage(images, grid.levels, tokenizer),
    }


def _usage(codes: Iterable[torch.Tensor], levels: int, tokenizer: ImageTokenizer) -> dict[str, Any]:
    """How many codes are used, and how evenly: in all, and in each of two grids, which have codebooks of their own."""
    histograms = tokenizer.histograms(codes, levels)
    used = {name: int((counts > 0).sum()) for name, counts in histograms.items()}
    report = {
        "codes_used": sum(used.values()),
        "code_histogram_entropy_nats": histograms_entropy_nats(histograms.values()),
    }
    return report | {f"{name}_codes_used": count for name, count in used.items() if name}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(encode, Encode, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
