"""Precision and recall by nearest neighbours."""

from __future__ import annotations

import pytest
import torch

from pipeline.evaluation import precision_recall as module
from pipeline.evaluation.precision_recall import PrecisionRecall, precision_recall
from rasterwise.errors import InputError


def test_known_sets() -> None:
    """The same points; far ones; one of two clusters; both clusters where one is real."""
    cluster = torch.randn(40, 3, dtype=torch.float64)
    far = cluster + 100
    both = torch.cat([cluster, far])
    assert precision_recall(cluster, cluster) == PrecisionRecall(1, 1)
    assert precision_recall(cluster, far) == PrecisionRecall(0, 0)
    assert precision_recall(both, cluster) == PrecisionRecall(1, 0.5)
    assert precision_recall(cluster, both) == PrecisionRecall(0.5, 1)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_by_hand(neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over all pairs gives the same, however the points are cut into parts."""
    monkeypatch.setattr(module, "ROWS", 5)
    real, drawn = torch.randn(15, 2).double(), torch.randn(12, 2).double() * 2

    def share(points: torch.Tensor, centres: torch.Tensor) -> float:
        inside = 0
        for point in points:
            for number, centre in enumerate(centres):
                others = sorted((one - centre).norm() for index, one in enumerate(centres) if index != number)
                if (point - centre).norm() <= others[neighbours - 1]:
                    inside += 1
                    break
        return inside / len(points)

    found = precision_recall(real, drawn, neighbours)
    assert found == PrecisionRecall(share(drawn, real), share(real, drawn))
    assert 0 < found.precision < 1


def test_too_few_images_are_refused() -> None:
    with pytest.raises(
        InputError, match="precision and recall of 3 and 9 images were asked for, expected more than 3"
    ):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
