"""How a model is trained, and how a training ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rasterwise.configuration import BatchSize, Count, CountOrZero, Decay, Seed, Weight, configuration
from rasterwise.errors import InputError


@configuration()
class TrainingConfig:
    """How a model is trained.

    Attributes:
        steps: Optimizer steps.
        batch_size: Items a step, over all processes and accumulated batches together.
        learning_rate: AdamW's highest, reached after the warm-up; half a cosine then takes it down to 0.
        warmup_steps: Steps in which the learning rate rises from 0.
        weight_decay: AdamW's decoupled decay, of matrices and convolution kernels only.
        clip_norm: Gradients are scaled down to this norm (0: never).
        accumulate: Parts that a batch is cut into to save memory; the gradient is the same.
        precision: fp32, or autocast to bf16 or fp16 where the device has it; fp16 scales the loss. Weights,
            codebook and likelihoods stay in float32.
        gradient_checkpointing: Compute layers again in the backward pass instead of keeping their activations:
            less memory and about a third more time, for the same gradients.
        compile: Compile the objective with torch.compile: a minute or two at the start, then faster steps; sums
            are rounded differently than in eager training.
        ema_decay: Decay of the averaged weights, which are evaluated and saved (0: no averaging).
        evaluate_every: Steps between evaluations on the whole test split (0: once an epoch).
        log_every: Steps between lines of training metrics (0: at evaluations only); each evaluation adds one.
        patience: End the run after this many evaluations without an improvement (0: never).
        sample_every: Steps between sample images (0: at each evaluation).
        save_every: Steps between checkpoints (0: at each evaluation). The best weights so far are always saved.
        keep_last: How many of the last checkpoints are kept; the one with the best weights is kept as well.
        seed: Seed of the initial weights, the data order and the noise.
        device: auto uses a GPU where there is one.
    """

    steps: Count = 2000
    batch_size: BatchSize = 64
    learning_rate: Weight = 1e-3
    warmup_steps: CountOrZero = 100
    weight_decay: Weight = 0.01
    clip_norm: Weight = 1.0
    accumulate: BatchSize = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: Decay = 0.999
    evaluate_every: CountOrZero = 0
    log_every: CountOrZero = 50
    patience: CountOrZero = 0
    sample_every: CountOrZero = 0
    save_every: CountOrZero = 0
    keep_last: Count = 2
    seed: Seed = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts")

    def check_processes(self, count: int) -> None:
        """Raise an InputError if that many processes cannot share a batch equally."""
        if self.batch_size % (count * self.accumulate):
            raise InputError(
                f"batch_size {self.batch_size} cannot be shared by {count} processes × {self.accumulate} parts"
            )


@dataclass(frozen=True)
class TrainingReport:
    """How a training run ended. Times and rates are those of the last session: since the run began or was resumed.

    Attributes:
        steps: Optimizer steps of the whole run.
        seconds: Wall-clock seconds of the session.
        training_seconds: Seconds spent on training steps, waiting for data included.
        evaluation_seconds: Seconds spent on evaluations and sample images.
        saving_seconds: Seconds spent on writing checkpoints and models.
        waiting_seconds: Seconds spent waiting for data, which training_seconds include.
        items_per_second: Training items of the session divided by training_seconds.
        parameters: Trained parameters of the model.
        device: The device that it ran on, in words.
        stopped: Whether it was asked to stop before its end.
        stop_signal: The number of the signal that asked it; None where it was not.
        stopped_early: Whether patience ran out before its last step.
        test: The last metrics on the test split.
        best_step: The step whose weights are in ``model-best``; None where no metric says which are best.
    """

    steps: int
    seconds: float
    training_seconds: float
    evaluation_seconds: float
    saving_seconds: float
    waiting_seconds: float
    items_per_second: float
    parameters: int
    device: str
    stopped: bool
    stop_signal: int | None
    stopped_early: bool
    test: dict[str, float]
    best_step: int | None
