"""Tokenizer and model as one object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import ImagePipeline
from rasterwise.codes.encode import encode_dataset
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from stage1_vqvae import VQVAE, ConvolutionalConfig, ResidualQuantizerConfig, VQVAEConfig
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.conftest import Chain


@pytest.fixture(scope="module")
def pipeline(chain: Chain) -> ImagePipeline:
    return ImagePipeline.from_pretrained(chain.prior)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return next(open_images(DataConfig()).test.ordered(6)).values


def test_images_in_every_form(pipeline: ImagePipeline, digits: torch.Tensor, tmp_path: Path) -> None:
    """Tensors, arrays, PIL images and files give the same codes; PIL images and files of other sizes are fitted."""
    expected = pipeline.encode(digits)
    pil_images = [Image.fromarray(image[0].numpy()) for image in digits]
    for index, image in enumerate(pil_images):
        image.save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.iterdir())
    for form in (
        pil_images,
        paths,
        [str(path) for path in paths],
        digits.numpy(),
        digits.movedim(1, 3).numpy(),
        [pil_image.convert("RGB") for pil_image in pil_images],
    ):
        assert torch.equal(pipeline.encode(form), expected)
    assert pipeline.encode(pil_images[0]).shape == (1, 1, 4, 4)
    assert pipeline.encode(Image.new("RGB", (300, 200))).shape == (1, 1, 4, 4)
    assert torch.equal(pipeline.encode(paths[0]), expected[:1])
    assert torch.equal(
        pipeline.reconstruct(str(paths[0]), "tensor"), pipeline.reconstruct(digits[:1], "tensor")
    )
    kept = torch.ones(8, 8, dtype=torch.bool)
    assert torch.equal(pipeline.complete(paths, kept, output="tensor"), digits)


def test_images_out_in_every_form(pipeline: ImagePipeline) -> None:
    """The same images as PIL, tensor and array."""
    tensor = pipeline.sample(3, seed=1, output="tensor")
    array = pipeline.sample(3, seed=1, output="numpy")
    pil_images = pipeline.sample(3, seed=1)
    assert tensor.shape == (3, 1, 8, 8)
    assert array.shape == (3, 8, 8, 1)
    assert np.array_equal(array[..., 0], tensor[:, 0].numpy())
    assert all(
        np.array_equal(np.asarray(pil_image), image)
        for pil_image, image in zip(pil_images, tensor[:, 0], strict=True)
    )


def test_sample_is_codes_decoded(pipeline: ImagePipeline) -> None:
    """Decoding of the codes with the seed's noise, then the tokenizer's decoder."""
    condition = Condition(torch.tensor([3, 3]))
    codes = pipeline.model.sample(2, condition, generator=torch.Generator().manual_seed(4))
    expected = pipeline.tokenizer.decode(codes)
    assert torch.equal(pipeline.sample(2, 3, seed=4, output="tensor"), expected)
    assert torch.equal(pipeline.sample(2, "3", seed=4, output="tensor"), expected)
    assert torch.equal(pipeline.sample(2, ["3", 3], seed=4, output="tensor"), expected)
    for label in (
        np.int64(3),
        np.uint8(3),
        np.array(3),
        np.array([3, 3]),
        [np.int32(3), 3],
        torch.tensor([3, 3]),
    ):
        assert torch.equal(pipeline.sample(2, label, seed=4, output="tensor"), expected)


def test_seeds(pipeline: ImagePipeline) -> None:
    """A seed repeats; no seed is a new one each time; batching changes nothing."""
    assert torch.equal(
        pipeline.sample(5, seed=1, output="tensor"), pipeline.sample(5, seed=1, batch_size=2, output="tensor")
    )
    assert not torch.equal(pipeline.sample(5, output="tensor"), pipeline.sample(5, output="tensor"))


def test_parallel_sampling_gives_the_same_images(pipeline: ImagePipeline, digits: torch.Tensor) -> None:
    """Drawn and completed; what they took comes with the symbols, and is None of sequential decoding."""
    sampling = Sampling(temperature=0.9, guidance=1.5)
    arguments = {"labels": "3", "sampling": sampling, "seed": 1, "batch_size": 4, "output": "tensor"}
    assert torch.equal(pipeline.sample(6, parallel=True, **arguments), pipeline.sample(6, **arguments))
    keep = torch.arange(8)[:, None].expand(8, 8) < 4
    assert torch.equal(
        pipeline.complete(digits, keep, parallel=True, **arguments),
        pipeline.complete(digits, keep, **arguments),
    )
    drawn = pipeline.sample_symbols(6, seed=1, parallel=True)
    assert drawn.evaluations is not None
    assert drawn.evaluations.shape == (6,)
    assert pipeline.sample_symbols(6, seed=1).evaluations is None


@dataclass(frozen=True)
class OneOf:
    """One of several processes, of which the others are not there: it gathers its own part alone."""

    process_index: int
    num_processes: int

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        return part


@pytest.mark.parametrize(("n", "processes"), [(6, 2), (5, 2), (2, 3)])
@pytest.mark.parametrize("parallel", [False, True])
def test_processes_draw_their_parts(pipeline: ImagePipeline, n: int, processes: int, parallel: bool) -> None:
    """Parts of one size, in order, and together what one process draws; images beyond the n are dropped."""
    labels = [number % 10 for number in range(n)]
    parts = []
    for index in range(processes):
        done: list[float] = []
        drawn = pipeline.sample_symbols(
            n, labels, seed=1, parallel=parallel, accelerator=OneOf(index, processes),  # type: ignore[arg-type]
            progress=lambda images, total, done=done: done.append(images / total),  # type: ignore[misc]
        )  # fmt: skip
        assert done[-1] == 1
        parts.append(drawn.symbols)
    assert {len(part) for part in parts} == {-(-n // processes)}
    assert torch.equal(torch.cat(parts)[:n], pipeline.sample_symbols(n, labels, seed=1).symbols)


def test_processes_need_one_seed(pipeline: ImagePipeline) -> None:
    """Else each would draw from noise of its own."""
    with pytest.raises(InputError, match="need one seed"):
        pipeline.sample(2, accelerator=OneOf(0, 2))  # type: ignore[arg-type]


def test_reconstruct_and_log_prob(pipeline: ImagePipeline, digits: torch.Tensor) -> None:
    """Both go through the tokenizer's codes."""
    codes = pipeline.tokenizer.encode(digits)
    assert torch.equal(pipeline.reconstruct(digits, "tensor"), pipeline.tokenizer.decode(codes))
    labels = [1, 2, 3, 4, 5, 6]
    with torch.no_grad():
        expected = pipeline.model.log_prob(codes, Condition(torch.tensor(labels)))
    torch.testing.assert_close(pipeline.log_prob(digits, labels), expected)
    assert not torch.equal(pipeline.log_prob(digits), expected)


