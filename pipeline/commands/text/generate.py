"""Continue documents of text and images: ``rasterwise generate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import torch

from pipeline.document_page import save_documents
from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Count, Seed, configuration
from rasterwise.data.documents import (
    CONTENT_NAME,
    DOCUMENT_SUFFIXES,
    StoredDocument,
    document_in,
    open_stored,
    read_documents,
)
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.files import read_json
from rasterwise.outputs import claim_folder


@configuration()
class Generate:
    """Continue documents of text and images with a trained chameleon.

    Attributes:
        document: A JSON file whose "content" is a list of {"type": "text", "text": …} and {"type": "image", "image":
            path}, perhaps empty; or several documents in a file of JSON lines or parquet. Images are fitted to the
            model's size.
        pipeline: The folder of a pipeline with a chameleon, its run, or a Hub id.
        n: Continuations of each document.
        output: A new folder for documents.json, the images, and index.html, which shows them.
        sampling: How ids are drawn.
        seed: The same seed gives the same continuations.
        batch_size: How many are drawn at once.
        json: Print the report as JSON.
    """

    document: Path
    pipeline: str = "runs/prior"
    n: Count = 1
    output: Path = Path("documents")
    sampling: Sampling = field(default_factory=Sampling)
    seed: Seed = 0
    batch_size: BatchSize = 64
    json: bool = False


def generate(options: Generate) -> dict[str, Any]:
    """Run the command."""
    output = claim_folder(options.output)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"output folder {options.output} is not empty; name a new one with --output")
    stored = _documents(options.document)
    prompts = [
        [part if isinstance(part, str) else open_stored(part, one.where) for part in one.content]
        for one in stored
    ]
    pipeline = ImagePipeline.from_pretrained(options.pipeline)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    repeated = [prompt for prompt in prompts for _ in range(options.n)]
    continuations = pipeline.generate_many(
        repeated, sampling=options.sampling, seed=options.seed, batch_size=options.batch_size
    )
    save_documents(list(zip(repeated, continuations, strict=True)), output)
    parts = [part for one in continuations for part in one]
    texts = [part for part in parts if isinstance(part, str)]
    report = {
        "output": str(options.output),
        "page": str(options.output / "index.html"),
        "documents": len(continuations),
        "images": len(parts) - len(texts),
    }
    return {**report, "texts": texts} if len(continuations) == 1 else report


def _documents(path: Path) -> list[StoredDocument]:
    """The documents of a file; InputError names what is wrong with it."""
    if path.suffix in DOCUMENT_SUFFIXES:
        found = list(read_documents(path))
        if not found:
            raise InputError(f"{path} holds no documents")
        return found
    if path.suffix != ".json":
        raise InputError(f"document {path} is no .json, {' or '.join(DOCUMENT_SUFFIXES)} file")
    row = read_json(path)
    if CONTENT_NAME not in row:
        raise InputError(f"{path} has no {CONTENT_NAME!r}; it has {', '.join(row) or 'nothing'}")
    if row[CONTENT_NAME] == []:
        return [StoredDocument((), str(path))]
    return [document_in(row[CONTENT_NAME], str(path), path.parent)]


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(generate, Generate, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
