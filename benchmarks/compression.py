"""Bits a subpixel and MB/s of a pipeline's codec beside PNG, WebP, JPEG XL, JPEG-LS and QOI.

    python -m benchmarks.compression --pipeline runs/pixel --images 100

All coders encode and decode the same pictures with as many threads, in turn, several times over, and what comes back is
compared with what went in. A small picture costs a coder of files its header: each coder also encodes all pictures
stacked into one; the table has the smaller of the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from pipeline.image_pipeline import ImagePipeline
from rasterwise.configuration import BatchSize, Count, configuration
from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import open_images
from rasterwise.data.indexed import first_of
from rasterwise.errors import InputError
from rasterwise.measure.timing import median, seconds_of

Pictures = list[np.ndarray]
"""uint8 ``(H, W)`` or ``(H, W, 3)`` each."""

CPU = torch.device("cpu")


@configuration()
class Compression:
    """Compare a pipeline's lossless compression with what everybody has.

    Attributes:
        pipeline: A pipeline's folder, a run's folder, or a Hub id.
        data: The pictures: of the test split.
        images: How many of them.
        batch_size: Of the pipeline.
        threads: Of torch and of JPEG XL; the others have one.
        rounds: How often each coder encodes and decodes all pictures, in turn.
        output: The JSON file, updated after every cell.
        force: Replace the output if it is there.
        json: Print the report as JSON.
    """

    pipeline: str
    data: DataConfig = SAME_DATA
    images: Count = 100
    batch_size: BatchSize = 64
    threads: Count = 1
    rounds: Count = 3
    output: Path = Path("compression.json")
    force: bool = False
    json: bool = False


@dataclass(frozen=True)
class Coder:
    """A way to compress pictures.

    Attributes:
        label: What the table calls it.
        encode: All pictures to files.
        decode: Their files to pictures.
    """

    label: str
    encode: Callable[[Pictures], list[bytes]]
    decode: Callable[[list[bytes]], Pictures]


def usual_coders(threads: int) -> list[Coder]:
    """Those of imagecodecs, at their best lossless settings; JPEG XL at three efforts.

    Raises:
        InputError: imagecodecs is not installed.
    """
    try:
        import imagecodecs
    except ImportError:
        raise InputError('the other coders come with the extra "dev": pip install -e ".[dev]"') from None

    def coder(label: str, name: str, coloured: bool = False, **options: Any) -> Coder:
        write, read = getattr(imagecodecs, f"{name}_encode"), getattr(imagecodecs, f"{name}_decode")

        def encode(pictures: Pictures) -> list[bytes]:
            return [bytes(write(_coloured(one) if coloured else one, **options)) for one in pictures]

        return Coder(label, encode, lambda files: [np.asarray(read(one)) for one in files])

    return [
        coder("PNG, level 9", "png", level=9),
        coder("WebP, method 6", "webp", True, lossless=True, level=100, method=6),
        coder("JPEG-LS", "jpegls"),
        coder("QOI", "qoi", True),
        *[
            coder(f"JPEG XL, effort {effort}", "jpegxl", lossless=True, effort=effort, numthreads=threads)
            for effort in (3, 7, 9)
        ],
    ]


def own_coder(pipeline: ImagePipeline, batch_size: int) -> Coder:
    """The pipeline's: all pictures in one file."""

    def encode(pictures: Pictures) -> list[bytes]:
        return [pipeline.compress(pictures, batch_size=batch_size, check=False).content]

    def decode(files: list[bytes]) -> Pictures:
        return [np.asarray(image) for content in files for image in pipeline.decompress(content)]

    return Coder(f"Rasterwise, {pipeline.model.kind}", encode, decode)


def measured(coders: Sequence[Coder], pictures: Pictures, rounds: int) -> dict[str, Cell]:
    """The figures of every coder by its label: bytes, and seconds of each round."""
    cells: dict[str, Cell] = {coder.label: {"encode_seconds": [], "decode_seconds": []} for coder in coders}
    for _ in range(rounds):
        for coder in coders:
            cell, files, restored = cells[coder.label], list[bytes](), list[np.ndarray]()
            cell["encode_seconds"].append(
                seconds_of(lambda c=coder, f=files: f.extend(c.encode(pictures)), CPU)
            )  # type: ignore[misc]
            cell["decode_seconds"].append(
                seconds_of(lambda c=coder, f=files, r=restored: r.extend(c.decode(f)), CPU)
            )  # type: ignore[misc]
            cell["bytes"] = sum(map(len, files))
            cell["lossless"] = all(_same(one, again) for one, again in zip(pictures, restored, strict=True))
    stacked = [np.concatenate(pictures)] if len({one.shape for one in pictures}) == 1 else []
    for coder in coders:
        if stacked and not coder.label.startswith("Rasterwise"):
            cells[coder.label]["stacked_bytes"] = sum(map(len, coder.encode(stacked)))
    return cells


def _coloured(picture: np.ndarray) -> np.ndarray:
    """RGB, for coders that have no grey."""
    return np.ascontiguousarray(np.repeat(picture[..., None], 3, 2)) if picture.ndim == 2 else picture


def _same(picture: np.ndarray, again: np.ndarray) -> bool:
    return np.array_equal(_coloured(picture), _coloured(again))


def table(cells: Sequence[Cell]) -> str:
    """Cells as a Markdown table: bits a subpixel, MB/s both ways."""
    rows = [
        [
            cell["label"],
            cell.get("bits_per_subpixel"),
            cell.get("encode_mb_per_second"),
            cell.get("decode_mb_per_second"),
        ]
        for cell in cells
    ]
    return markdown_table(["coder", "bits a subpixel", "compress, MB/s", "decompress, MB/s"], rows)


def compression(options: Compression) -> dict[str, Any]:
    """Run the benchmark; returns the report."""
    coders = usual_coders(options.threads)
    file = BenchmarkFile(options.output, "compression", options, CPU, options.force)
    torch.set_num_threads(options.threads)
    pipeline = ImagePipeline.from_pretrained(options.pipeline)
    data = open_images(same_data(options.data, pipeline.tokenizer.trained_on or pipeline.model.trained_on))
    values = first_of(data.test, options.images).values
    pictures = [one[0] if len(one) == 1 else one.transpose(1, 2, 0).copy() for one in values.numpy()]
    coders.append(own_coder(pipeline, options.batch_size))
    cells = measured(coders, pictures, options.rounds)
    subpixels = sum(one.size for one in pictures)
    for cell in cells.values():
        cell["bits_per_subpixel"] = (
            8 * min(cell["bytes"], cell.get("stacked_bytes", cell["bytes"])) / subpixels
        )
        for way in ("encode", "decode"):
            cell[f"{way}_mb_per_second"] = subpixels / 1e6 / median(cell[f"{way}_seconds"])
    subject = {"images": len(pictures), "subpixels": subpixels, "threads": options.threads}
    file.run([({"label": label, **subject}, lambda cell=cell: cell) for label, cell in cells.items()])  # type: ignore[misc]
    return file.report(table, as_json=options.json)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return command_status(compression, Compression, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
