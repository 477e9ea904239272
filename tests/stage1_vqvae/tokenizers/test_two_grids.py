"""VQ-VAE-2: two grids of codes, the bottom one given the top one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.models import open_tokenizer
from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.two_grids import joined, separated
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.autoencoders.table import AUTOENCODERS
from stage1_vqvae.evaluation import evaluate_tokenizer
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.quantizers.table import QUANTIZERS
from stage1_vqvae.tokenizers.two_grids import TwoGridBottleneck
from tests.stage1_vqvae.images import random_images as images

GRID = Grid(1, 20, 8, 12)  # of images 16×32: a top grid of 4×8, and a bottom grid of 8×16


def small(**settings: Any) -> VQVAE:
    parts: dict[str, Any] = {
        "factor": 2,
        "quantizer": VectorQuantizerConfig(codebook_size=12, code_width=8),
        "autoencoder": ConvolutionalConfig(width=16, blocks=1),
    }
    return VQVAE(VQVAEConfig(grids=2, top_width=16, top_blocks=1, **(parts | settings)))


def started(**settings: Any) -> VQVAE:
    model = small(**settings)
    model(images(model.channels))
    return model.eval()


def between(model: VQVAE) -> TwoGridBottleneck:
    assert isinstance(model.quantizer, TwoGridBottleneck)
    return model.quantizer


def test_shapes_and_the_way_back() -> None:
    """Two grids as one; their shapes go to and fro; decoding the codes is reconstructing."""
    model = started()
    symbols = model.encode(images())
    GRID.check(symbols)
    assert model.grid(1, 16, 32) == GRID
    assert model.image_shape(GRID) == (1, 16, 32)
    top, bottom = model.grids_of(symbols).values()
    assert (top.shape, bottom.shape) == ((4, 1, 4, 8), (4, 1, 8, 16))
    assert torch.equal(model.decode(symbols), model.reconstruct(images()).images)
    again = between(model).requantized(symbols)
    assert again is not None
    assert torch.equal(again, symbols)


def test_codes_do_not_depend_on_the_batch() -> None:
    model = started()
    together = model.encode(images())
    assert torch.equal(together, torch.cat([model.encode(image[None]) for image in images()]))
    assert torch.equal(together, model.encode(images()))


def test_saved_and_opened(tmp_path: Path) -> None:
    """The folder opens to the same codes, images and fingerprint, which every setting changes."""
    model = started()
    opened = open_tokenizer(model.save_pretrained(tmp_path / "model"))
    assert opened.fingerprint == model.fingerprint
    assert torch.equal(opened.encode(images()), model.encode(images()))
    assert torch.equal(opened.decode(model.encode(images())), model.decode(model.encode(images())))
    assert {"grids", "top_width", "top_blocks"} <= model.identity().keys()
    plain = VQVAE(VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1)))
    assert (
        not {"grids", "top_width", "top_blocks"} & plain.identity().keys()
    )  # as it was saved before there were two


def test_gradients_reach_everything() -> None:
    """Both encoders, the top decoder, and what upsamples, from the decoded image alone and from either grid's loss."""
    model = small(quantizer=VectorQuantizerConfig(codebook_size=12, code_width=8, commitment_weight=0))
    objective = LearnedTokenizerObjective(model)
    objective(Batch(images())).total.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum()
    ]
    assert without == []


def test_the_bottom_codes_are_given_the_top_ones() -> None:
    """Other top codes lead to other bottom codes of the same latents."""
    model = started()
    middle = between(model)
    with torch.no_grad():
        latents = model.encoder(images().float() / 127.5 - 1)
        before = separated(middle(latents).codes)
        for parameter in middle.top_decoder.parameters():
            parameter.mul_(-3)
        after = separated(middle(latents).codes)
    assert torch.equal(before.top, after.top)
    assert not torch.equal(before.bottom, after.bottom)


