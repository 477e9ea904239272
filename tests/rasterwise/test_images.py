"""Images in and out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rasterwise.errors import InputError
from rasterwise.images import (
    decode_image,
    image_grid,
    is_grey,
    open_image,
    pil_to_tensor,
    resized,
    save_image,
    to_levels,
    to_pil,
    to_uint8,
    to_unit,
)

RED = Image.new("RGB", (4, 3), (255, 0, 0))


def test_every_form_of_an_image_gives_the_same_batch(tmp_path: Path) -> None:
    """PIL, paths, tensors and arrays, channels first or last; one, or several of them in whatever holds them."""
    expected = to_uint8(RED, "rgb")
    assert expected.shape == (1, 3, 3, 4)
    array = np.asarray(RED)
    save_image(RED, tmp_path / "red.png")
    for form in (
        *([RED], (RED,), iter([RED])),
        *(array, array[None], [array], expected, expected[0], [expected[0]]),
        *(tmp_path / "red.png", str(tmp_path / "red.png"), [tmp_path / "red.png"], tmp_path.glob("*.png")),
    ):
        assert torch.equal(to_uint8(form, "rgb"), expected)
    mixed = [RED, array, expected, tmp_path / "red.png"]
    assert torch.equal(to_uint8(mixed, "rgb"), expected.expand(4, -1, -1, -1))


def test_grey_and_rgb() -> None:
    """Grey becomes three equal channels; RGB becomes grey by luminance."""
    grey = torch.full((2, 1, 3, 4), 7, dtype=torch.uint8)
    assert torch.equal(to_uint8(grey, "rgb"), grey.expand(-1, 3, -1, -1))
    assert to_uint8(RED, "grey").unique().tolist() == [76]
    assert to_uint8(to_uint8(RED, "rgb"), "grey").unique().tolist() == [76]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]
)
def test_every_mode_becomes_uint8(mode: str) -> None:
    """White stays white in every mode that a file can have."""
    white = {"I;16": 65535, "I": 65535, "F": 1.0}.get(mode)
    image = Image.new(mode, (2, 2), white) if white else Image.new("RGB", (2, 2), "white").convert(mode)
    for colour, channels in (("grey", 1), ("rgb", 3)):
        tensor = pil_to_tensor(image, colour)  # type: ignore[arg-type]
        assert tensor.shape == (channels, 2, 2)
        assert tensor.min() == 255


def tiff(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="TIFF")
    return file.getvalue()


def test_floats_are_read_from_0_to_1() -> None:
    """As a TIFF file stores them, also where they are resized first; values outside and NaN are refused."""
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    read = pil_to_tensor(decode_image(tiff(values)), "grey")[0].numpy()
    assert np.abs(read - 255 * values).max() <= 0.5
    small = np.asarray(resized(decode_image(tiff(np.full((8, 8), 0.5, np.float32))), 4, 4))
    assert set(small.flatten().tolist()) == {128}
    for outside in (255 * values, values - 0.1, np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(InputError, match="expected 0 to 1"):
            decode_image(tiff(outside))


def test_integers_of_16_bits_are_scaled_and_of_32_refused() -> None:
    """What 255 means in a file of 32-bit integers nothing tells."""
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    assert pil_to_tensor(decode_image(tiff(values)), "grey").flatten().tolist() == [0, 1, 255]
    with pytest.raises(InputError, match="32-bit integers"):
        decode_image(tiff(values.astype(np.int32)))
    with pytest.raises(InputError, match="expected 0 to 65535"):
        pil_to_tensor(Image.fromarray(np.array([[70000]], dtype=np.int32)), "grey")


def test_modes_without_a_scale_are_refused() -> None:
    """By name, instead of a traceback of the conversion."""
    with pytest.raises(InputError, match="of mode LAB"):
        pil_to_tensor(Image.new("LAB", (2, 2)), "rgb")


def test_grey_is_seen_whatever_the_mode() -> None:
    """Equal channels are grey; one coloured pixel is not."""
    image = Image.new("RGB", (4, 4), (9, 9, 9))
    assert is_grey(image)
    assert is_grey(image.convert("P"))
    assert is_grey(Image.new("L", (2, 2)))
    image.putpixel((3, 2), (9, 9, 10))
    assert not is_grey(image)


def test_what_is_no_image_is_named_alike_every_time() -> None:
    """The message holds no address in memory."""
    for content, message in (
        (b"", "it is empty"),
        (b"no image", "it is no image of a kind that can be read"),
    ):
        with pytest.raises(InputError) as caught:
            decode_image(content)
        assert str(caught.value) == message


def test_transparency_is_laid_on_white() -> None:
    """A transparent black pixel is white."""
    assert pil_to_tensor(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), "rgb").flatten().tolist() == [255] * 3


def test_resized_covers_and_crops_the_centre() -> None:
    """A wide image keeps its middle."""
    image = Image.new("RGB", (30, 10), "black")
    image.paste((255, 255, 255), (10, 0, 20, 10))
    fitted = resized(image, 10, 10, "nearest")
    assert fitted.size == (10, 10)
    assert np.asarray(fitted).min() == 255


def test_resizing_is_antialiased() -> None:
    """A fine checkerboard shrinks to grey, not to one of its colours."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(resized(Image.fromarray(board), 8, 8))
    assert abs(small.astype(int) - 127).max() <= 8


