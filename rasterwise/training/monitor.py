"""What follows a training's steps: metrics, evaluations, sample images, best weights, and the end of the run."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator

from rasterwise.measure.machine import device_name
from rasterwise.models.pretrained import Pretrained, evaluating
from rasterwise.progress import Progress
from rasterwise.training.checkpoints import Best, Start
from rasterwise.training.config import TrainingConfig, TrainingReport
from rasterwise.training.fsdp import whole_model
from rasterwise.training.objective import Evaluate, TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from rasterwise.training.run.stopwatch import Stopwatch


class Monitor:
    """Records a training, and decides when it is saved and when it ends.

    Every process has one and makes the same calls; only the main process writes.

    Args:
        task: What is trained.
        config: How.
        run: Where metrics and images go.
        accelerator: From ``start_accelerator``.
        progress: Shows how far the run has come.
        model: What is evaluated and drawn from: the averaged weights, where there are any.
        start: Where this session begins.

    Attributes:
        best: The best weights so far.
        clock: How long each kind of work took.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: TrainingConfig,
        run: RunFolder,
        accelerator: Accelerator,
        progress: Progress,
        model: Pretrained,
        start: Start,
    ) -> None:
        self.task, self.config, self.run, self.accelerator = task, config, run, accelerator
        self.progress, self.model, self.start, self.best = progress, model, start, start.best
        self.clock = Stopwatch()
        self._interval = config.evaluate_every or math.ceil(task.split.length / config.batch_size)
        self._test: dict[str, float] = {}

    def after(self, step: int, values: dict[str, float]) -> None:
        """Record a step: log, evaluate and draw, each if it is due, and show the progress.

        Args:
            step: How many steps have been taken.
            values: The last one's, on this process.
        """
        evaluates = self._due(step, self._interval)
        if evaluates or self._due(step, self.config.log_every):
            self.run.log(step, "train", self._over_processes(values))
        if evaluates:
            self._evaluate(step)
        if self.task.draw and self._due(step, self.config.sample_every):
            self._draw(step)
        name, value = next(iter(values.items()))
        rate, waited = self._items_per_second(step), self.clock.waited
        self.progress(
            step, self.config.steps, f"{name} {value:.4g}, {rate:.0f} items/s, {waited:.0%} waiting for data"
        )

    def over(self, step: int) -> bool:
        """Whether the run is at its end: the last step is done, or patience has run out.

        It follows from the step and the best one alone, both of which a checkpoint holds.
        """
        waited = step // self._interval - (self.best.step // self._interval if self.best else 0)
        return step >= self.config.steps or 0 < self.config.patience <= waited

    def is_best(self, step: int) -> bool:
        """Whether the best weights so far are those of this step."""
        return self.best is not None and self.best.step == step

    def saves(self, step: int) -> bool:
        """Whether a step ends in a checkpoint: one is due, its weights are the best, or it is the last."""
        return self.is_best(step) or self._due(step, self.config.save_every) or self.over(step)

    def report(self, step: int, stop_signal: int = 0) -> TrainingReport:
        """The report of a session that ends at a step; a line says why, where it was not the last step.

        Args:
            step: How many steps have been taken.
            stop_signal: The number of the signal that asked it to stop; 0 for none.
        """
        steps, over = self.config.steps, self.over(step)
        if not over:
            self.progress.line(
                f"stopped at step {step} of {steps}; the same command goes on from there, "
                f"and so does --resume {self.run.path}"
            )
        elif step < steps:
            since = f"since step {self.best.step}" if self.best else "at all"
            self.progress.line(
                f"ended early, at step {step} of {steps}: no better {self.task.objective.criterion} {since}; "
                f"the best weights are in {self.run.path / 'model-best'}"
            )
        if over and not self._test:  # the run was killed between its last step and its report
            self._test = evaluated(self.model, self.accelerator, self.task.evaluate)
        return TrainingReport(
            steps=step,
            **self.clock.summary(),
            items_per_second=round(self._items_per_second(step), 1),
            parameters=sum(p.numel() for p in self.task.objective.model.parameters() if p.requires_grad),
            device=device_name(self.accelerator.device),
            stopped=not over,
            stop_signal=None if over else stop_signal,
            stopped_early=over and step < steps,
            test=self._test,
            best_step=self.best.step if self.best else None,
        )

    def _due(self, step: int, interval: int) -> bool:
        """Whether a step ends an interval (0: that of the evaluations), or the run."""
        return step % (interval or self._interval) == 0 or step == self.config.steps

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """Means over all processes: each has seen its own part of the batch."""
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(values, self.accelerator.reduce(tensor, "mean").tolist(), strict=True))

    def _evaluate(self, step: int) -> None:
        with self.clock.timing("evaluation"):
            self._test = evaluated(self.model, self.accelerator, self.task.evaluate)
        self.run.log(step, "test", self._test)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self._test.items())
        self.progress.line(f"step {step}: {shown}")
        value = self._test.get(self.task.objective.criterion, math.nan)
        if value < (self.best.value if self.best else math.inf):
            self.best = Best(step, value)

    def _draw(self, step: int) -> None:
        assert self.task.draw is not None
        with self.clock.timing("evaluation"):
            model = whole_model(self.model)
            if self.run.main:
                with evaluating(model), torch.no_grad():
                    self.run.image(step, "samples", self.task.draw(model))

    def _items_per_second(self, step: int) -> float:
        return (step - self.start.step) * self.config.batch_size / self.clock.training_seconds


def evaluated(model: Pretrained, accelerator: Accelerator, evaluate: Evaluate) -> dict[str, float]:
    """Evaluate a model on the test split, in evaluation mode and without gradients; all processes call this."""
    model = whole_model(model)
    with evaluating(model), torch.no_grad(), accelerator.autocast():
        return evaluate(model, accelerator)
