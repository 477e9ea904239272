"""ImageGPT: a GPT decoder over palette colours, or any symbols, in raster order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.image_gpt_decoder import ImageGPTDecoder
from rasterwise.autoregressive import AutoregressiveConfig, AutoregressiveModel, Decoder
from rasterwise.condition import Condition
from rasterwise.errors import InputError
from rasterwise.files import load_tensors, read_json
from rasterwise.grid import Grid
from rasterwise.pretrained import CONFIG_NAME, local_folder

GELU_SLOPE = 1.702
"""GELU(x) ≈ x · σ(1.702 x), which is the activation of OpenAI's release."""


@dataclass(frozen=True, kw_only=True)
class ImageGPTConfig(AutoregressiveConfig):
    """An ImageGPT. The defaults suit 32×32 pictures of palette colours on a CPU.

    Attributes:
        depth: Layers.
        width: Width of the residual stream (D), a multiple of ``heads``.
        heads: Attention heads.
        mlp_width: Width inside the MLP; 0 for 4 · ``width``.
        dropout: Of the embeddings, the attention's weights and what each block adds, in training.
        norm_eps: What the normalisation adds to the mean square.
    """

    depth: int = 8
    width: int = 256
    heads: int = 8
    mlp_width: int = 0
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.width % self.heads:
            raise InputError(f"width {self.width} is no multiple of {self.heads} heads")
        if self.mlp_width < 0:
            raise InputError(f"mlp_width is {self.mlp_width}, expected 0 (4 · width) or more")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}, expected at least 0 and below 1")


