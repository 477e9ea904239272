"""The feature space of the Fréchet distance."""

from __future__ import annotations

import torch

from pipeline.evaluation.features import Projection, image_features


def stripes(across: bool) -> torch.Tensor:
    """An image of stripes, ``(1, 1, 32, 32)``."""
    lines = (torch.arange(32) // 4 % 2 * 255).to(torch.uint8)
    image = lines.expand(32, 32) if across else lines[:, None].expand(32, 32)
    return image[None, None].contiguous()


def test_features_tell_directions_and_colours_apart() -> None:
    """Stripes one way and the other; red and blue of the same grey."""
    assert not torch.allclose(image_features(stripes(True)), image_features(stripes(False)), atol=0.1)
    red, blue = torch.zeros(2, 1, 3, 16, 16, dtype=torch.uint8)
    red[:, 0], blue[:, 2] = 90, 90
    assert not torch.allclose(image_features(red), image_features(blue), atol=0.1)


def test_features_are_finite_and_of_each_image_alone() -> None:
    """Flat images too; an image's features do not depend on the batch."""
    images = torch.cat([torch.zeros(1, 3, 12, 12), torch.randint(256, (3, 3, 12, 12))]).to(torch.uint8)
    features = image_features(images)
    assert features.dtype == torch.float64
    assert features.isfinite().all()
    assert torch.allclose(features[2:], image_features(images[2:]), atol=1e-12)


def test_gradients_fall_in_their_directions() -> None:
    """Stripes side by side have gradients to the right and to the left alone: bins 0 and 4 of 8."""
    features = image_features(stripes(True))[0].view(-1, 4, 4)
    assert features.shape[0] == 8 + 2
    assert features[[0, 4]].sum() > 0
    assert torch.isclose(features[[0, 4]].sum(), features[:8].sum())


def test_projection() -> None:
    """Centred, in at most N − 1 directions, and blind to what hardly varies."""
    points = torch.randn(12, 5, dtype=torch.float64)
    points[:, 4] = 1e-9 * points[:, 4]
    projection = Projection.fit(points, dimensions=3)
    assert projection(points).shape == (12, 3)
    assert projection(points).mean(0).abs().max() < 1e-12
    assert Projection.fit(points[:3])(points).shape == (12, 2)
    moved = points.clone()
    moved[:, 4] += 0.01
    assert (projection(moved) - projection(points)).abs().max() < 0.1
