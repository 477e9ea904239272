"""The hierarchical prior of VQ-VAE-2."""

from __future__ import annotations

from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition
from stage2_prior.hierarchical.decoder import HierarchicalDecoder
from stage2_prior.hierarchical.network import HierarchicalPriorNetwork


class HierarchicalPrior(HierarchicalPriorNetwork):
    """p(top) · p(bottom | top) over two grids of codes, each by a transformer prior.

    A bidirectional encoder reads the whole top grid; its features are upsampled, and added in place at each position of
    the bottom grid's transformer. All three are trained at once, since the loss is a sum. The paper's two priors are
    PixelSNAILs, with residual convolutions between them, and are trained apart.

    Args:
        config: Its architecture and its data: the joint grid of codes of two grids (``TwoGrids``).

    References:
        Razavi et al., Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019 (arXiv 1906.00446), section 3.2.

    Example:
        >>> import torch
        >>> from rasterwise import Grid, HierarchicalPrior, HierarchicalPriorConfig
        >>> joint = Grid(1, 10, 2, 16)  # a top grid of 2×2, and a bottom grid of 4×4
        >>> prior = HierarchicalPrior(HierarchicalPriorConfig(grid=joint, width=32, heads=2)).eval()
        >>> symbols = prior.sample(3)
        >>> top, bottom = prior.grid_log_probs(symbols)
        >>> symbols.shape, bool(torch.allclose(top + bottom, prior.log_prob(symbols)))
        (torch.Size([3, 1, 10, 2]), True)
    """

    kind = "hierarchical-prior"
    decodes_in_bf16 = True

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return HierarchicalDecoder(self, batch_size, condition)
