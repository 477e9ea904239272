"""Pictures come back as they were, in files of the size that the model states; what cannot come back is named."""

from __future__ import annotations

import dataclasses
import io
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rasterwise.compression.codec as codec_module
import rasterwise.compression.sections as sections_module
from rasterwise import (
    AnyOrderPrior,
    AnyOrderPriorConfig,
    AutoregressiveModel,
    DiagonalBiLSTM,
    DiagonalBiLSTMConfig,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    Grid,
    HierarchicalPrior,
    HierarchicalPriorConfig,
    ImageGPT,
    ImageGPTConfig,
    ImagePipeline,
    InputError,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNPP,
    PixelCNNPPConfig,
    PixelTokenizer,
    PixelTokenizerConfig,
    RowLSTM,
    RowLSTMConfig,
    TransformerPrior,
    TransformerPriorConfig,
)
from rasterwise.compression.codec import Codec
from rasterwise.compression.container import Container
from rasterwise.compression.sections import UNDECODED
from rasterwise.compression.streams import StreamDecoder, StreamEncoder, grids_per_stream
from tests.autoregressive_suite import randomized

RGB = Grid(3, 5, 4, 256)
MODELS: dict[type[AutoregressiveModel], Any] = {
    PixelCNN: PixelCNNConfig(grid=RGB, width=12, output_width=12, blocks=1),
    GatedPixelCNN: GatedPixelCNNConfig(grid=RGB, width=12, output_width=12, depth=2),
    PixelCNNPP: PixelCNNPPConfig(grid=RGB, width=8, blocks=1, components=2),
    RowLSTM: RowLSTMConfig(grid=RGB, width=12, output_width=12, depth=1),
    DiagonalBiLSTM: DiagonalBiLSTMConfig(grid=RGB, width=12, output_width=12, depth=1),
    ImageGPT: ImageGPTConfig(grid=RGB, width=16, heads=2, depth=1),
    TransformerPrior: TransformerPriorConfig(grid=RGB, width=16, heads=2, depth=1),
    AnyOrderPrior: AnyOrderPriorConfig(grid=RGB, width=16, heads=2, depth=2),
    HierarchicalPrior: HierarchicalPriorConfig(
        grid=RGB, width=16, heads=2, depth=1, top_depth=1, encoder_depth=1
    ),
}
ANY_SIZE = (PixelCNN, GatedPixelCNN, PixelCNNPP)


def built(model_class: type[AutoregressiveModel], scale: float = 0.3) -> AutoregressiveModel:
    return randomized(model_class(MODELS[model_class]), scale).float()


def codec_of(model_class: type[AutoregressiveModel] = PixelCNN, **changes: Any) -> Codec:
    config = dataclasses.replace(MODELS[model_class], **changes)
    return Codec(PixelTokenizer(), randomized(model_class(config)).float())


def noise(count: int, height: int = 5, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def as_tensor(image: Image.Image | None) -> Tensor:
    assert image is not None
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())