def test_codebooks_stay_in_float32_under_autocast() -> None:
    """Networks compute in bf16; what is quantized, and the codebooks, do not."""
    model = small()
    seen: list[torch.dtype] = []
    for quantizer in (between(model).top, between(model).bottom):
        real = quantizer.quantize

        def quantize(latents: Tensor, *, more_to_come: bool, real: Any = real) -> Any:
            seen.append(latents.dtype)
            return real(latents, more_to_come=more_to_come)

        quantizer.quantize = quantize  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction = model(images())
    assert seen == [torch.float32] * 2
    assert reconstruction.mean.dtype == torch.float32
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("autoencoder", AUTOENCODERS)
def test_every_quantizer_and_autoencoder_makes_two_grids(quantizer: str, autoencoder: str) -> None:
    """One training step and the codes after it; residual codes are two grids of several channels."""
    sizes: dict[str, Any] = {"vit": {"width": 16, "heads": 2, "blocks": 1}, "convolutional": {"width": 16}}
    sizes["attention"] = {"width": 32, "blocks": 1}
    parts = QUANTIZERS[quantizer](), AUTOENCODERS[autoencoder](**sizes[autoencoder])
    model = small(quantizer=parts[0], autoencoder=parts[1], factor=4)
    LearnedTokenizerObjective(model)(Batch(images())).total.backward()
    model.eval()
    symbols = model.encode(images())
    model.grid(1, 16, 32).check(symbols)
    assert model.decode(symbols).shape == (4, 1, 16, 32)


def test_usage_and_perplexity_of_each_grid() -> None:
    """As counted by hand; over both codebooks usage is the mean and perplexity the geometric mean."""
    model, data = started(), torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8)
    metrics = evaluate_tokenizer(model, tensor_split(data), (1, 8, 8), Accelerator(cpu=True), batch_size=4)
    entropies = []
    for name, codes in model.grids_of(model.encode(data)).items():
        counts = torch.bincount(codes.flatten(), minlength=12).double()
        entropies.append(float(torch.special.entr(counts / counts.sum()).sum()))
        assert metrics[f"{name}_codebook_perplexity"] == pytest.approx(math.exp(entropies[-1]))
        assert metrics[f"{name}_codebook_usage"] == (counts > 0).double().mean()
    assert metrics["codebook_perplexity"] == pytest.approx(math.exp(sum(entropies) / 2))
    usages = metrics["top_codebook_usage"], metrics["bottom_codebook_usage"]
    assert metrics["codebook_usage"] == pytest.approx(sum(usages) / 2)


def test_known_sites_are_those_whose_pixels_are_all_known() -> None:
    """Of either grid: a top site has 4×4 pixels, a bottom site 2×2."""
    known = torch.zeros(1, 1, 16, 32, dtype=torch.bool)
    known[..., :6, :10] = True
    top, bottom = separated(started().known_sites(known))
    assert top.nonzero()[:, 2:].tolist() == [[0, 0], [0, 1]]
    assert torch.equal(bottom[0, 0, :3, :5], torch.ones(3, 5, dtype=torch.bool))
    assert int(bottom.sum()) == 15


def test_refusals() -> None:
    """A size that two grids do not divide, codes of other grids, settings of two grids without them, an overflow."""
    model = started()
    with pytest.raises(InputError, match="18×16, which factor 4 of the top grid does not divide"):
        model.encode(images(1, 18, 16))
    with pytest.raises(InputError, match="is not two grids in one"):
        model.decode(torch.zeros(1, 1, 8, 8, dtype=torch.int64))
    with pytest.raises(InputError, match=r"lie in \[12, 12\]"):
        model.decode(torch.full((1, *GRID.shape), 12))
    with pytest.raises(InputError, match="has not been fitted"):
        small().eval().encode(images())
    for setting, said in (({"top_width": 16}, "--top-width is 16"), ({"top_blocks": 1}, "--top-blocks is 1")):
        with pytest.raises(InputError, match=f"{said}, which two grids alone have; add --grids 2"):
            VQVAEConfig(**setting)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in between(model).top_encoder.parameters():
            parameter.mul_(1e30)
    with pytest.raises(NonFiniteError, match="between the two grids are infinite or NaN"):
        model.encode(images())


def test_looked_up_codes_are_those_of_both_codebooks() -> None:
    """Changing one top code changes what the decoder gets near it alone; the bottom vectors stay."""
    model = started()
    symbols = model.encode(images())
    top, bottom = separated(symbols)
    other = top.clone()
    other[:, :, 0, 0] = (other[:, :, 0, 0] + 1) % 12
    with torch.no_grad():
        before, after = (between(model).lookup(joined(codes, bottom)) for codes in (top, other))
    width = between(model).top.code_width
    assert torch.equal(before[:, width:], after[:, width:])
    changed = (before[:, :width] != after[:, :width]).any(1)
    assert changed[:, :2, :2].all()
    assert not changed[:, 4:].any()
