"""Opening a tokenizer that others trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.files import from_json, member, read_json, tensor_names
from rasterwise.models.pretrained import CONFIG_NAME, load_weights
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae.imported.emu3 import Emu3Tokenizer, Emu3TokenizerConfig
from stage1_vqvae.imported.layer_names import DIFFUSERS, EMU3, Found, find_tokenizer
from stage1_vqvae.imported.source import PIPELINE, Source, WeightFiles, open_source
from stage1_vqvae.imported.vqgan import PixelRange, vqgan_from
from stage1_vqvae.imported.weights import read_weights

PREPROCESSOR = "preprocessor_config.json"
"""Transformers' file of how images are prepared."""
UNIT_PIPELINE = "AmusedPipeline"
"""The pipeline of diffusers whose tokenizer takes images in [0, 1]; no file of the tokenizer says so."""


@dataclass(frozen=True)
class Imported:
    """A tokenizer that others trained.

    Attributes:
        tokenizer: In evaluation mode.
        family: Whose files it was in.
        file: The name of the first file of weights.
    """

    tokenizer: ImageTokenizer
    family: str
    file: str


def open_foreign(
    source: str | Path,
    *,
    file: str = "",
    prefix: str | None = None,
    revision: str | None = None,
    pixel_range: PixelRange | None = None,
) -> Imported:
    """Open a tokenizer of taming-transformers, latent diffusion, LlamaGen, diffusers or transformers.

    Args:
        source: A file, a folder or a Hub id.
        file: The file of weights, of several.
        prefix: What the names of the tokenizer's weights begin with in a file of several tokenizers.
        revision: Branch, tag or commit of a Hub id.
        pixel_range: What images were in its training: "signed", [-1, 1], or "unit", [0, 1]; by default as its family
            has it.

    Raises:
        InputError: It is not there, not known, damaged, or of an architecture that is not supported.
    """
    opened = open_source(source, revision)
    if not file and Path(source).expanduser().is_file():
        file = Path(source).name
    files = opened.weight_files(file)
    found, weights = _read(opened, files, prefix)
    where = opened.text if opened.text.endswith(files.first) else f"{opened.text}/{files.first}"
    if found.layers is EMU3:
        if pixel_range == "unit":
            raise InputError(
                "--pixel-range unit is not for Emu3, whose preprocessor_config.json says the range"
            )
        tokenizer: ImageTokenizer = _emu3(opened, files.first, weights, where)
    else:
        tokenizer = vqgan_from(
            weights,
            found.layers,
            where,
            groups=_groups(opened, files.first) if found.layers.family == DIFFUSERS.family else 32,
            pixel_range=pixel_range or _pixel_range(opened, files.first),
        )
    return Imported(tokenizer, found.layers.family, files.first)


def _read(source: Source, files: WeightFiles, prefix: str | None) -> tuple[Found, dict[str, Tensor]]:
    """The tokenizer among the weights, and its weights; other files and other weights of safetensors are not read."""
    if files.first.endswith(".safetensors"):
        file_of = files.file_of or dict.fromkeys(tensor_names(source.path(files.first)), files.first)
        found = find_tokenizer(file_of, source.text, prefix)
        used = sorted({file for name, file in file_of.items() if name.startswith(found.prefix)})
        weights: dict[str, Tensor] = {}
        for file in used:
            weights |= read_weights(source.path(file), found.prefix)
    else:
        weights = read_weights(source.path(files.first))
        found = find_tokenizer(weights, source.text, prefix)
    return found, {
        name.removeprefix(found.prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
        if name.startswith(found.prefix)
    }


def _groups(source: Source, file: str) -> int:
    """The groups of the norms of diffusers' ``VQModel``; InputError for what ours does not have."""
    path = source.beside(file, CONFIG_NAME)
    if path is None:
        return 32
    content = read_json(path)
    for name, needed in (("_class_name", "VQModel"), ("act_fn", "silu"), ("norm_type", "group")):
        if content.get(name, needed) != needed:
            raise InputError(f"{path} has {name} {content[name]!r}, expected {needed!r}")
    return member(content, "norm_num_groups", int, path, 32)


def _pixel_range(source: Source, file: str) -> PixelRange:
    """That of images in training, where the pipeline around the tokenizer says so."""
    if PIPELINE in source.names:
        index: Path | None = source.path(PIPELINE)
    else:
        index = source.path(file).parent.parent / PIPELINE if "/" not in file else None
    if index is None or not index.is_file():
        return "signed"
    return "unit" if read_json(index).get("_class_name") == UNIT_PIPELINE else "signed"


def _emu3(source: Source, file: str, weights: dict[str, Tensor], where: object) -> Emu3Tokenizer:
    """Transformers' ``Emu3VQVAE``, of a folder of its own or in Emu3."""
    path = source.beside(file, CONFIG_NAME)
    if path is None:
        raise InputError(
            f"{where} is of Emu3VQVAE, and no {CONFIG_NAME} is in its folder, expected transformers' one"
        )
    whole = read_json(path)
    content = member(whole, "vq_config", dict, path, whole)
    fields = [one.name for one in dataclasses.fields(Emu3TokenizerConfig)]
    settings: dict[str, Any] = {name: content[name] for name in fields if name in content}
    if content.get("out_channels", 3) != content.get("in_channels", 3) or content.get("double_latent", False):
        raise InputError(
            f"{path} is of an Emu3VQVAE whose images or latents change their channels, expected as many"
        )
    prepared = source.beside(file, PREPROCESSOR)
    if prepared is not None:
        said = read_json(prepared)
        names = (("pixel_mean", "image_mean"), ("pixel_deviation", "image_std"))
        settings |= {ours: said[theirs] for ours, theirs in names if isinstance(said.get(theirs), list)}
    tokenizer = Emu3Tokenizer(from_json(Emu3TokenizerConfig, settings, path))
    load_weights(tokenizer.vqvae, weights, where, str(path))
    return tokenizer.eval()