class Block(nn.Module):
    """Pre-norm attention and MLP: ``(B, T, D)`` to the same shape."""

    def __init__(self, config: ImageGPTConfig) -> None:
        super().__init__()
        width, inner = config.width, config.mlp_width or 4 * config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.attention_norm = nn.RMSNorm(width, config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.RMSNorm(width, config.norm_eps)
        self.mlp_in = nn.Linear(width, inner)
        self.mlp_out = nn.Linear(inner, width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention_out(self._attention(self.attention_norm(x))))
        hidden = self.mlp_in(self.mlp_norm(x))
        return x + self.drop(self.mlp_out(F.silu(GELU_SLOPE * hidden) / GELU_SLOPE))

    def _attention(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class ImageGPT(AutoregressiveModel):
    """Decoder-only transformer over symbols in raster order, with learned positions.

    The sequence that it reads is a start token and then the symbols but for the last; the i-th output gives
    symbol i. The normalisation divides by the root mean square without centring, and the head is not tied to
    the embedding, as in OpenAI's release rather than in GPT-2. The paper models one palette colour a pixel
    (``PaletteTokenizer``); a grid of several channels is read here as one longer sequence of subpixels.
    A class's vector is added to the start token: the paper's model is unconditional.

    Args:
        config: Its architecture and its data.

    References:
        Chen et al., Generative Pretraining from Pixels, 2020 (ICML; no arXiv number). The block: Radford et
        al., Language Models are Unsupervised Multitask Learners (GPT-2), 2019 (no arXiv number).

    Example:
        >>> config = ImageGPTConfig(grid=Grid(1, 4, 4, 16), classes=("cat", "dog"), depth=2, width=32)
        >>> model = ImageGPT(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape, model.layer_features(symbols)[2].shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2]), torch.Size([2, 32]))
    """

    kind = "image-gpt"
    config_class = ImageGPTConfig
    config: ImageGPTConfig

    def __init__(self, config: ImageGPTConfig) -> None:
        super().__init__(config)
        grid = config.grid
        self.symbol = nn.Embedding(grid.levels, config.width)
        self.start = nn.Parameter(torch.empty(config.width))
        self.label = nn.Embedding(len(config.classes), config.width) if config.classes else None
        self.position = nn.Parameter(torch.empty(grid.size, config.width))
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, grid.levels, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2's: normal of 0.02, less where a block adds to the residual stream; biases 0."""
        residual = 0.02 / math.sqrt(2 * self.config.depth)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif not name.endswith("norm.weight"):
                ends_branch = name.endswith(("attention_out.weight", "mlp_out.weight"))
                nn.init.normal_(parameter, std=residual if ends_branch else 0.02)

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.symbol(symbols)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        x = self._sequence(inputs, condition)
        for block in self.blocks:
            x = block(x)
        return self.grid.unflatten(self.head(self.norm(x)))

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return ImageGPTDecoder(self, batch_size, condition)

    def start_vectors(self, batch_size: int, condition: Condition | None) -> Tensor:
        """The first input of each sequence, ``(B, D)``: the start token, and the class's vector if told."""
        index = self.class_index(condition, batch_size)
        start = self.start.expand(batch_size, -1)
        if self.label is None:
            return start
        untold = index == len(self.config.classes)
        label = self.label(index.masked_fill(untold, 0))
        return start + label.masked_fill(untold[:, None], 0)

    def layer_features(self, symbols: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """What each layer knows of a picture, averaged over its sites: the features of the linear probe.

        The l-th are the paper's f^l = ⟨n^l⟩, where n^l is what block l reads after its first normalisation:
        the 0-th are the embeddings, the last the head's input.

        Args:
            symbols: int64 ``(B, C, H, W)`` in ``[0, K)``.
            condition: What the model is told, or None.

        Returns:
            ``depth + 1`` tensors ``(B, D)``.
        """
        self.grid.check(symbols)
        x = self._sequence(self.embed(symbols), condition)
        features = []
        for block in self.blocks:
            features.append(block.attention_norm(x).mean(1))  # type: ignore[operator]
            x = block(x)
        return [*features, self.norm(x).mean(1)]

    def _sequence(self, inputs: Tensor, condition: Condition | None) -> Tensor:
        start = self.start_vectors(len(inputs), condition)
        sequence = torch.cat([start[:, None], self.grid.flatten(inputs)[:, :-1]], 1)
        return self.drop(sequence + self.position)

    @classmethod
    def from_openai(
        cls, source: str | Path, *, grid: Grid | None = None, revision: str | None = None
    ) -> Self:
        """Open ``openai/imagegpt-*``, or any ImageGPT in transformers' format, in evaluation mode.

        Args:
            source: A folder with config.json and safetensors, or a Hub id.
            grid: Of its symbols; by default the square grid that has as many sites as the model positions.
            revision: Branch, tag or commit of a Hub id.

        Raises:
            InputError: The folder is absent, holds another model, an option that this one does not have,
                or no safetensors: a pytorch_model.bin is never opened, because opening it can run code.
        """
        folder = local_folder(source, revision)
        content = read_json(folder / CONFIG_NAME)
        model = cls(_openai_config(content, grid, folder / CONFIG_NAME))
        try:
            model.load_state_dict(_openai_weights(_read_openai(folder), content))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"the weights in {folder} do not fit its {CONFIG_NAME}: {reason}") from None
        return model.eval()


def _openai_config(content: dict[str, Any], grid: Grid | None, path: Path) -> ImageGPTConfig:
    """Transformers' configuration as ours; what a config.json leaves out has transformers' default."""
    if content.get("model_type") != "imagegpt":
        raise InputError(f"{path} describes a {content.get('model_type')!r}, expected an 'imagegpt'")
    for name, needed in (("activation_function", "quick_gelu"), ("add_cross_attention", False)):
        if content.get(name, needed) != needed:
            raise InputError(f"{path} has {name} {content[name]!r}, expected {needed!r}")
    positions, levels = content.get("n_positions", 1024), content.get("vocab_size", 513) - 1
    side = math.isqrt(positions)
    if grid is None:
        if side * side != positions:
            raise InputError(f"{path} has {positions} positions, which are no square; say their grid")
        grid = Grid(1, side, side, levels)
    if grid.size != positions or grid.levels != levels:
        raise InputError(f"{path} is of {positions} sites of {levels} levels, the grid given is {grid}")
    return ImageGPTConfig(
        grid=grid,
        depth=content.get("n_layer", 24),
        width=content.get("n_embd", 512),
        heads=content.get("n_head", 8),
        mlp_width=content.get("n_inner") or 0,
        dropout=float(content.get("resid_pdrop", 0.1)),
        norm_eps=content.get("layer_norm_epsilon", 1e-5),
    )


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
