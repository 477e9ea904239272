"""Images in and out: any image as a uint8 tensor, any uint8 tensor as an image, and grids of images."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.files import new_file

Colour = Literal["grey", "rgb"]
Resample = Literal["bicubic", "box", "bilinear", "lanczos", "nearest"]
Images: TypeAlias = Tensor | np.ndarray | Image.Image | str | Path | Sequence[Any] | Iterator[Any]

FORMS = "a PIL image, a path, a uint8 tensor or array, or several of them"

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}

BITS_PER_SAMPLE = 258
"""The tag of a TIFF file."""


def to_uint8(images: Images, colour: Colour) -> Tensor:
    """One image or many as a uint8 batch.

    Args:
        images: A PIL image, an image file's path, a uint8 tensor ``(C, H, W)`` or a uint8 array ``(H, W, C)``, or
            several of them; or a batch of them, ``(B, C, H, W)`` or ``(B, H, W, C)``. A tensor whose channels can
            only be the last axis, or an array whose channels can only be the first, is taken too.
        colour: What the batch becomes: 1 channel or 3.

    Returns:
        uint8 ``(B, C, H, W)``.

    Raises:
        InputError: A kind, shape, dtype or mixture of sizes that cannot be a batch, or a file that is no image.
    """
    parts = [_one_to_uint8(image, colour) for image in listed(images)]
    if not parts:
        raise InputError("no images were given, expected at least one")
    sizes = sorted({(part.shape[3], part.shape[2]) for part in parts})
    if len(sizes) > 1:
        raise InputError(f"images of different sizes {sizes[:3]} cannot be one batch")
    return torch.cat(parts)


def listed(images: Images) -> list[Any]:
    """Images as a list of them; a tensor or an array stays one item, whether it is a batch or not."""
    if isinstance(images, Tensor | np.ndarray | Image.Image | str | Path):
        return [images]
    if isinstance(images, Sequence | Iterator):
        return list(images)
    raise InputError(f"images are of type {type(images).__name__}, expected {FORMS}")


def _one_to_uint8(image: Any, colour: Colour) -> Tensor:
    if isinstance(image, str | Path):
        image = open_image(Path(image))
    if isinstance(image, Image.Image):
        return pil_to_tensor(image, colour)[None]
    if not isinstance(image, Tensor | np.ndarray):
        raise InputError(f"one of the images is of type {type(image).__name__}, expected {FORMS}")
    batch = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    if batch.dtype != torch.uint8:
        raise InputError(f"images are {batch.dtype}, expected uint8 from 0 to 255")
    if batch.ndim == 2:
        batch = batch[None] if isinstance(image, Tensor) else batch[..., None]
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4:
        raise InputError(f"images have shape {tuple(batch.shape)}, expected (B, C, H, W)")
    custom, other = (1, 3) if isinstance(image, Tensor) else (3, 1)
    channel_axis = other if batch.shape[custom] not in (1, 3) and batch.shape[other] in (1, 3) else custom
    batch = batch.movedim(channel_axis, 1)
    channels = 1 if colour == "grey" else 3
    if batch.shape[1] == channels:
        return batch.contiguous()
    if batch.shape[1] == 1:
        return batch.expand(-1, 3, -1, -1).contiguous()
    if batch.shape[1] == 3:
        return torch.stack([pil_to_tensor(to_pil(one), "grey") for one in batch])
    raise InputError(f"images have {batch.shape[1]} channels, expected 1 (grey) or 3 (RGB)")


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images to floats in [-1, 1]."""
    return images.to(dtype) / 127.5 - 1


