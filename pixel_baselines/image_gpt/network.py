"""ImageGPT's configuration, layers and teacher-forced logits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasterwise.configuration import Decay, Depth, Share, Width, WidthOrZero, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition

GELU_SLOPE = 1.702
"""GELU(x) ≈ x · σ(1.702 x), which is the activation of OpenAI's release."""


@configuration(kw_only=True)
class ImageGPTConfig(AutoregressiveConfig):
    """An ImageGPT. The defaults suit 32×32 images of palette colours on a CPU.

    Attributes:
        depth: Layers.
        width: Width of the residual stream (D), a multiple of ``heads``.
        heads: Attention heads.
        mlp_width: Width inside the MLP; 0 for 4 · ``width``.
        dropout: Of the embeddings, the attention's weights and what each block adds, in training.
        norm_eps: What the normalisation adds to the mean square.
    """

    depth: Depth = 8
    width: Width = 256
    heads: Depth = 8
    mlp_width: WidthOrZero = 0
    dropout: Decay = 0.0
    norm_eps: Share = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"width {self.width} is no multiple of {self.heads} heads")


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


class ImageGPTNetwork(AutoregressiveModel):
    """The part of ``ImageGPT`` that its decoder reads: layers, features and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

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

    def start_vectors(self, batch_size: int, condition: Condition | None) -> Tensor:
        """The first input of each sequence, ``(B, D)``: the start token, and the class's vector if there is one."""
        index = self.class_index(condition, batch_size)
        start = self.start.expand(batch_size, -1)
        if self.label is None:
            return start
        unconditional = index == len(self.config.classes)
        label = self.label(index.masked_fill(unconditional, 0))
        return start + label.masked_fill(unconditional[:, None], 0)

    def layer_features(self, symbols: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """What each layer knows of an image, averaged over its sites: the features of the linear probe.

        The l-th are the paper's f^l = ⟨n^l⟩, where n^l is what block l reads after its first normalisation:
        the 0-th are the embeddings, the last the head's input.

        Args:
            symbols: int64 ``(B, C, H, W)`` in ``[0, K)``.
            condition: B conditions, or None.

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
