"""Pictures as they are: which of them a model can be asked for, and the others as PNG files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.images import Images, listed, open_image, pil_to_tensor, to_pil, to_uint8

TRANSPARENT_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
MODES = {1: {"1", "L"}, 3: {"1", "L", "P", "RGB"}}
"""What becomes grey or RGB without loss, by the model's channels."""


@dataclass(frozen=True)
class Picture:
    """A picture that is to be compressed.

    Attributes:
        image: As it was given, upright.
        pixels: uint8 ``(C, H, W)`` for the model; None where it has no such pixels.
        reason: Why it has none.
    """

    image: Image.Image
    pixels: Tensor | None
    reason: str = ""

    @classmethod
    def of(cls, image: Image.Image, channels: int) -> Picture:
        """A picture for a model of grey (1) or RGB (3) images."""
        reason = _why_not(image, channels)
        if reason:
            return cls(image, None, reason)
        return cls(image, pil_to_tensor(image, "grey" if channels == 1 else "rgb"))


def pictures_of(images: Images, channels: int) -> list[Picture]:
    """Pictures of images in any form that ``ImagePipeline.encode`` takes, of any sizes.

    Raises:
        InputError: A file that is no image or has several frames, or a tensor or array that holds no images.
    """
    found = []
    for one in listed(images):
        if isinstance(one, str | Path):
            found.append(Picture.of(open_image(Path(one), exact=True), channels))
        elif isinstance(one, Image.Image):
            found.append(Picture.of(one, channels))
        else:
            found += [Picture.of(image, channels) for image in _unbatched(one)]
    return found


def _unbatched(batch: Any) -> list[Image.Image]:
    """The images of a uint8 tensor or array, as grey or RGB as they are."""
    if not isinstance(batch, Tensor | np.ndarray):
        raise InputError(f"one of the images is of type {type(batch).__name__}, expected an image")
    usual, other = (-3, -1) if isinstance(batch, Tensor) else (-1, -3)
    channels = 1
    if batch.ndim > 2:
        channels = batch.shape[usual] if batch.shape[usual] in (1, 3) else batch.shape[other]
    return [to_pil(one) for one in to_uint8(batch, "rgb" if channels == 3 else "grey")]


def _why_not(image: Image.Image, channels: int) -> str:
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        return "transparency"
    if image.mode in DEEP_MODES:
        return "more than 8 bits"
    if image.mode in MODES[channels]:
        return ""
    return "colours" if channels == 1 else f"mode {image.mode}"


def png_of(image: Image.Image) -> bytes:
    """The PNG file of an image, once it has been read back as the very same image.

    Raises:
        InputError: PNG does not hold it without loss.
    """
    file = io.BytesIO()
    try:
        image.save(file, format="PNG", optimize=True)
        again = opened_png(file.getvalue())
        same = np.array_equal(_values(again), _values(image))
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"an image is of mode {image.mode}, which neither the model nor PNG holds without loss; convert it first"
        )
    return file.getvalue()


def opened_png(content: bytes) -> Image.Image:
    """The image of a PNG file."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _values(image: Image.Image) -> np.ndarray:
    """Values of a subpixel; of a palette's pixel, its colour."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.asarray(image).astype(np.float64)
