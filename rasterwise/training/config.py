"""How a model is trained, and how a training ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rasterwise.errors import InputError


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        steps: Optimizer steps.
        batch_size: Items a step, over all processes and accumulated batches together.
        learning_rate: AdamW's, at its highest: after the warm-up, before the cosine takes it to 0.
        warmup_steps: Steps in which the learning rate rises from 0.
        weight_decay: Decoupled, on matrices and convolution kernels alone.
        clip_norm: Gradients are scaled down to this norm (0: never).
        accumulate: Parts that a batch is cut into to save memory; the gradient is the same.
        precision: fp32, or autocast to bf16 or fp16 on CPUs and GPUs that have it, fp16 with its loss scaled;
            weights, codebook and likelihoods stay in float32.
        gradient_checkpointing: Compute layers again in the backward pass instead of holding all that they
            computed: less memory and about a third more time, for the same gradients.
        compile: Let torch.compile fuse the objective's forward and backward pass: a minute or two at the
            start, then faster steps; sums are rounded otherwise than in eager training.
        ema_decay: Decay of the averaged weights, which are the ones evaluated and saved (0: no averaging).
        evaluate_every: Steps between evaluations on the whole test split (0: once an epoch).
        log_every: Steps between lines of training metrics (0: at each evaluation); each evaluation has one too.
        patience: End the run after this many evaluations without a better one (0: never).
        sample_every: Steps between sample images (0: at each evaluation).
        save_every: Steps between checkpoints (0: at each evaluation). An evaluation that finds the best
            weights so far makes one too.
        keep_last: Checkpoints kept, beside the one with the best weights.
        seed: Of the first weights, the data order and the noise.
        device: auto takes a GPU where there is one.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: float = 0.999
    evaluate_every: int = 0
    log_every: int = 50
    patience: int = 0
    sample_every: int = 0
    save_every: int = 0
    keep_last: int = 2
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "keep_last"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("evaluate_every", "log_every", "patience", "sample_every", "save_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, expected at least 0 (off) and below 1")

    def check_processes(self, count: int) -> None:
        """InputError where that many processes cannot share a batch."""
        if self.batch_size % (count * self.accumulate):
            raise InputError(
                f"batch_size {self.batch_size} cannot be shared by {count} processes × {self.accumulate} parts"
            )


@dataclass(frozen=True)
class TrainingReport:
    """How a training run ended.

    Attributes:
        steps: Optimizer steps done in all.
        seconds: Wall-clock seconds of this session: of training, evaluation and saving.
        training_seconds: Of its training steps, waiting for data included.
        evaluation_seconds: Of evaluations and sample images.
        saving_seconds: Of checkpoints and models.
        waiting_seconds: Of waiting for data.
        items_per_second: Training items by training_seconds.
        parameters: Trained parameters of the model.
        device: What it ran on.
        stopped: True if it was asked to stop before its end.
        stopped_early: True if its end came before its last step, since patience had run out.
        test: The last metrics on the test split.
        best_step: The step whose weights are in ``model-best``; None where no metric tells.
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
    stopped_early: bool
    test: dict[str, float]
    best_step: int | None
