"""VQGANs that others trained, against a plain reference by the names of their weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from stage1_vqvae.imported.layer_names import DIFFUSERS, LLAMAGEN, TAMING, LayerNames, find_tokenizer
from stage1_vqvae.imported.opening import open_foreign
from stage1_vqvae.imported.vqgan import PixelRange, architecture_of, vqgan_from
from stage1_vqvae.tokenizers.vqvae import VQVAE
from tests.stage1_vqvae.imported.vqgan_reference import (
    FAMILIES,
    Architecture,
    Reference,
    Weights,
    levels_of,
    vqgan_weights,
)

SMALL = Architecture()


def random_weights(name: str, of: Architecture) -> Weights:
    """Float64, of numbers that float32 holds as they are."""
    return {key: value.float().double() for key, value in vqgan_weights(FAMILIES[name], of).items()}


def names_of(weights: Weights) -> LayerNames:
    """Of the family that the weights are recognized as."""
    return find_tokenizer(weights, "it").layers


def as_saved(weights: Weights) -> Weights:
    return {key: value.float() for key, value in weights.items()}


def assert_equal(tokenizer: VQVAE, reference: Reference, *, unit: bool = False) -> None:
    """Codes and images are those of the reference, each number of them, in float64."""
    tokenizer = tokenizer.double()
    originals = torch.randint(256, (3, reference.of.channels, 8, 12), dtype=torch.uint8)
    pixels = originals.double() / 255 if unit else originals.double() / 127.5 - 1
    codes = tokenizer.encode(originals)
    factor = 2 ** (len(reference.of.multipliers) - 1)
    assert codes.dtype == torch.int64
    assert codes.shape == (3, 1, 8 // factor, 12 // factor)
    assert len(codes.unique()) > 2
    assert torch.equal(codes, reference.encode(pixels))
    drawn = torch.randint(reference.of.codes, (3, 1, 2, 3))
    decoded = tokenizer.decode(drawn)
    assert len(decoded.unique()) > 10
    assert torch.equal(decoded, levels_of(reference.decode(drawn), unit=unit))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "of",
    [
        SMALL,
        Architecture(
            multipliers=(1, 1, 2), blocks=2, attention="middle", latent_channels=3, code_width=3, codes=64
        ),
        Architecture(attention="none", channels=1, multipliers=(1, 1)),
    ],
    ids=["attention at the grid", "in the middle", "nowhere, grey"],
)
def test_codes_and_images_are_equal(name: str, of: Architecture) -> None:
    """Of each family, and of every place where published models have attention."""
    weights = random_weights(name, of)
    assert_equal(vqgan_from(weights, names_of(weights), "it"), Reference(FAMILIES[name], of, weights))


def test_gumbel_softmax() -> None:
    """Taming's f8 model of 8192 codes: the likeliest code, the projection to logits being one layer with another."""
    of = replace(SMALL, gumbel=True, codes=11)
    weights = random_weights("taming", of)
    assert_equal(vqgan_from(weights, TAMING, "it"), Reference(FAMILIES["taming"], of, weights))


def test_another_range_and_other_groups() -> None:
    """What diffusers' configuration and pipelines choose: images in [0, 1], and norms of fewer groups."""
    of = replace(SMALL, groups=8)
    weights = random_weights("diffusers", of)
    tokenizer = vqgan_from(weights, DIFFUSERS, "it", groups=8, pixel_range="unit")
    assert_equal(tokenizer, Reference(FAMILIES["diffusers"], of, weights), unit=True)


