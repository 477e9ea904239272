"""The VQ-VAE as a model and as a tokenizer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae import VQVAE, ConvolutionalConfig, FSQConfig, VectorQuantizerConfig, VQVAEConfig
from tests.stage1_vqvae.images import random_images as images


def small(**settings: object) -> VQVAE:
    quantizer = VectorQuantizerConfig(codebook_size=12, code_width=8)
    autoencoder = ConvolutionalConfig(width=settings.pop("width", 16), blocks=1)  # type: ignore[arg-type]
    settings = {"factor": 4, "autoencoder": autoencoder, "quantizer": quantizer, **settings}
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
    assert torch.equal(model.encode(images()), reconstruction.codes)
    assert torch.equal(model.decode(model.encode(images())), reconstruction.images)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_model_that_overflows_is_named(part: str) -> None:
    """Latents and decoded images that are infinite or NaN are no codes and no images: encoding, or decoding, ends."""
    model = started()
    symbols = model.encode(images())
    with torch.no_grad():
        for parameter in getattr(model, part).parameters():
            parameter.mul_(1e30)
    calls = {
        "encoder": lambda: model.encode(images()),
        "decoder": lambda: model.decode(symbols),
        "both": lambda: model.reconstruct(images()),
    }
    for name in (part, "both"):
        with pytest.raises(NonFiniteError, match="of this vqvae are infinite or NaN"):
            calls[name]()


def test_an_image_is_encoded_alone() -> None:
    """Codes do not depend on the other images of the batch."""
    model = started()
    together = model.encode(images())
    apart = torch.cat([model.encode(image[None]) for image in images()])
    assert torch.equal(together, apart)


def test_evaluation_leaves_the_codebook_alone() -> None:
    """Encoding a test set teaches nothing."""
    model = started()
    before = model.fingerprint
    model(images().flip(0))
    assert model.fingerprint == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_likelihood_is_computed_in_float32(dtype: torch.dtype) -> None:
    """Inside autocast too: the convolutions give half precision, the reconstruction and its nats do not."""
    model = started(likelihood="logistic")
    with torch.autocast("cpu", dtype=dtype):
        reconstruction = model(images())
        nats = reconstruction.nats(images())
    assert reconstruction.mean.dtype == reconstruction.outputs.dtype == nats.dtype == torch.float32
    assert torch.equal(nats, reconstruction.nats(images()))


@pytest.mark.parametrize("likelihood", ["logistic", "logit-laplace"])
def test_a_likelihood_is_a_distribution(likelihood: str) -> None:
    """The probabilities of all 256 values of a single pixel sum to 1 under the decoder's own parameters."""
    model = started(likelihood=likelihood).double()
    with torch.no_grad():
        reconstruction = model(images(count=1))
    one = dataclasses.replace(reconstruction, outputs=reconstruction.outputs[..., 3:4, 5:6])
    every = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    log_probs = [-one.nats(value[None]).item() for value in every]
    assert math.fsum(map(math.exp, log_probs)) == pytest.approx(1, abs=1e-9)


def test_elbo_needs_the_likelihood() -> None:
    """Squared error gives no nats."""
    model = started()
    with pytest.raises(InputError, match="--likelihood logistic"):
        model(images()).nats(images())


def test_refusals() -> None:
    """A size that the factor does not divide, other channels, an unfitted codebook, impossible settings."""
    model = started()
    with pytest.raises(InputError, match="factor 4 does not divide"):
        model.encode(images(1, 18, 16))
    with pytest.raises(InputError, match="3 channels"):
        model.encode(images(3))
    for symbols, message in (
        (torch.full((1, 1, 2, 2), 12), r"lie in \[12, 12\], expected \[0, 11\]"),
        (torch.full((1, 1, 2, 2), -1), "lie in"),
        (torch.zeros(1, 2, 2, 2, dtype=torch.int64), "shape"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "shape"),
        (torch.zeros(1, 1, 2, 2), "int64"),
    ):
        with pytest.raises(InputError, match=message):
            model.decode(symbols)
    with pytest.raises(InputError, match="has not been fitted"):
        small().eval().encode(images())
    for setting, name in (
        ({"factor": 3}, "factor"),
        ({"width": 20}, "width"),
    ):
        with pytest.raises(InputError, match=name):
            small(**setting)


def test_the_flat_configuration_of_before_is_read() -> None:
    """Where the quantizer's fields stood among the others; the fingerprint still hashes them so, in that order."""
    flat = {
        "channels": 3, "factor": 2, "codebook_size": 8, "code_width": 4, "width": 16, "blocks": 1,
        "commitment_weight": 0.5, "codebook_decay": 0.9, "dead_code_threshold": 2.0, "likelihood": "logistic",
    }  # fmt: skip
    config = VQVAE.config_from_json(flat, "here")
    assert config.quantizer == VectorQuantizerConfig(8, 4, 0.5, 0.9, 2.0)
    assert list(VQVAE(config).identity().items()) == list(flat.items())
    with pytest.raises(InputError, match="here does not fit"):
        VQVAE.config_from_json({**flat, "codebook_sighs": 8}, "here")


def test_every_setting_is_in_the_fingerprint() -> None:
    """The quantizer's too, whichever it is."""
    quantizers = (
        VectorQuantizerConfig(codebook_size=12, code_width=8),
        VectorQuantizerConfig(codebook_size=12, code_width=8, codebook_decay=0.5),
        FSQConfig(levels=(3, 4)),
        FSQConfig(levels=(4, 3)),
    )
    models = [small(quantizer=quantizer) for quantizer in quantizers]
    for model in models[1:]:
        model.encoder, model.decoder = models[0].encoder, models[0].decoder
    assert len({model.fingerprint for model in models}) == len(models)