def to_levels(images: Tensor) -> Tensor:
    """Floats to uint8 images; what lies outside of [-1, 1] becomes 0 or 255."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pil_to_tensor(image: Image.Image, colour: Colour) -> Tensor:
    """A PIL image as uint8 ``(C, H, W)``; transparency is laid on white.

    Raises:
        InputError: See ``eight_bit``.
    """
    image = eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("L" if colour == "grey" else "RGB"))
    return torch.from_numpy(array[None] if colour == "grey" else array.transpose(2, 0, 1).copy())


def eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a value. Integers of 16 bits are scaled from 0 … 65535, floats from 0 … 1.

    Raises:
        InputError: A value lies outside, or is not a number; or the mode cannot be converted.
    """
    if image.mode in COLOUR_MODES or image.mode in ("1", "L", "LA", "La"):
        return image
    if image.mode not in GREY_MODES:
        raise InputError(f"it is of mode {image.mode}, expected grey or RGB; convert it")
    values, most = np.asarray(image), 1.0 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):
        kind = "floats" if image.mode == "F" else "integers"
        raise InputError(
            f"it holds {kind} from {low:g} to {high:g}, expected 0 to {most:g}; store it as 8 bits"
        )
    if image.mode == "F":
        return Image.fromarray((values * 255).round().astype(np.uint8))
    return Image.fromarray((values // 257).astype(np.uint8))


def is_grey(image: Image.Image) -> bool:
    """Whether an image has no colours, whatever its mode."""
    return image.mode in GREY_MODES or bool((pixels := pil_to_tensor(image, "rgb")).eq(pixels[:1]).all())


def to_pil(image: Tensor) -> Image.Image:
    """uint8 ``(C, H, W)``, C 1 or 3, as a PIL image."""
    array = image.detach().cpu().numpy()
    return Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0))


def resized(image: Image.Image, height: int, width: int, resample: Resample = "bicubic") -> Image.Image:
    """Scale (antialiased) until the image covers ``height × width``, and crop the centre."""
    if image.size == (width, height):
        return image
    image = eight_bit(image)
    if image.mode in ("P", "PA", "1"):  # palettes and bits cannot be interpolated
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    method = Image.Resampling[resample.upper()]
    return ImageOps.fit(image, (width, height), method=method)


def open_image(path: Path, *, exact: bool = False) -> Image.Image:
    """Open an image file whole; InputError where it is absent or does not decode. Exact: see ``decode_exact``."""
    try:
        return (decode_exact if exact else decode_image)(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, expected an image") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, expected an image") from None
    except Exception as error:
        raise InputError(f"{path} does not decode as an image ({error})") from None


def decode_image(content: bytes) -> Image.Image:
    """Decode an image file's bytes and turn the image upright by its EXIF orientation.

    Of an animation, the first frame is read.

    Raises:
        InputError: The file is empty or no image, or see ``eight_bit``.
        Exception: Whatever Pillow raises for an image that is damaged.
    """
    image = _opened(content)
    image.load()
    if image.mode == "I" and image.format == "TIFF" and 32 in image.tag_v2.get(BITS_PER_SAMPLE, ()):  # type: ignore[attr-defined]
        raise InputError("it holds 32-bit integers, whose scale nothing tells; store it as 8 or 16 bits")
    return eight_bit(ImageOps.exif_transpose(image))


def decode_exact(content: bytes) -> Image.Image:
    """As ``decode_image``, with all of the image's bits, whatever its mode.

    Raises:
        InputError: The file is empty, no image, or has several frames.
        Exception: As for ``decode_image``.
    """
    image = _opened(content)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"it has {frames} frames, expected one image")
    image.load()
    return ImageOps.exif_transpose(image)


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise InputError("it is empty")
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise InputError("it is no image of a kind that can be read") from None


def image_grid(images: Tensor, columns: int | None = None, *, min_side: int = 600) -> Image.Image:
    """Many images as one image, row by row.

    Args:
        images: uint8 ``(B, C, H, W)``.
        columns: Images a row; by default about as many as rows.
        min_side: Small images are enlarged by a whole factor (nearest) until the grid is about this wide.
    """
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = max(1, min_side // (columns * (images.shape[-1] + 1)))
    enlarged = images.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return to_pil(make_grid(enlarged, nrow=columns, padding=max(2, scale // 2), pad_value=96))


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG; the file is whole or absent."""
    with new_file(path) as pending:
        image.save(pending, format="PNG")