def test_a_pipeline_in_training_mode(chain: Chain, digits: torch.Tensor) -> None:
    """Is scored, encoded and sampled without dropout, call after call alike, and stays in training mode."""
    tokenizer = VQVAE.from_pretrained(chain.vqvae)
    grid = tokenizer.grid(*digits.shape[1:])
    model = TransformerPrior(TransformerPriorConfig(grid=grid, depth=1, width=16, heads=2, dropout=0.5))
    pipeline = ImagePipeline(tokenizer, model.eval())
    expected = pipeline.log_prob(digits), pipeline.sample(2, seed=0, output="tensor")
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.train()
    model.train()
    for _ in range(2):
        assert torch.equal(pipeline.log_prob(digits), expected[0])
        assert torch.equal(pipeline.sample(2, seed=0, output="tensor"), expected[1])
    assert tokenizer.training
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in tokenizer.state_dict().items())


def test_complete_keeps_what_it_should(pipeline: ImagePipeline, digits: torch.Tensor) -> None:
    """Kept pixels stay; a code is kept only if all its pixels are; the rest is drawn."""
    keep = torch.zeros(8, 8, dtype=torch.bool)
    keep[:5] = True  # two rows of codes, and half of the third
    completed = pipeline.complete(digits, keep, seed=0, output="tensor")
    assert torch.equal(completed[:, :, :5], digits[:, :, :5])
    assert not torch.equal(completed[:, :, 5:], digits[:, :, 5:])
    codes = pipeline.encode(digits)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    drawn = pipeline.model.sample(6, known=codes, mask=mask, generator=torch.Generator().manual_seed(0))
    expected = pipeline.decode(drawn, "tensor")
    assert torch.equal(pipeline.complete(digits, keep, seed=0, paste=False, output="tensor"), expected)
    assert torch.equal(
        pipeline.complete(digits, ~torch.zeros(8, 8, dtype=torch.bool), output="tensor"), digits
    )


def test_saved_as_one_folder(pipeline: ImagePipeline, digits: torch.Tensor, tmp_path: Path) -> None:
    """Both stages come back from one folder and give the same."""
    loaded = ImagePipeline.from_pretrained(pipeline.save_pretrained(tmp_path / "pipeline"))
    assert torch.equal(loaded.log_prob(digits), pipeline.log_prob(digits))
    assert torch.equal(loaded.sample(2, seed=0, output="tensor"), pipeline.sample(2, seed=0, output="tensor"))
    assert {path.name for path in (tmp_path / "pipeline").iterdir()} == {"README.md", "model", "tokenizer"}


def test_any_model_stands_on_any_tokenizer() -> None:
    """A transformer over binary pixels is a pipeline too, and its likelihood is the image's own."""
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=2))
    model = TransformerPrior(TransformerPriorConfig(grid=Grid(1, 4, 4, 2), depth=1, width=16, heads=2)).eval()
    pipeline = ImagePipeline(tokenizer, model)
    assert pipeline.image_shape == (1, 4, 4)
    assert set(pipeline.sample(4, seed=0, output="tensor").unique().tolist()) <= {0, 255}


