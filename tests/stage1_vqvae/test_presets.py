"""Tokenizers by their papers' names, and the flags that choose parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from rasterwise.errors import InputError
from stage1_vqvae import VQVAE
from stage1_vqvae.options import TrainVQVAE
from stage1_vqvae.presets import PRESETS, check_preset, preset_options
from stage1_vqvae.recipes import emoji_vqgan_recipe, vqgan_256_recipe
from stage1_vqvae.train import main


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_its_own_constraints(name: str) -> None:
    check_preset(name, preset_options(name, None, None))


def test_every_part_goes_with_every_other() -> None:
    """A named part replaces the preset's; one that the preset has anyway stays as the preset has it."""
    options = preset_options("vqgan", "fsq", "vit")
    assert (options.model.quantizer.kind, options.model.autoencoder.kind) == ("fsq", "vit")
    assert options.adversarial == PRESETS["vqgan"].options.adversarial
    assert preset_options("dvae", "gumbel", None) == PRESETS["dvae"].options
    check_preset("vqgan", options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokenizer=cubes"], "--tokenizer is 'cubes', expected one of vqvae, vqvae-2, vqgan"),
        (["--autoencoder=cubes"], "--autoencoder is 'cubes', expected one of convolutional"),
        (["--tokenizer=dvae", "--quantizer=fsq"], "--quantizer is fsq, but --tokenizer dvae takes gumbel"),
        (["--tokenizer=dvae", "--likelihood=mse"], "--likelihood is mse, but --tokenizer dvae takes logit"),
        (["--tokenizer=vqgan", "--adversarial-weight=0"], "but --tokenizer vqgan takes more than 0"),
        (["--tokenizer=vqvae", "--adversarial-weight=1"], "but --tokenizer vqvae takes 0"),
        (["--tokenizer=vqvae", "--grids=2"], "--grids is 2, but --tokenizer vqvae takes 1"),
        (["--tokenizer=vqvae-2", "--grids=1"], "--grids is 1, but --tokenizer vqvae-2 takes 2"),
        (["--tokenizer=vqvae-2", "--perceptual-weight=1"], "but --tokenizer vqvae-2 takes 0"),
        (["--top-width=64"], "--top-width is 64, which two grids alone have; add --grids 2"),
        (["--tokenizer=vqvae-2", "--factor=8"], "images are 8×8, which factor 16 of the top grid does not"),
        (["--tokenizer=vit-vqgan", "--autoencoder=attention"], "--autoencoder is attention, but"),
        (["--adversarial-weight=1", "--compile"], "compile does not go with an adversarial loss"),
        (["--adversarial-weight=1"], "images are 8×8, but this discriminator needs 24×24"),
        (["--perceptual-weight=1", "--perceptual-network=x.pth"], "holds no x.pth"),
    ],
)
def test_one_line_for_what_does_not_go_together(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, f"--output={tmp_path / 'run'}", "--steps=1"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_constraints_of_python_callers() -> None:
    options = preset_options("vqgan", None, None)
    options = dataclasses.replace(options, adversarial=PRESETS["vqvae"].options.adversarial)
    with pytest.raises(InputError, match="--adversarial-weight is 0"):
        check_preset("vqgan", options)


@pytest.mark.parametrize(
    "options",
    [
        *(preset_options(name, None, None) for name in PRESETS),
        emoji_vqgan_recipe("x", Path("y")),
        vqgan_256_recipe("x", Path("y")),
    ],
    ids=[*PRESETS, "emoji", "256"],
)
def test_every_preset_and_recipe_can_be_built(options: TrainVQVAE) -> None:
    """Without memory: the shapes fit together."""
    config = dataclasses.replace(options.model, channels=3)
    with torch.device("meta"):
        model = VQVAE(config)
        latents = model.encoder(torch.zeros(2, 3, 64, 64))
        decoded = model.decoder(torch.zeros(2, model.quantizer.code_width, *latents.shape[2:]))
    assert latents.shape[1] == model.quantizer.latent_width
    assert decoded.shape == (2, config.outputs, 64, 64)
