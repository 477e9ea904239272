"""The transformer prior."""

from __future__ import annotations

from rasterwise.decoding.decoder import Decoder
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition
from stage2_prior.transformer.decoder import PriorDecoder
from stage2_prior.transformer.network import TransformerPriorNetwork


class TransformerPrior(TransformerPriorNetwork):
    """Decoder-only transformer over symbols in raster order, built as Llama is.

    The sequence that it reads is a start vector, which carries the class, and then the symbols but for the
    last; the i-th output gives symbol i, and the i-th rotary position is that of symbol i on the grid.

    Args:
        config: Its architecture and its data.

    References:
        Touvron et al., LLaMA, 2023 (arXiv 2302.13971). As a prior over codes: Esser et al., Taming
        Transformers for High-Resolution Image Synthesis, 2020 (arXiv 2012.09841); Sun et al., 2024
        (arXiv 2406.06525).

    Example:
        >>> import torch
        >>> from rasterwise import Condition, Grid, TransformerPrior, TransformerPriorConfig
        >>> config = TransformerPriorConfig(grid=Grid(1, 4, 4, 16), classes=("cat", "dog"), width=32, heads=2)
        >>> prior = TransformerPrior(config).eval()
        >>> symbols = prior.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, prior.log_prob(symbols).shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2]))
    """

    kind = "transformer-prior"
    decodes_in_bf16 = True

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PriorDecoder(self, batch_size, condition)

    def window_decoder(
        self, batch_size: int, condition: Condition | None = None, *, window: int
    ) -> TransformerDecoder:
        return PriorDecoder(self, batch_size, condition, positions=window)