def test_a_prior_refuses_another_tokenizer(chain: Chain) -> None:
    """By fingerprint: one weight is enough."""
    tokenizer = VQVAE.from_pretrained(chain.vqvae)
    model = TransformerPrior.from_pretrained(chain.prior)
    ImagePipeline(tokenizer, model)
    with torch.no_grad():
        next(tokenizer.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(InputError, match="trained on the symbols of tokenizer"):
        ImagePipeline(tokenizer, model)


def test_refusals(pipeline: ImagePipeline, digits: torch.Tensor, tmp_path: Path, chain: Chain) -> None:
    """Labels, sizes, masks, temperatures and folders that do not fit."""
    with pytest.raises(InputError, match="label 10 is out of range, expected 0 to 9"):
        pipeline.sample(1, 10)
    with pytest.raises(InputError, match="label 'cat' is out of range"):
        pipeline.sample(1, "cat")
    for label in (np.int64(10), 10.0, -1, True, None):
        with pytest.raises(InputError, match="is out of range, expected 0 to 9"):
            pipeline.sample(1, [label])
    with pytest.raises(InputError, match="label 10 is out of range"):
        pipeline.sample(1, np.int64(10))
    with pytest.raises(InputError, match="images are of type int, expected a PIL image, a path"):
        pipeline.encode(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"absent\.png does not exist"):
        pipeline.encode("absent.png")
    keep = torch.ones(8, 8, dtype=torch.bool)
    for draw in (
        lambda: pipeline.sample(1, output="jpeg"),  # type: ignore[arg-type]
        lambda: pipeline.decode(pipeline.encode(digits), "jpeg"),  # type: ignore[arg-type]
        lambda: pipeline.reconstruct(digits, "jpeg"),  # type: ignore[arg-type]
        lambda: pipeline.complete(digits, keep, output="jpeg"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="output is 'jpeg', expected one of pil, tensor, numpy"):
            draw()
    with pytest.raises(InputError, match="2 labels for 3 images"):
        pipeline.sample(3, [1, 2])
    with pytest.raises(InputError, match="this model's are 8×8"):
        pipeline.encode(torch.zeros(1, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"expected bool \(8, 8\)"):
        pipeline.complete(digits, torch.ones(8, 8))
    with pytest.raises(InputError, match=r"torch.bool \(8, 7\), expected bool \(8, 8\)"):
        pipeline.complete(digits, torch.ones(8, 7, dtype=torch.bool))
    with pytest.raises(InputError, match="guidance"):
        pipeline.sample(1, sampling=Sampling(guidance=2.0))
    with pytest.raises(InputError, match="at least 1"):
        pipeline.sample(0)
    with pytest.raises(InputError, match="holds no tokenizer/"):
        ImagePipeline.from_pretrained(chain.vqvae)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="holds no pipeline"):
        pipeline.save_pretrained(tmp_path)


def test_several_codes_a_site(digits: torch.Tensor, tmp_path: Path) -> None:
    """Residual codes are a grid of as many channels: encoded to a folder, modelled, drawn, completed and decoded."""
    quantizer = ResidualQuantizerConfig(codebook_size=8, code_width=4, depth=3)
    tokenizer = VQVAE(
        VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1), quantizer=quantizer)
    )
    tokenizer(digits)
    tokenizer.eval()
    images = dataclasses.replace(
        open_images(DataConfig()), train=tensor_split(digits), test=tensor_split(digits), classes=()
    )
    codes = encode_dataset(tokenizer, images, tmp_path)
    assert codes.key.grid == Grid(3, 4, 4, 8)
    assert torch.equal(next(codes.test.ordered(6)).values, tokenizer.encode(digits))
    config = TransformerPriorConfig(grid=codes.key.grid, width=16, heads=2, depth=1)
    pipeline = ImagePipeline(tokenizer, TransformerPrior(config).eval())
    assert pipeline.log_prob(digits).shape == (6,)
    assert pipeline.sample(2, seed=0, output="tensor").shape == (2, 1, 8, 8)
    keep = torch.zeros(8, 8, dtype=torch.bool)
    keep[:4] = True
    symbols = pipeline.encode(digits)
    completed = pipeline.sample_symbols(
        6, known=symbols, mask=keep[::2, ::2].expand(6, 3, 4, 4), seed=0
    ).symbols
    assert torch.equal(completed[:, :, :2], symbols[:, :, :2])
    assert pipeline.complete(digits, keep, seed=0, output="tensor").shape == digits.shape
    with pytest.raises(InputError, match="gives grids of 3×4×4"):
        ImagePipeline(tokenizer, TransformerPrior(dataclasses.replace(config, grid=Grid(2, 4, 4, 8))))
