"""The VQ-VAE as a model and as a tokenizer."""

from __future__ import annotations

import math

import pytest
import torch

from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae import VQVAE, VQVAEConfig
from stage1_vqvae.quantizers.vector import Quantizer


def images(channels: int = 1, height: int = 16, width: int = 32, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def small(**settings: object) -> VQVAE:
    settings = {"factor": 4, "codebook_size": 12, "code_width": 8, "width": 16, "blocks": 1, **settings}
    return VQVAE(VQVAEConfig(**settings))  # type: ignore[arg-type]


def started(channels: int = 1, **settings: object) -> VQVAE:
    model = small(channels=channels, **settings)
    model(images(channels))
    return model.eval()


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(factor: int, channels: int) -> None:
    """Codes are factor times smaller each way; decoding gives the image's shape back; no square is needed."""
    model = started(channels, factor=factor)
    symbols = model.encode(images(channels))
    grid = model.grid(channels, 16, 32)
    assert grid == Grid(1, 16 // factor, 32 // factor, 12)
    grid.check(symbols)
    assert model.decode(symbols).shape == (4, channels, 16, 32)
    assert model.decode(symbols).dtype == torch.uint8
    assert model.image_shape(grid) == (channels, 16, 32)
    assert isinstance(model, ImageTokenizer)


def test_decoding_codes_is_reconstructing() -> None:
    """The index → vector round trip loses nothing: decode(encode(x)) is forward(x)."""
    model = started()
    with torch.no_grad():
        reconstruction = model(images())
    assert torch.equal(model.encode(images())[:, 0], reconstruction.codes)
    assert torch.equal(model.decode(model.encode(images())), reconstruction.images)


def test_an_image_is_encoded_alone() -> None:
    """Codes do not depend on the other images of the batch."""
    model = started()
    together = model.encode(images())
    apart = torch.cat([model.encode(image[None]) for image in images()])
    assert torch.equal(together, apart)


def test_every_weight_is_trained() -> None:
    """Gradients reach the encoder through the codebook, and the codebook moves."""
    model = small()
    reconstruction = model(images())
    before = model.quantizer.codebook.codebook.clone()
    (reconstruction.mean.square().mean() + reconstruction.commitment_loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    model(images().flip(2))
    assert not torch.equal(before, model.quantizer.codebook.codebook)


def test_evaluation_leaves_the_codebook_alone() -> None:
    """Encoding a test set teaches nothing."""
    model = started()
    before = model.fingerprint
    model(images().flip(0))
    assert model.fingerprint == before


def test_dead_codes_are_renewed() -> None:
    """A code that nothing is near is replaced by a latent of the batch."""
    quantizer = Quantizer(
        width=2, codebook_size=4, decay=0.5, commitment_weight=0.25, dead_code_threshold=1.0
    )
    latents = torch.randn(8, 2, 4, 4)
    quantizer(latents)
    quantizer.codebook._codebook.embed.data[0, 0] = 1000.0
    for _ in range(20):
        quantizer(latents)
    assert quantizer.codebook.codebook.abs().max() < 10
    assert len(quantizer(latents).codes.unique()) == 4


def test_commitment_loss_is_weighted_squared_distance() -> None:
    """β times the mean squared distance of latents to their codes."""
    quantizer = Quantizer(width=2, codebook_size=4, decay=0.9, commitment_weight=0.5, dead_code_threshold=0)
    latents = torch.randn(8, 2, 4, 4)
    quantizer(latents)
    result = quantizer(latents)
    # The loss is taken to the codebook as it was looked up; latents pass the straight-through estimate unchanged.
    assert result.commitment_loss.item() == pytest.approx(
        0.5 * (result.latents - latents).square().mean().item(), rel=1e-5
    )


def test_bf16_autocast_changes_no_codes_of_the_codebook() -> None:
    """The quantizer works in float32 inside autocast."""
    quantizer = Quantizer(width=8, codebook_size=32, decay=0.9, commitment_weight=0.5, dead_code_threshold=0)
    latents = torch.randn(8, 8, 4, 4)
    quantizer(latents)
    quantizer.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer(latents).codes
    assert torch.equal(inside, quantizer(latents).codes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_codebook_learns_in_float32(dtype: torch.dtype) -> None:
    """K-means start, distances, moving averages and renewal of dead codes are the same inside autocast, bit for bit."""
    quantizers = []
    for enabled in (False, True):
        torch.manual_seed(0)
        quantizer = Quantizer(
            width=8, codebook_size=24, decay=0.8, commitment_weight=0.5, dead_code_threshold=1
        )
        for _ in range(4):
            latents = torch.randn(4, 8, 4, 4).to(dtype)
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                result = quantizer(latents)
            assert result.latents.dtype == result.commitment_loss.dtype == torch.float32
        quantizers.append({**quantizer.state_dict(), "codes": result.codes})
    for name, value in quantizers[0].items():
        assert value.dtype != dtype
        assert torch.equal(value, quantizers[1][name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_likelihood_is_computed_in_float32(dtype: torch.dtype) -> None:
    """Inside autocast too: the convolutions give half precision, the reconstruction and its nats do not."""
    model = started(likelihood="logistic")
    with torch.autocast("cpu", dtype=dtype):
        reconstruction = model(images())
        nats = model.reconstruction_nats(images(), reconstruction)
    assert reconstruction.log_scale is not None
    assert reconstruction.mean.dtype == reconstruction.log_scale.dtype == nats.dtype == torch.float32
    assert torch.equal(nats, model.reconstruction_nats(images(), reconstruction))


def test_logistic_likelihood_is_a_distribution() -> None:
    """A subpixel's probabilities over all 256 values sum to 1 under the decoder's own parameters."""
    model = started(likelihood="logistic").double()
    with torch.no_grad():
        reconstruction = model(images(count=1))
        every = torch.arange(256, dtype=torch.uint8)
        base = images(count=1)
        probabilities = []
        for value in every:
            changed = base.clone()
            changed[0, 0, 3, 5] = value
            probabilities.append(model.reconstruction_nats(changed, reconstruction))
    relative = torch.cat(probabilities)
    others = model.reconstruction_nats(base, reconstruction) - relative[int(base[0, 0, 3, 5])]
    assert others.item() == 0
    log_sum = torch.logsumexp(-relative, 0).item()
    # What remains is the probability of all the other subpixels, which did not change.
    from rasterwise.symbols.likelihoods import discretized_logistic_log_prob

    assert reconstruction.log_scale is not None
    nats = discretized_logistic_log_prob(reconstruction.mean, reconstruction.log_scale, base.long(), 256)
    rest = (nats.sum() - nats[0, 0, 3, 5]).item()
    assert log_sum == pytest.approx(rest, abs=1e-9)


def test_elbo_needs_the_likelihood() -> None:
    """Squared error gives no nats."""
    model = started()
    with pytest.raises(InputError, match="--likelihood logistic"):
        model.reconstruction_nats(images(), model(images()))


def test_refusals() -> None:
    """A size that the factor does not divide, other channels, an unfitted codebook, impossible settings."""
    model = started()
    with pytest.raises(InputError, match="factor 4 does not divide"):
        model.encode(images(1, 18, 16))
    with pytest.raises(InputError, match="3 channels"):
        model.encode(images(3))
    with pytest.raises(InputError, match="has not been fitted"):
        small().eval().encode(images())
    for setting, name in (
        ({"factor": 3}, "factor"),
        ({"codebook_size": 1}, "codebook_size"),
        ({"width": 20}, "width"),
    ):
        with pytest.raises(InputError, match=name):
            small(**setting)


def test_a_nan_does_not_reach_the_codebook() -> None:
    """It is refused before the codebook learns from it."""
    model = small()
    model(images())
    before = model.quantizer.codebook.codebook.clone()
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="latents"):
        model(images())
    assert torch.equal(before, model.quantizer.codebook.codebook)
