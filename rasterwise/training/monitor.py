"""What a training does beside its steps, at intervals: metrics, evaluations, sample images; and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from PIL import Image

from rasterwise.data.splits import Split
from rasterwise.models.pretrained import Pretrained, evaluating
from rasterwise.progress import Progress
from rasterwise.training.checkpoints import Best
from rasterwise.training.fsdp import whole_model
from rasterwise.training.run.run_folder import RunFolder
from rasterwise.training.run.stopwatch import Stopwatch

if TYPE_CHECKING:
    from rasterwise.training.config import TrainingConfig

Evaluate = Callable[[Any, Accelerator], dict[str, float]]
Draw = Callable[[Any], Image.Image]


class Outputs:
    """What a run does beside training, at intervals: metrics and images; and when it is at its end."""

    def __init__(
        self,
        config: TrainingConfig,
        split: Split,
        run: RunFolder,
        accelerator: Accelerator,
        progress: Progress,
        model: Any,
        evaluate: Evaluate,
        draw: Draw | None,
    ) -> None:
        self.config, self.run, self.accelerator, self.progress = config, run, accelerator, progress
        self.model, self.evaluate, self.draw = model, evaluate, draw
        self.interval = config.evaluate_every or math.ceil(split.length / config.batch_size)
        self.test: dict[str, float] = {}
        self.clock = Stopwatch()

    def due(self, step: int, interval: int) -> bool:
        """Whether a step ends an interval (0: that of the evaluations), or the run."""
        return step % (interval or self.interval) == 0 or step == self.config.steps

    def measure(self, step: int, values: dict[str, float]) -> None:
        """Log metrics and draw a sample image, each if it is due."""
        if self.due(step, self.config.log_every) or self.due(step, self.interval):
            self.run.log(step, "train", self._over_processes(values))
        if self.due(step, self.interval):
            with self.clock.timing("evaluation"):
                self.test = run_evaluation(self.model, self.accelerator, self.evaluate)
            self.run.log(step, "test", self.test)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in self.test.items())
            self.progress.line(f"step {step}: {shown}")
        if self.draw and self.due(step, self.config.sample_every):
            with self.clock.timing("evaluation"):
                model = whole_model(self.model)
                if self.run.main:
                    with evaluating(model), torch.no_grad():
                        self.run.image(step, "samples", self.draw(model))

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """Means over all processes: each has seen its own part of the batch."""
        numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(values, self.accelerator.reduce(numbers, "mean").tolist(), strict=True))

    def best(self, step: int, criterion: str, before: Best | None) -> Best | None:
        """The step with its value of the criterion, if it was evaluated and is the best so far."""
        value = self.test.get(criterion, math.nan) if self.due(step, self.interval) else math.nan
        return Best(step, value) if value < (before.value if before else math.inf) else None

    def over(self, step: int, best: Best | None) -> bool:
        """Whether the run is at its end: the last step, or patience run out.

        It follows from the step and the best one alone, both of which a checkpoint holds.
        """
        waited = step // self.interval - (best.step // self.interval if best else 0)
        return step >= self.config.steps or 0 < self.config.patience <= waited


def run_evaluation(model: Pretrained, accelerator: Accelerator, evaluate: Evaluate) -> dict[str, float]:
    """Metrics of a model on the test split, in evaluation mode and without gradients."""
    model = whole_model(model)
    with evaluating(model), torch.no_grad(), accelerator.autocast():
        return evaluate(model, accelerator)
