"""A model together with the loss that trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from rasterwise.data.splits import Batch
from rasterwise.models.pretrained import Pretrained


@dataclass(frozen=True)
class Losses:
    """What an objective gives for a batch.

    Attributes:
        total: The scalar to minimise, a mean over the batch's items.
        shown: Detached scalars in units of their own, for the progress bar and the log.
    """

    total: Tensor
    shown: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A model and what is minimised to train it.

    Attributes:
        model: What is trained and saved.
        criterion: The test metric that tells which weights are best, the lower the better; empty: none does.
        more_to_come: Whether the batch is a part of one that is accumulated, and not the last: what is learned
            without gradients waits for the last.
    """

    model: Pretrained
    criterion: str = ""
    more_to_come: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...
