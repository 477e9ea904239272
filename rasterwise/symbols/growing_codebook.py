"""Codebooks that grow along the raster order: how many codes each site may have."""

from __future__ import annotations

import torch
from torch import Tensor


def allowed_codes(sites: int, codebook_size: int, smallest: int) -> Tensor:
    """How many of a codebook's codes each site may have, the first ones of it.

    The numbers grow by equal factors from ``smallest`` at the first site to all at the last.

    Args:
        sites: Rows times columns of the code grid.
        codebook_size: K.
        smallest: 1 to K.

    Returns:
        int64 ``(sites,)``, none less than the one before it.

    References:
        Zheng et al., Taming the Entropy Cliff: Variable Codebook Size Quantization for Autoregressive Visual
        Generation, 2026 (arXiv 2605.06207). That the growth is by equal factors is our choice.

    Example:
        >>> allowed_codes(5, 32, 2).tolist()
        [2, 4, 8, 16, 32]
    """
    if sites == 1:
        return torch.tensor([codebook_size])
    shares = torch.arange(sites, dtype=torch.float64) / (sites - 1)
    return (smallest * (codebook_size / smallest) ** shares).round().long().clamp(max=codebook_size)
