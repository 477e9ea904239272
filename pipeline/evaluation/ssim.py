"""Structural similarity: how alike two images are in brightness, contrast and structure."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import InputError

WINDOW = 11
DEVIATION = 1.5
"""Of the Gaussian window, in pixels."""

LUMINANCE = (0.01 * 255) ** 2
CONTRAST = (0.03 * 255) ** 2
"""They keep the quotients finite where an image is black or flat."""


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images, each channel by itself, averaged over all windows and channels.

    Args:
        a: uint8 ``(B, C, H, W)``.
        b: The other images, of the same shape.

    Returns:
        float64 ``(B,)``, at most 1, which equal images alone have.

    Raises:
        InputError: The images are smaller than the 11×11 window.

    References:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004 (IEEE Transactions
        on Image Processing 13; no arXiv number), with the constants given there. Windows lie within the image.

    Example:
        >>> import torch
        >>> black, grey = torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.full((1, 1, 16, 16), 100).byte()
        >>> structural_similarity(grey, grey).item(), round(structural_similarity(black, grey).item(), 6)
        (1.0, 0.00065)
    """
    height, width = a.shape[-2:]
    if min(height, width) < WINDOW:
        raise InputError(f"images are {height}×{width}, but SSIM needs {WINDOW}×{WINDOW} or more")
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=a.device) - WINDOW // 2
    line = torch.exp(-offsets.square() / (2 * DEVIATION**2))
    line = line / line.sum()

    def windowed(images: Tensor) -> Tensor:
        rows = F.conv2d(images, line.view(1, 1, -1, 1))
        return F.conv2d(rows, line.view(1, 1, 1, -1))

    # Every channel is an image of its own.
    x, y = (images.double().flatten(0, 1)[:, None] for images in (a, b))
    mean_x, mean_y = windowed(x), windowed(y)
    variance_x = windowed(x.square()) - mean_x.square()
    variance_y = windowed(y.square()) - mean_y.square()
    covariance = windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + LUMINANCE) / (mean_x.square() + mean_y.square() + LUMINANCE)
    structure = (2 * covariance + CONTRAST) / (variance_x + variance_y + CONTRAST)
    return (luminance * structure).mean((1, 2, 3)).view(a.shape[:2]).mean(1)
