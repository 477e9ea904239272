"""OpenAI's ImageGPT weights, read into our layout."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixel_baselines.image_gpt.network import ImageGPTConfig
from rasterwise.errors import InputError
from rasterwise.files import from_json, load_tensors, member
from rasterwise.symbols.grid import Grid


def _openai_config(content: dict[str, Any], grid: Grid | None, path: Path) -> ImageGPTConfig:
    """Transformers' configuration as ours; what a config.json leaves out has transformers' default."""
    if content.get("model_type") != "imagegpt":
        raise InputError(f"{path} describes a {content.get('model_type')!r}, expected an 'imagegpt'")
    for name, needed in (("activation_function", "quick_gelu"), ("add_cross_attention", False)):
        if content.get(name, needed) != needed:
            raise InputError(f"{path} has {name} {content[name]!r}, expected {needed!r}")
    positions = member(content, "n_positions", int, path, 1024)
    levels = member(content, "vocab_size", int, path, 513) - 1
    side = math.isqrt(max(0, positions))
    if grid is None:
        if side * side != positions:
            raise InputError(f"{path} has {positions} positions, which are no square; give their grid")
        grid = Grid(1, side, side, levels)
    if grid.size != positions or grid.levels != levels:
        raise InputError(f"{path} is of {positions} sites of {levels} levels, the grid given is {grid}")
    settings = {
        "grid": dataclasses.asdict(grid),
        "depth": content.get("n_layer", 24),
        "width": content.get("n_embd", 512),
        "heads": content.get("n_head", 8),
        "mlp_width": content.get("n_inner") or 0,
        "dropout": content.get("resid_pdrop", 0.1),
        "norm_eps": content.get("layer_norm_epsilon", 1e-5),
    }
    config: ImageGPTConfig = from_json(ImageGPTConfig, settings, path)
    return config


def _read_openai(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, which may be split over several files."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        found = "only a pytorch_model.bin" if (folder / "pytorch_model.bin").exists() else "no weights"
        raise InputError(
            f"{folder} holds {found}, expected model.safetensors: opening a .bin can run code. Convert it "
            "with transformers' from_pretrained and save_pretrained, or name a revision that has safetensors"
        )
    return {name: tensor for file in files for name, tensor in load_tensors(file).items()}


def _openai_weights(theirs: dict[str, Tensor], content: dict[str, Any]) -> dict[str, Tensor]:
    """Transformers' tensors under our names; its projections are stored (inputs, outputs)."""
    names = {
        "ln_1.weight": "attention_norm.weight",
        "attn.c_attn": "qkv",
        "attn.c_proj": "attention_out",
        "ln_2.weight": "mlp_norm.weight",
        "mlp.c_fc": "mlp_in",
        "mlp.c_proj": "mlp_out",
    }
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        parts = name.removeprefix("transformer.").split(".", 2)
        if name == "lm_head.weight":
            ours["head.weight"] = tensor
        elif parts[0] == "wte":
            ours["symbol.weight"], ours["start"] = tensor[:-1], tensor[-1]
        elif parts[0] == "wpe":
            ours["position"] = tensor
        elif parts[0] == "ln_f":
            ours["norm.weight"] = tensor
        elif parts[0] == "h" and parts[2] not in ("attn.bias", "attn.masked_bias"):  # masks of old files
            stem = next((stem for stem in names if parts[2].startswith(stem)), parts[2])
            renamed = names.get(stem, stem) + parts[2].removeprefix(stem)
            ours[f"blocks.{parts[1]}.{renamed}"] = tensor.T if tensor.ndim == 2 else tensor
    _fold_attention_scale(ours, content)
    return ours


def _fold_attention_scale(weights: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Put scalings of the attention's scores other than 1/√d into the queries, which they are a factor of.

    ``reorder_and_upcast_attn`` needs nothing: it is another order of the same arithmetic.
    """
    width = content.get("n_embd", 512)
    scale = 1.0 if content.get("scale_attn_weights", True) else math.sqrt(width / content.get("n_head", 8))
    for layer in range(content.get("n_layer", 24)):
        divisor = layer + 1 if content.get("scale_attn_by_inverse_layer_idx", False) else 1
        for name in (f"blocks.{layer}.qkv.weight", f"blocks.{layer}.qkv.bias"):
            if scale / divisor != 1 and name in weights:
                query, rest = weights[name][:width], weights[name][width:]
                weights[name] = torch.cat([query * (scale / divisor), rest])
