"""Compress images with a trained pipeline's probabilities: ``rasterwise compress``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, configuration
from rasterwise.errors import InputError
from rasterwise.files import new_file
from rasterwise.outputs import claim_file
from rasterwise.progress import Progress

ENDING = ".rw"


@configuration()
class Compress:
    """Compress images to one file, with the probabilities of a trained pipeline.

    Images come back pixel for pixel where the tokenizer loses nothing (256 levels a subpixel); else the report says
    that they do not. PixelCNN, Gated PixelCNN and PixelCNN++ take images of any size. What the model has no pixels for
    (another size, transparency, 16 bits) is stored as PNG, and counted.

    Attributes:
        pipeline: A pipeline's folder, a run's folder, or a Hub id.
        images: Image files, or folders of them.
        output: A new file, NAME.rw.
        batch_size: Images of one size that are coded at once. Decompression takes as many at once.
        unchecked: Do not decode what was coded to see whether it comes back, which takes half of the time.
        json: Print the report as JSON.
    """

    pipeline: str
    images: tuple[Path, ...]
    output: Path = Path("images.rw")
    batch_size: BatchSize = 64
    unchecked: bool = False
    json: bool = False


def compress(options: Compress) -> dict[str, Any]:
    """Run the command."""
    output = claim_file(options.output, ENDING, inputs=options.images)
    files = image_files(options.images)
    pipeline = ImagePipeline.from_pretrained(options.pipeline)
    began = time.perf_counter()
    with Progress("compressing", "image") as progress:
        found = pipeline.compress(
            list(files.values()),
            names=list(files),
            batch_size=options.batch_size,
            check=not options.unchecked,
            progress=progress,
        )
    with new_file(output) as pending:
        pending.write_bytes(found.content)
    return {
        "output": str(options.output),
        "images": found.pictures,
        "lossless": found.lossless,
        "bytes": len(found.content),
        "bits_per_subpixel": found.bits_per_subpixel,
        "coded_by_the_model": {
            "images": found.pictures - sum(found.png.values()),
            "bytes": found.model_bytes,
            "stated_bytes": found.model_bits / 8,
        },
        "stored_as_png": {"images": sum(found.png.values()), "bytes": found.png_bytes, **found.png},
        "seconds": time.perf_counter() - began,
    }


def image_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Image files, those of folders in order, each by the name that it gets back: its own without the ending.

    Where two would get the same name, they keep their endings.

    Raises:
        InputError: A path is not there, or there is no image file.
    """
    endings = Image.registered_extensions()
    listed: list[tuple[str, Path]] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist, expected an image or a folder of images")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        listed += [
            (one.relative_to(path).as_posix() if path.is_dir() else one.name, one)
            for one in inside
            if one.is_file() and (one == path or one.suffix.lower() in endings)
        ]
    if not listed:
        raise InputError("no images were found; name files or folders of them with --images")
    plain = Counter(name.rpartition(".")[0] for name, _ in listed)
    files: dict[str, Path] = {}
    for name, path in listed:
        stem = name.rpartition(".")[0] or name
        shown = stem if plain[stem] == 1 else name
        if shown in files:
            raise InputError(f"{path} and {files[shown]} have the same name; compress them to two files")
        files[shown] = path
    return files


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(compress, Compress, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