def test_averaged_weights_are_taken() -> None:
    """Latent diffusion keeps them beside the others, under names without dots; its quantizer's too."""
    averaged, last = random_weights("taming", SMALL), random_weights("taming", SMALL)
    both = last | {f"model_ema.{name.replace('.', '')}": value for name, value in averaged.items()}
    both |= {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    assert_equal(vqgan_from(both, TAMING, "it"), Reference(FAMILIES["taming"], SMALL, averaged))


def test_what_only_a_training_needs_is_left_out(tmp_path: Path) -> None:
    """Discriminators, perceptual networks, and counts of codes; in a whole model, all that has another prefix."""
    weights = as_saved(random_weights("taming", SMALL))
    others = {
        "loss.discriminator.main.0.weight": torch.ones(2),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(2),
        "quantize.embedding.cluster_size": torch.ones(16),
        "colorize": torch.ones(1),
    }
    alone = vqgan_from(weights, TAMING, "it").fingerprint
    assert vqgan_from(weights | others, TAMING, "it").fingerprint == alone
    whole = {f"first_stage_model.{name}": value for name, value in (weights | others).items()}
    condition = as_saved(random_weights("taming", replace(SMALL, channels=1)))
    whole |= {f"cond_stage_model.{name}": value for name, value in condition.items()}
    whole["transformer.head.weight"] = torch.ones(2)
    save_file(whole, tmp_path / "whole.safetensors")
    assert open_foreign(tmp_path).tokenizer.fingerprint == alone
    other = open_foreign(tmp_path, prefix="cond_stage_model").tokenizer
    assert other.channels == 1
    with pytest.raises(InputError, match="is known that begins with 'x"):
        open_foreign(tmp_path, prefix="x")


@pytest.mark.parametrize(
    ("name", "of", "millions"),
    [
        ("llamagen", Architecture(128, (1, 1, 2, 2, 4), 2, 3, 256, 8, 16384), 72),
        ("llamagen", Architecture(128, (1, 2, 2, 4), 2, 3, 256, 8, 16384), 70),
        ("taming", Architecture(128, (1, 1, 2, 2, 4), 2, 3, 256, 256, 1024), None),
        ("taming", Architecture(128, (1, 1, 2, 2, 4), 2, 3, 256, 256, 16384), None),
        ("taming", Architecture(128, (1, 2, 2, 4), 2, 3, 256, 256, 8192, gumbel=True), None),
        ("taming", Architecture(128, (1, 2, 4), 2, 3, 3, 3, 8192, attention="middle"), None),
    ],
    ids=["VQ-16", "VQ-8", "f16 of 1024", "f16 of 16384", "Gumbel f8", "latent diffusion's f4"],
)
def test_published_architectures(name: str, of: Architecture, millions: int | None) -> None:
    """Are recognized by shapes alone, and have as many parameters; LlamaGen's README says how many millions."""
    weights = vqgan_weights(FAMILIES[name], of, "meta")
    count = sum(value.numel() for value in weights.values())
    assert millions in (None, round(count / 1e6))
    config = architecture_of(weights, names_of(weights), "it")
    assert config.factor == 2 ** (len(of.multipliers) - 1)
    assert config.autoencoder == replace(
        config.autoencoder,
        width=128,
        multipliers=of.multipliers,
        blocks=2,
        bottleneck=of.latent_channels,
        attention=of.attention,  # type: ignore[arg-type]
        groups=32,
    )
    with torch.device("meta"):
        model = VQVAE(config)
    assert model.grid(3, 256, 256) == Grid(1, 256 // config.factor, 256 // config.factor, of.codes)
    state = model.state_dict()
    unused = ("initted", "cluster_size", "embed_avg")
    ours = sum(value.numel() for key, value in state.items() if not key.endswith(unused))
    if of.gumbel:  # its projection to logits is one layer here
        count += of.codes * of.latent_channels - (of.codes + of.latent_channels + 1) * of.code_width
    assert ours == count


def edited(edit: str, weights: Weights) -> Weights:
    """Weights that are no longer whole, or of another architecture."""
    name = "decoder.mid.attn_1.k.bias"
    match edit:
        case "one lacks":
            del weights[name]
        case "one more":
            weights["generator.weight"] = torch.ones(1)
        case "another shape":
            weights[name] = torch.ones(5)
        case "no codebook":
            del weights["quantize.embedding.weight"]
        case "no decoder":
            weights = {key: value for key, value in weights.items() if not key.startswith("decoder")}
        case "not finite":
            weights["encoder.conv_in.weight"][0] = torch.nan
    return weights


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("one lacks", "is of another network: it lacks decoder.mid.attn_1.k.bias"),
        ("one more", "is of another network: it has the unknown generator.weight"),
        ("another shape", r"has decoder.mid.attn_1.k.bias of shape \(5,\), expected \(64,\)"),
        ("no codebook", r"no codebook \(quantize.embedding.weight\)"),
        ("no decoder", "weights of taming-transformers, but no decoder.conv_out.weight"),
        ("not finite", "numbers in encoder.first.weight that are infinite or NaN"),
    ],
)
def test_weights_of_another_network(edit: str, message: str) -> None:
    weights = edited(edit, as_saved(random_weights("taming", SMALL)))
    with pytest.raises(InputError, match=f"the file.* {message}") as error:
        vqgan_from(weights, TAMING, "the file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"multipliers": (1,)}, "has 1 resolutions, so factor 1; expected 2, 4, 8 or 16"),
        ({"multipliers": (1,) * 6}, "has 6 resolutions, so factor 32"),
        ({"channels": 4}, "channels is 4, expected one of 1, 3"),
        ({"width": 40, "groups": 8}, "width is 40, expected a multiple of 32"),
    ],
)
def test_architectures_that_are_not_there(of: dict[str, int], message: str) -> None:
    weights = as_saved(random_weights("taming", replace(SMALL, **of)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=re.escape(message)):
        vqgan_from(weights, TAMING, "the file")


@pytest.mark.parametrize("pixel_range", ["signed", "unit"])
def test_a_folder_of_ours_is_whole_in_itself(pixel_range: PixelRange, tmp_path: Path) -> None:
    """Saved and opened, its fingerprint, codes and images are the same, and it can be trained on."""
    weights = as_saved(random_weights("llamagen", SMALL))
    tokenizer = vqgan_from(weights, LLAMAGEN, "it", pixel_range=pixel_range)
    opened = VQVAE.from_pretrained(tokenizer.save_pretrained(tmp_path / "saved"))
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    codes = tokenizer.encode(images)
    assert opened.fingerprint == tokenizer.fingerprint
    assert torch.equal(opened.encode(images), codes)
    assert torch.equal(opened.decode(codes), tokenizer.decode(codes))
    opened.train()(images).outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in opened.encoder.parameters())
    with pytest.raises(InputError, match="images are 8×9, which factor 2 does not divide"):
        tokenizer.encode(torch.zeros(1, 3, 8, 9, dtype=torch.uint8))
    with pytest.raises(InputError, match="images have 1 channels, this vqvae was built for 3"):
        tokenizer.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
