"""Tokenizers: a tokenizer fits its model, its codes come back, and what of its codebook is in use."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_most, noted, skipped
from pipeline.verification.subject import random_symbols
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae.tokenizers.learned import LearnedTokenizer


def fingerprint_fits(tokenizer: ImageTokenizer, model: AutoregressiveModel) -> Check:
    """The model was trained on the symbols of this very tokenizer."""
    name, wanted = "tokenizer: fingerprint", model.config.tokenizer
    if not wanted:
        return skipped(name, "the model's configuration names no tokenizer")
    other = wanted != tokenizer.fingerprint
    found = f"the model's is {wanted[:12]}…, this one is {tokenizer.fingerprint[:12]}…"
    return at_most(name, int(other), 0, found, "a tokenizer that was trained on after its codes were written")


def grid_fits(tokenizer: ImageTokenizer, model: AutoregressiveModel) -> Check:
    """The tokenizer gives the model's grid: its vocabulary, channels, height and width."""
    name, cause = (
        "tokenizer: grid and vocabulary",
        "a model that was built for another tokenizer or image size",
    )
    try:
        given = tokenizer.grid(*tokenizer.image_shape(model.grid))
    except InputError as error:
        return at_most(name, 1, 0, str(error), cause)
    return at_most(
        name, int(given != model.grid), 0, f"the tokenizer gives {given}, the model takes {model.grid}", cause
    )


@torch.no_grad()
def symbols_come_back(tokenizer: ImageTokenizer, grid_of: AutoregressiveModel) -> Check:
    """Symbols that become an image and symbols again are the same ones; in a learned tokenizer, the codes alone.

    A learned decoder and encoder are no inverses of each other. What must hold for them is that each code is the
    nearest to its own vector: two codes with one vector cannot be told apart.
    """
    name, grid = "tokenizer: round trip", grid_of.grid
    symbols = random_symbols(grid, 4).to(tokenizer.device)
    if isinstance(tokenizer, LearnedTokenizer):
        found = tokenizer.quantizer.requantized(symbols)
        if found is None:
            return skipped(
                name, "vectors are of another width than latents, or not every site has every code"
            )
        back = found
        about = f"codes of {symbols.numel():,} that are not the nearest to their own vector"
    elif tokenizer.symbols == "codes":
        return skipped(name, "its decoder and encoder are no inverses, and it shows no code vectors")
    else:
        back = tokenizer.encode(tokenizer.decode(symbols))
        about = f"symbols of {symbols.numel():,} that an image does not give back"
    cause = "channels in another order on the way back, levels that are scaled twice, or codes with the same vector"
    return at_most(name, int((back != symbols).sum()), 0, about, cause)


@torch.no_grad()
def dead_codes(tokenizer: LearnedTokenizer, images: Tensor) -> Check:
    """Codes that no image uses."""
    codes = tokenizer.encode(images.to(tokenizer.device))
    grids = tokenizer.grids_of(codes)
    size = tokenizer.quantizer.codebook_size * len(grids)
    unused = size - sum(len(part.unique()) for part in grids.values())
    return noted(
        "tokenizer: dead codes", unused, f"of {size:,} codes in {codes.numel():,} of {len(images)} images"
    )


@torch.no_grad()
def code_flips(tokenizer: LearnedTokenizer, images: Tensor) -> Check:
    """Codes that become others when the encoder computes in bfloat16: why codes and prior should share a precision."""
    images = images.to(tokenizer.device)
    exact = tokenizer.encode(images)
    with torch.autocast(tokenizer.device.type, torch.bfloat16):
        rounded = tokenizer.encode(images)
    share = (rounded != exact).double().mean().item()
    return noted(
        "tokenizer: bf16 code flips", share, f"share of {exact.numel():,} codes that bfloat16 changes"
    )