def test_images_go_round() -> None:
    """Tensor to image to tensor changes nothing."""
    images = torch.randint(256, (2, 3, 5, 4), dtype=torch.uint8)
    assert torch.equal(to_uint8([to_pil(image) for image in images], "rgb"), images)


def test_grid_shows_images_row_by_row() -> None:
    """Two columns of three images make two rows, enlarged by whole factors."""
    grid = image_grid(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), columns=2)
    assert grid.size[0] == grid.size[1]
    assert grid.size[0] >= 500


def test_refusals(tmp_path: Path) -> None:
    """What cannot be a batch, and what is no image, is said so."""
    with pytest.raises(InputError, match="different sizes"):
        to_uint8([RED, RED.resize((5, 5))], "rgb")
    with pytest.raises(InputError, match="float32"):
        to_uint8(torch.zeros(1, 3, 4, 4), "rgb")
    with pytest.raises(InputError, match="2 channels"):
        to_uint8(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), "rgb")
    with pytest.raises(InputError, match="different sizes"):
        to_uint8([torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 3, 3, dtype=torch.uint8)], "rgb")
    with pytest.raises(InputError, match="at least one"):
        to_uint8([], "rgb")
    for kind, named in ((7, "int"), (None, "NoneType"), ({"a": RED}, "dict")):
        with pytest.raises(InputError, match=f"images are of type {named}, expected a PIL image, a path"):
            to_uint8(kind, "rgb")  # type: ignore[arg-type]
    for kind, named in (([RED, 7], "int"), ([[RED]], "list"), (b"PNG", "int"), ([None], "NoneType")):
        with pytest.raises(InputError, match=f"one of the images is of type {named}, expected a PIL image"):
            to_uint8(kind, "rgb")
    with pytest.raises(InputError, match="is a folder, expected an image"):
        to_uint8(tmp_path, "rgb")
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(InputError, match=r"note\.png does not decode"):
        open_image(tmp_path / "note.png")
    with pytest.raises(InputError, match="does not exist"):
        open_image(tmp_path / "absent.png")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_and_the_unit_scale(dtype: torch.dtype) -> None:
    """All levels there and back; 0 and 255 are -1 and 1, beyond which values are cut off."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = to_unit(levels, dtype)
    assert values.dtype == dtype
    assert (values.min(), values.max()) == (-1, 1)
    assert torch.equal(to_levels(values), levels)
    assert to_levels(torch.tensor([-3.0, 1.2])).tolist() == [0, 255]
