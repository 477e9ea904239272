"""Image networks whose weights never change: features for losses and for distances between images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageFeatures:
    """What a frozen network makes of images.

    Attributes:
        maps: Of its stages, each at half the resolution of the one before, float ``(B, D, h, w)``.
        pooled: The last features' mean over all positions, float ``(B, F)``.
    """

    maps: tuple[Tensor, ...]
    pooled: Tensor


class FrozenNetwork(nn.Module):
    """The stages of a network that was trained to classify ImageNet.

    The weights are buffers and in no state dict: no optimizer changes them, no checkpoint holds them. Gradients pass
    through to the images. It stays in evaluation mode.

    Args:
        name: Of the network.
        side: Of the square images that it was trained on.
        stages: Its layers, cut before each halving of the resolution.
        head: From the last stage to the features that are pooled.
        mean: Of the images in [0, 1], of each channel; subtracted from them.
        deviation: What they are divided by then.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> stages = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 2, stride=2)]
        >>> network = FrozenNetwork("small", 8, stages, nn.ReLU(), (0.5,), (0.5,))
        >>> features = network(torch.zeros(2, 1, 8, 8))
        >>> [tuple(one.shape) for one in features.maps], tuple(features.pooled.shape)
        ([(2, 4, 8, 8), (2, 8, 4, 4)], (2, 8))
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        name: str,
        side: int,
        stages: Sequence[nn.Module],
        head: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        super().__init__()
        self.name = name
        self.side = side
        self.stages = nn.ModuleList(stages)
        self.head = head
        for part in (self.stages, self.head):
            _freeze(part)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)
        # Convolutions of single channels are twice as fast with the channels last.
        self.to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Nothing: the evaluation mode stays."""
        return super().train(False)

    def forward(self, images: Tensor) -> ImageFeatures:
        """Images float ``(B, C, H, W)`` in [-1, 1] to all features; C is 3, or 1 for grey."""
        maps = self.maps(images, len(self.stages))
        return ImageFeatures(tuple(maps), self.head(maps[-1]).mean((2, 3)))

    def maps(self, images: Tensor, count: int) -> list[Tensor]:
        """As ``forward``, of the first ``count`` stages alone; the others are not computed."""
        x = ((images + 1) / 2 - self.mean) / self.deviation
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        x, maps = x.contiguous(memory_format=torch.channels_last), []
        for stage in self.stages[:count]:
            x = stage(x)
            maps.append(x)
        return maps


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """How far images are apart in feature maps, each position's features scaled to unit length.

    Args:
        a: Maps float ``(B, D, h, w)``, one of each stage.
        b: Those of the other images.

    Returns:
        ``(B,)``, float32 or float64: squared distances, averaged over positions and over stages; between 0 and 4.

    References:
        Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018 (arXiv 1801.03924);
        without the weights of channels that they fit to human judgements.
    """
    distances = []
    for one, other in zip(a, b, strict=True):
        one, other = (x if x.dtype == torch.float64 else x.float() for x in (one, other))
        apart = F.normalize(one, dim=1, eps=1e-6) - F.normalize(other, dim=1, eps=1e-6)
        distances.append(apart.square().sum(1).mean((1, 2)))
    return torch.stack(distances).mean(0)


def resized_to(images: Tensor, height: int, width: int) -> Tensor:
    """Images float ``(B, C, H, W)`` scaled by a bilinear filter, antialiased where they become smaller."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _freeze(module: nn.Module) -> None:
    """Make every parameter and buffer a buffer that no state dict holds."""
    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            delattr(part, name)
            part.register_buffer(name, tensor.detach(), persistent=False)
