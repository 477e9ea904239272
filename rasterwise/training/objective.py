"""What is trained: a model with its losses, the data, and how the model is measured and shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from rasterwise.data.dataset import ImageData
from rasterwise.data.splits import Batch, Split
from rasterwise.models.pretrained import Pretrained
from rasterwise.tokenizers.text import TextTokenizer

Evaluate = Callable[[Any, Accelerator], dict[str, float]]
"""A model in evaluation mode to its metrics over the whole test split; all processes call it, without gradients."""

Draw = Callable[[Any], Image.Image]
"""A model in evaluation mode to a sample image; the main process calls it, without gradients."""


@dataclass(frozen=True)
class Losses:
    """The losses of a batch.

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
        criterion: The test metric that decides which weights are best, the lower the better; empty for none.
        adversaries: Objectives with models of their own (a discriminator's, say), which the same training step
            trains, each with an optimizer of its own. All of them compute a part of a batch one after the other,
            before any weight changes, and none may leave a gradient in another one's parameters. In a tuple they
            are no submodules, so that each model has one optimizer.
    """

    model: Pretrained
    criterion: str = ""
    adversaries: tuple[Objective, ...] = ()

    def begin_step(self, step: int, steps: int) -> None:
        """Set what changes in the course of a training: a temperature, say, or what takes part from some step on.

        Args:
            step: How many steps were taken before this one.
            steps: How many there will be in all.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...


@dataclass(frozen=True)
class TrainingTask:
    """What is trained, on what, and what is recorded of it.

    Attributes:
        objective: The model with its losses; on the CPU.
        split: What to train on.
        evaluate: Measures the model.
        draw: Shows the model; None for no sample images.
        card: Text for the model card.
        save_tokenizer: Writes the tokenizer of the model's symbols into a folder, with which the run becomes a
            pipeline; None where the model needs none.
        images: The images that it is trained on, if any: reports count them.
        text_tokenizer: That of the model's texts, which goes into the run too; None where the model knows no text.
    """

    objective: Objective
    split: Split
    evaluate: Evaluate
    draw: Draw | None = None
    card: str = ""
    save_tokenizer: Callable[[Path], object] | None = None
    images: ImageData | None = None
    text_tokenizer: TextTokenizer | None = None
