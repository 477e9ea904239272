"""The transformer that all priors are built of: attention, gated MLP and their normalisations, after Llama.

Parameters have the names of transformers' Llama, so that its weights fit where no option adds others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
"""What the normalisations of the residual stream add to the mean square."""

NormOrder = Literal["pre", "swin"]

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, ``(1 or B, T, head width)`` each, the second half of a head's angles equal to the first."""


@dataclass(frozen=True)
class BlockOptions:
    """What a block is made of.

    Attributes:
        width: Of the residual stream (D), a multiple of ``heads``.
        heads: Attention heads.
        mlp_width: Width inside the gated MLP; 0 for 8/3 of ``width``, rounded up to a multiple of 16.
        dropout: Of the attention's weights, in training.
        qk_norm: Normalise each head's queries and keys before they are rotated (Dehghani et al., 2023, arXiv
            2302.05442), so that the size of their weights cannot make the attention's logits grow.
        norm: "pre" normalises what enters attention and MLP (Llama), "swin" what leaves them (Liu et al., Swin
            Transformer V2, 2021, arXiv 2111.09883), which bounds what each adds to the stream.
        cross: Attend to a context too, between attention and MLP.
    """

    width: int
    heads: int
    mlp_width: int = 0
    dropout: float = 0.0
    qk_norm: bool = False
    norm: NormOrder = "pre"
    cross: bool = False

    @property
    def inner_width(self) -> int:
        """Width inside the MLP."""
        return self.mlp_width or -(-self.width * 8 // (3 * 16)) * 16


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself, or to a context.

    Args:
        options: Of the block.
    """

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        width = options.width
        self.heads, self.head_width, self.dropout = options.heads, width // options.heads, options.dropout
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.q_norm = nn.LayerNorm(self.head_width) if options.qk_norm else None
        self.k_norm = nn.LayerNorm(self.head_width) if options.qk_norm else None

    def keys_and_values(self, x: Tensor, rotary: Rotary | None = None) -> tuple[Tensor, Tensor]:
        """What is attended to: ``(B, S, D)`` to keys and values, ``(B, heads, S, head width)`` each."""
        key = self._split(self.k_proj(x))
        value = self._split(self.v_proj(x))
        return _rotated(key if self.k_norm is None else self.k_norm(key), rotary), value

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        causal: bool = False,
        context_rotary: Rotary | None = None,
    ) -> Tensor:
        """Mix values by each position's query.

        Args:
            x: ``(B, T, D)``.
            rotary: Of the positions.
            mask: bool, broadcast to ``(B, heads, T, S)``, True where a query may attend; each has at least one.
            context: ``(B, S, D)``, what is attended to; x itself without it.
            causal: No position attends to a later one; without a mask.
            context_rotary: Of the context's positions, where they are others than ``rotary``'s.
        """
        query = self._split(self.q_proj(x))
        query = _rotated(query if self.q_norm is None else self.q_norm(query), rotary)
        key, value = self.keys_and_values(x if context is None else context, context_rotary or rotary)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and mask is None,
            scale=self.head_width**-0.5,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, self.head_width)).transpose(1, 2)


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, GLU Variants Improve Transformer, 2020, arXiv 2002.05202): ``(..., D)`` to the same shape."""

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(options.width, options.inner_width, bias=False)
        self.up_proj = nn.Linear(options.width, options.inner_width, bias=False)
        self.down_proj = nn.Linear(options.inner_width, options.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TransformerBlock(nn.Module):
    """Attention, attention to a context where there is one, and MLP, each added to the residual stream.

    Args:
        options: What it is made of.
    """

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        self.norm_order = options.norm
        self.self_attn = Attention(options)
        self.mlp = GatedMLP(options)
        self.input_layernorm = nn.RMSNorm(options.width, eps=NORM_EPS)
        self.post_attention_layernorm = nn.RMSNorm(options.width, eps=NORM_EPS)
        self.cross_attn = Attention(options) if options.cross else None
        self.cross_attn_layernorm = nn.RMSNorm(options.width, eps=NORM_EPS) if options.cross else None

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = True,
    ) -> Tensor:
        """``(B, T, D)`` to the same shape. Arguments as for ``Attention``; the last but one for the context."""
        norm = self.input_layernorm
        x = self._added(x, self.self_attn(self._entering(x, norm), rotary, mask, causal=causal), norm)
        if self.cross_attn is not None and self.cross_attn_layernorm is not None:
            norm = self.cross_attn_layernorm
            mixed = self.cross_attn(self._entering(x, norm), mask=context_mask, context=context)
            x = self._added(x, mixed, norm)
        norm = self.post_attention_layernorm
        return self._added(x, self.mlp(self._entering(x, norm)), norm)

    def _entering(self, x: Tensor, norm: nn.RMSNorm) -> Tensor:
        return norm(x) if self.norm_order == "pre" else x

    def _added(self, x: Tensor, branch: Tensor, norm: nn.RMSNorm) -> Tensor:
        """The stream and a branch, which autocast may have rounded: it is normalised in the stream's precision."""
        return x + (branch if self.norm_order == "pre" else norm(branch.to(x.dtype)))


class Layers(nn.Module):
    """Embedding, blocks and the last normalisation.

    Args:
        options: Of every block.
        depth: Blocks.
        vocabulary: Symbols of the embedding.
    """

    def __init__(self, options: BlockOptions, depth: int, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, options.width)
        self.layers = nn.ModuleList(TransformerBlock(options) for _ in range(depth))
        self.norm = nn.RMSNorm(options.width, eps=NORM_EPS)
        initialise(self)

    @property
    def blocks(self) -> list[TransformerBlock]:
        """The blocks, typed."""
        return list(self.layers)  # type: ignore[arg-type]


class Transformer(nn.Module):
    """Embedding, blocks, normalisation and head: a Llama, but for the options of its blocks.

    Args:
        options: Of every block.
        depth: Blocks.
        vocabulary: Symbols (K) of the embedding and of the head.
    """

    def __init__(self, options: BlockOptions, depth: int, vocabulary: int) -> None:
        super().__init__()
        self.options = options
        self.model = Layers(options, depth, vocabulary)
        self.lm_head = nn.Linear(options.width, vocabulary, bias=False)
        initialise(self.lm_head)

    def features(
        self,
        x: Tensor,
        rotary: Rotary | None,
        masks: list[Tensor | None] | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = True,
    ) -> Tensor:
        """What the head reads.

        Args:
            x: ``(B, T, D)``.
            rotary: Of the positions.
            masks: For each block, as ``Attention``'s; None for causal attention everywhere.
            context: ``(B, S, D)``, for blocks that attend to one.
            context_mask: bool ``(B, 1, 1, S)``.
            causal: No position attends to a later one, where there is no mask.

        Returns:
            ``(B, T, D)``, normalised.
        """
        for index, block in enumerate(self.model.layers):
            x = block(x, rotary, masks[index] if masks else None, context, context_mask, causal)
        return self.model.norm(x)


def initialise(module: nn.Module) -> None:
    """Llama's first weights: normal of 0.02."""
    for one in module.modules():
        if isinstance(one, nn.Linear | nn.Embedding):
            nn.init.normal_(one.weight, std=0.02)


def _rotated(x: Tensor, rotary: Rotary | None) -> Tensor:
    """The i-th feature of a head and the i-th of its second half are a pair, turned by their angle."""
    if rotary is None:
        return x
    cos, sin = (part[:, None] for part in rotary)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