@pytest.mark.parametrize("model_class", MODELS, ids=lambda one: one.__name__)
def test_every_family_comes_back_at_its_stated_size(model_class: type[AutoregressiveModel]) -> None:
    """Bit for bit, alone and in batches; at most 0.5 % and 64 bytes above −log2 p."""
    pipeline, images = ImagePipeline(PixelTokenizer(), built(model_class)), noise(8)
    stated = -pipeline.log_prob(images).sum().item() / math.log(2) / 8
    for batch_size in (1, 64):
        found = pipeline.compress(images, batch_size=batch_size)
        assert found.lossless
        assert not found.png
        assert torch.equal(
            torch.stack([as_tensor(one) for one in pipeline.decompress(found.content)]), images
        )
        assert found.model_bits / 8 == pytest.approx(stated, rel=1e-4)
        assert found.model_bytes <= stated * 1.005 + 4
        assert len(found.content) <= stated * 1.005 + 64


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_many_small_pictures_take_what_they_are_stated_to_take(batch_size: int) -> None:
    """Pictures of a few bytes share streams, across batches: the whole file is 0.5 % and 64 bytes above −log2 p."""
    model = randomized(
        PixelCNN(PixelCNNConfig(grid=Grid(1, 8, 8, 256), width=8, output_width=8, blocks=1)), 0.5
    )
    pipeline = ImagePipeline(PixelTokenizer(), model.float())
    drawn = pipeline.model.sample(300, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = pipeline.compress(drawn, batch_size=batch_size, check=False)
    stated = -pipeline.log_prob(drawn).sum().item() / math.log(2) / 8
    assert stated / len(drawn) < 60
    assert len(found.content) <= stated * 1.005 + 64
    restored = [torch.from_numpy(np.array(one)) for one in pipeline.decompress(found.content)]
    assert torch.equal(torch.stack(restored), drawn[:, 0])


@pytest.mark.parametrize(("batches", "together"), [((3, 2), 2), ((1, 1, 3), 5), ((4,), 1), ((2, 5), 4)])
def test_streams_go_on_across_batches(batches: tuple[int, ...], together: int) -> None:
    """Every stream comes back on its own, where the others are not asked for too."""
    model = built(PixelCNN)
    grids = [noise(count, seed=count).long() for count in batches]
    encoder = StreamEncoder(model, together)
    for one in grids:
        encoder.encode(one)
    streams: list[bytes | None] = list(encoder.streams())
    assert len(streams) == -(-sum(batches) // together)
    for asked in (range(len(streams)), [len(streams) - 1]):
        decoder = StreamDecoder(
            model, [one if place in asked else None for place, one in enumerate(streams)], together
        )
        back = torch.cat([decoder.decode(count) for count in batches])
        for place in asked:
            rows = slice(place * together, (place + 1) * together)
            assert torch.equal(back[rows], torch.cat(grids)[rows])


def test_large_pictures_have_streams_of_their_own() -> None:
    """What is damaged costs one picture of 16 kB, and 21 of MNIST's."""
    assert grids_per_stream(Grid(3, 74, 74, 256)) == 1
    assert grids_per_stream(Grid(1, 28, 28, 256)) == 21


def test_likely_pictures_cost_little() -> None:
    """What the model draws itself takes fewer bits than noise."""
    model = built(PixelCNN, 1.0)
    drawn = model.sample(8, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    codec = Codec(PixelTokenizer(), model)
    assert codec.compress(drawn).model_bits < 0.8 * codec.compress(noise(8)).model_bits


@pytest.mark.parametrize("model_class", ANY_SIZE, ids=lambda one: one.__name__)
def test_any_size_and_aspect(model_class: type[AutoregressiveModel]) -> None:
    """Sizes are mixed, and pictures come back in their order."""
    codec = codec_of(model_class)
    images = [
        noise(1, height, width)[0] for height, width in ((5, 4), (9, 2), (3, 11), (5, 4), (9, 2), (3, 3))
    ]
    found = codec.compress(images, batch_size=2)
    assert not found.png
    restored = codec.decompress(found.content).images
    assert all(torch.equal(as_tensor(one), image) for one, image in zip(restored, images, strict=True))


def test_another_size_is_png_where_the_model_has_one_size() -> None:
    """And is counted, with the reason."""
    codec = codec_of(TransformerPrior)
    found = codec.compress([noise(1)[0], noise(1, 6, 6)[0]])
    assert found.png == {"another size than 4×5": 1}
    assert torch.equal(as_tensor(codec.decompress(found.content).images[1]), noise(1, 6, 6)[0])


def test_what_the_model_has_no_pixels_for_is_png() -> None:
    """Transparency, 16 bits, a transparent colour of a palette: as they were, in their order."""
    rgb = Image.fromarray(noise(1)[0].permute(1, 2, 0).numpy())
    deep = Image.fromarray(np.arange(20, dtype=np.uint16).reshape(5, 4) * 3000)
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(np.arange(20, dtype=np.uint8).reshape(5, 4)))
    palette = rgb.quantize(4)
    keyed = palette.copy()
    keyed.info["transparency"] = 1
    given = [alpha, rgb, deep, keyed, palette]
    codec = codec_of()
    found = codec.compress(given)
    assert found.png == {"transparency": 2, "more than 8 bits": 1}
    restored = codec.decompress(found.content).images
    for image, again in zip(given, restored, strict=True):
        assert again is not None
        if image.mode == "P":
            image, again = image.convert("RGBA"), again.convert("RGBA")
        assert again.mode == image.mode
        assert np.array_equal(np.asarray(again), np.asarray(image))


def test_what_nothing_holds_is_refused(tmp_path: Any) -> None:
    """Four inks, and an animation: one line."""
    with pytest.raises(InputError, match="mode CMYK"):
        codec_of().compress(Image.new("CMYK", (4, 5)))
    frames = [Image.new("L", (4, 5), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        codec_of().compress(tmp_path / "moving.gif")
    with pytest.raises(InputError, match="no images"):
        codec_of().compress([])


def test_a_lossy_tokenizer_says_so() -> None:
    """With fewer levels, what comes back is what the tokenizer keeps."""
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=4))
    config = dataclasses.replace(MODELS[PixelCNN], grid=Grid(3, 5, 4, 4))
    codec = Codec(tokenizer, randomized(PixelCNN(config)).float())
    found = codec.compress(noise(2))
    assert not found.lossless
    kept = tokenizer.decode(tokenizer.encode(noise(2)))
    assert torch.equal(torch.stack([as_tensor(one) for one in codec.decompress(found.content).images]), kept)


@pytest.fixture
def own_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pictures have streams of their own, as large ones do."""
    monkeypatch.setattr(sections_module, "grids_per_stream", lambda grid: 1)


class WithOneWrong(StreamDecoder):
    """Decodes the second grid of a batch to another one."""

    def decode(self, batch_size: int) -> Tensor:
        symbols = super().decode(batch_size)
        symbols[1, 0, 0, 0] += 1
        return symbols


@pytest.mark.parametrize(("together", "lost"), [(1, 1), (2, 2), (64, 3)])
def test_what_would_not_decode_is_png(monkeypatch: pytest.MonkeyPatch, together: int, lost: int) -> None:
    """All of its stream; it stays rows of its batch, and the others are what they were."""
    codec = codec_of()
    monkeypatch.setattr(sections_module, "grids_per_stream", lambda grid: together)
    with monkeypatch.context() as patched:
        patched.setattr(sections_module, "StreamDecoder", WithOneWrong)
        found = codec.compress(noise(3))
    assert found.png == {UNDECODED: lost}
    restored = codec.decompress(found.content)
    assert torch.equal(torch.stack([as_tensor(one) for one in restored.images]), noise(3))


@pytest.mark.usefixtures("own_streams")
def test_damage_is_named_and_the_others_decode() -> None:
    """A flipped byte of one picture, and a file that is cut in its last one."""
    codec = codec_of()
    content = codec.compress(noise(4)).content
    sizes = [len(one.content) for one in Container.from_bytes(content).sections[0].streams]
    flipped = bytearray(content)
    flipped[len(content) - sizes[3] - sizes[2] + 1] ^= 4
    for damaged, place, said in ((bytes(flipped), 2, "checksum"), (content[:-5], 3, "ends before")):
        found = codec.decompress(damaged)
        assert list(found.damaged) == [place]
        assert said in found.damaged[place]
        assert [image is None for image in found.images] == [row == place for row in range(4)]
        assert torch.equal(as_tensor(found.images[0]), noise(4)[0])
    with pytest.raises(InputError, match="1 of 4 images are damaged, the first of them image 2"):
        ImagePipeline(codec.tokenizer, codec.model).decompress(bytes(flipped))


@pytest.mark.usefixtures("own_streams")
def test_a_damaged_file_is_never_anything_but_refused_or_found() -> None:
    """Bytes anywhere: every picture is right, or named as damaged, or the file is refused in one line."""
    codec, rng = codec_of(blocks=1, width=6, output_width=6), random.Random(0)
    images = noise(2)
    content = codec.compress(images, names=["a", "b"]).content
    for _ in range(40):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        part = bytes(damaged) if rng.random() < 0.7 else content[: rng.randrange(len(content))]
        try:
            found = codec.decompress(part)
        except InputError:
            continue
        assert found.damaged
        for place, image in enumerate(found.images):
            assert (image is None) == (place in found.damaged)
            assert image is None or torch.equal(as_tensor(image), images[place])


def test_the_wrong_model_tokenizer_format_and_file_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in one line; another version decodes where its arithmetic is the same, and is named where it is not."""
    codec = codec_of()
    content = codec.compress(noise(2)).content
    other = Codec(codec.tokenizer, built(PixelCNN, 0.2))
    with pytest.raises(InputError, match=r"with model [0-9a-f]{8}…, and this one is"):
        other.decompress(content)
    same = Codec(PixelTokenizer(PixelTokenizerConfig(levels=256)), codec.model)
    assert not same.decompress(content).damaged
    monkeypatch.setattr(PixelTokenizer, "fingerprint", "0123456789abcdef")
    with pytest.raises(InputError, match=r"with tokenizer [0-9a-f]{8}…, and this one is 01234567…"):
        codec.decompress(content)
    monkeypatch.undo()
    with pytest.raises(InputError, match="version 9, expected 2"):
        codec.decompress(content[:3] + b"\x09" + content[4:])
    for wrong in (b"", b"PNG?", content[:20]):
        with pytest.raises(InputError):
            codec.decompress(wrong)
    here = codec_module.environment_here(codec.model.device)
    elsewhere = dataclasses.replace(here, torch="1.0", processor="AVX9 Zilog 80")
    monkeypatch.setattr(codec_module, "environment_here", lambda device: elsewhere)
    found = codec.decompress(content)
    assert (
        found.differences == f"torch {here.torch}, here 1.0, processor {here.processor}, here AVX9 Zilog 80"
    )
    assert not found.damaged
    monkeypatch.setattr(sections_module, "StreamDecoder", WithOneWrong)
    with pytest.raises(InputError, match=r"none of its pictures decodes here.*Zilog"):
        codec.decompress(content)


def test_threads_are_those_of_the_file() -> None:
    """Whatever the process computes with, which it goes on to do."""
    codec, before = codec_of(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        content = codec.compress(noise(1)).content
        torch.set_num_threads(1)
        seen = []
        found = codec.decompress(content, progress=lambda done, total: seen.append(torch.get_num_threads()))
        assert (seen, torch.get_num_threads()) == ([2], 1)
        assert not found.damaged
    finally:
        torch.set_num_threads(before)


def test_a_model_that_is_no_distribution_loses_nothing() -> None:
    """Logits that are NaN cost log2 K bits a symbol."""
    codec = codec_of()
    with torch.no_grad():
        next(codec.model.parameters()).fill_(torch.nan)
    found = codec.compress(noise(2))
    assert found.model_bits == pytest.approx(2 * RGB.size * 8)
    assert torch.equal(as_tensor(codec.decompress(found.content).images[1]), noise(2)[1])


def test_arrays_and_grey_pictures() -> None:
    """Arrays have their channels last; a grey picture comes back from an RGB model with three equal channels."""
    codec = codec_of()
    grey = Image.fromarray(noise(1)[0, 0].numpy())
    for given in (noise(2).permute(0, 2, 3, 1).numpy(), grey):
        restored = codec.decompress(codec.compress(given).content).images
        expected = given if isinstance(given, np.ndarray) else np.asarray(given.convert("RGB"))[None]
        assert all(
            np.array_equal(np.asarray(one), wanted) for one, wanted in zip(restored, expected, strict=True)
        )


def test_png_files_are_checked_too() -> None:
    """A flipped byte in one is found."""
    codec, file = codec_of(), io.BytesIO()
    Image.new("RGBA", (4, 5), "red").save(file, format="PNG")
    content = bytearray(codec.compress(Image.open(io.BytesIO(file.getvalue()))).content)
    content[-20] ^= 1
    assert list(codec.decompress(bytes(content)).damaged) == [0]
