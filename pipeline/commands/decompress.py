"""Images of a file that ``rasterwise compress`` wrote: ``rasterwise decompress``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.command_line.statuses import FAILED
from rasterwise.compression.container import read_compressed
from rasterwise.configuration import configuration
from rasterwise.errors import InputError, UnfinishedError
from rasterwise.files import new_folder
from rasterwise.outputs import claim_new_folder
from rasterwise.progress import Progress


@configuration()
class Decompress:
    """Decompress the images of a file that ``rasterwise compress`` wrote, as PNG files.

    It takes the same pipeline, the same versions and the same kind of processor. A checksum an image proves that it is
    right; one that is not is named and left out, and the exit status is then 1.

    Attributes:
        pipeline: The pipeline that compressed them.
        input: The file.
        output: A new folder.
        json: Print the report as JSON.
    """

    pipeline: str
    input: Path
    output: Path = Path("decompressed")
    json: bool = False


def decompress(options: Decompress) -> dict[str, Any]:
    """Run the command."""
    output = claim_new_folder(options.output)
    content = read_compressed(options.input)
    pipeline = ImagePipeline.from_pretrained(options.pipeline)
    began = time.perf_counter()
    with Progress("decompressing", "image") as progress:
        try:
            found = pipeline.codec.decompress(content, progress=progress)
        except InputError as error:
            raise InputError(f"{options.input} cannot be decompressed: {error}") from None
    names = [place_of(name) for name in found.names] or [Path(f"{n:05d}") for n in range(len(found.images))]
    with new_folder(output) as pending:
        for name, image in zip(names, found.images, strict=True):
            if image is not None:
                path = pending / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    report: dict[str, Any] = {
        "output": str(options.output),
        "images": len(found.images) - len(found.damaged),
        "lossless": found.lossless,
        "seconds": time.perf_counter() - began,
    }
    if found.damaged:
        report["damaged"] = {str(names[place]): reason for place, reason in found.damaged.items()}
        if found.differences:
            report["compressed_elsewhere"] = found.differences
        raise UnfinishedError(report, FAILED)
    return report


def place_of(name: str) -> Path:
    """Where an image goes in the output folder: never outside of it.

    Raises:
        InputError: The name leads elsewhere.
    """
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("/", "..") or "\\" in part or "\0" in part for part in parts):
        raise InputError(f"an image's name in the file is {name!r}, which is no name in a folder")
    return Path(*parts)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(decompress, Decompress, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
