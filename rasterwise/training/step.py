"""One training step: forward, backward, clip, check, update. The loop, comparisons and benchmarks all take it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rasterwise.data.splits import Batch
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.models.pretrained import Pretrained
from rasterwise.training.config import TrainingConfig
from rasterwise.training.fsdp import check_sharding, shard_like, whole
from rasterwise.training.gradient_checkpointing import checkpoint_layers
from rasterwise.training.objective import Losses, Objective
from rasterwise.training.optimizer import adamw, averaged_model, learning_rate_share


class TrainingStep:
    """The step of a training: called with a batch, it changes the weights once.

    Args:
        objective: The model with its losses; it is moved to the accelerator's device, into training mode.
        config: How it is trained.
        accelerator: From ``start_accelerator``.

    Attributes:
        model: What is evaluated and saved: the averaged weights, or the trained ones where none are averaged.
        modules: All that a checkpoint holds of weights and buffers, by name.
        optimizers: All that it holds of optimizers, by name.

    Raises:
        InputError: The model cannot be sharded, and Accelerate's configuration asks for it.

    Example:
        >>> import torch
        >>> from rasterwise import Grid, PixelCNN, PixelCNNConfig
        >>> from rasterwise.data.splits import Batch
        >>> from rasterwise.training.accelerator import start_accelerator
        >>> from rasterwise.training.config import TrainingConfig
        >>> from rasterwise.training.likelihood import LikelihoodObjective
        >>> model = PixelCNN(PixelCNNConfig(grid=Grid(1, 4, 4, 2), width=8, blocks=1, output_width=8))
        >>> config = TrainingConfig(batch_size=3, device="cpu")
        >>> train_step = TrainingStep(LikelihoodObjective(model), config, start_accelerator(config))
        >>> list(train_step(Batch(torch.randint(2, (3, 1, 4, 4))), 0))
        ['nll_nats', 'nats_per_symbol', 'gradient_norm', 'learning_rate']
    """

    def __init__(self, objective: Objective, config: TrainingConfig, accelerator: Accelerator) -> None:
        if objective.adversaries and config.precision == "fp16":
            raise InputError("an adversary is not trained in fp16, whose loss scale is one model's; use bf16")
        self.config, self.accelerator = config, accelerator
        self._trained = objective.model.to(accelerator.device)
        self._averaged = averaged_model(self._trained, config.ema_decay)
        if config.gradient_checkpointing:
            checkpoint_layers(objective.model)
        named = {"": objective}
        named |= {f"adversary_{number}_": one for number, one in enumerate(objective.adversaries, 1)}
        self._learners = [_Learner(prefix, one, config, accelerator) for prefix, one in named.items()]
        self.model = self._trained
        self.modules: dict[str, nn.Module] = {
            f"{one.prefix}objective": one.objective for one in self._learners
        }
        self.optimizers = {f"{one.prefix}optimizer": one.optimizer for one in self._learners}
        if self._averaged:
            shard_like(self._averaged.module, objective.model)
            self.model = cast(Pretrained, self._averaged.module)
            self.modules["averaged"] = self._averaged

    def __call__(self, batch: Batch, step: int) -> dict[str, float]:
        """Take one step.

        Args:
            batch: This process's items of the step's batch.
            step: How many steps were taken before; the learning rate depends on it.

        Returns:
            The losses that the objective shows, the gradient's norm before clipping, and the learning rate. In
            fp16, a norm that overflowed is left out: that step changes no weights, and the next has a lower scale.

        Raises:
            NonFiniteError: A loss or the gradient's norm is not finite. No weight was changed.
        """
        config, batch = self.config, batch.to(self.accelerator.device)
        share = learning_rate_share(step, steps=config.steps, warmup_steps=config.warmup_steps)
        shown: dict[str, Tensor] = {}
        for learner in self._learners:
            learner.objective.begin_step(step, config.steps)
        for part in parts(batch, config.accumulate):
            for learner in self._learners:
                for name, value in learner.backward(part).items():
                    shown[name] = shown.get(name, torch.zeros_like(value)) + value / config.accumulate
        for learner in self._learners:
            shown[f"{learner.prefix}gradient_norm"] = learner.clip()
        values = _finite(shown, step + 1, self.accelerator.scaler)
        for learner in self._learners:
            learner.update(config.learning_rate * share)
        if self._averaged:
            self._averaged.update_parameters(self._trained)
        return {**values, "learning_rate": config.learning_rate * share}


class _Learner:
    """One objective with its optimizer. Its prefix keeps its names apart from those of other learners."""

    def __init__(
        self, prefix: str, objective: Objective, config: TrainingConfig, accelerator: Accelerator
    ) -> None:
        check_sharding(objective.model, accelerator)
        self.prefix, self.objective, self.config = prefix, objective, config
        self.accelerator = accelerator
        optimizer = adamw(objective.to(accelerator.device), config)
        # Accelerate has the forward pass autocast, and its losses in float32.
        self._forward, self.optimizer = accelerator.prepare(objective.train(), optimizer)
        if config.compile:
            self._forward.compile()

    def backward(self, part: Batch) -> dict[str, Tensor]:
        """Add the gradient of a part of a batch; returns what its losses show.

        Processes exchange gradients once a batch, after its last part.
        """
        waits = contextlib.nullcontext() if part.last_part else self.accelerator.no_sync(self._forward)
        with waits:
            losses = self._losses(part)
            self.accelerator.backward(losses.total / self.config.accumulate)
        return {f"{self.prefix}{name}": value for name, value in losses.shown.items()}

    def _losses(self, part: Batch) -> Losses:
        if not self.config.compile:
            return self._forward(part)
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._forward(part)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2])
            raise InputError(
                f"torch.compile fails on this model or machine ({reason}); train without --compile"
            ) from error

    def clip(self) -> Tensor:
        """Scale the gradient down to the highest norm; returns the norm that it had."""
        self.accelerator.unscale_gradients(self.optimizer)
        parameters, highest = self._forward.parameters(), self.config.clip_norm or math.inf
        return whole(torch.nn.utils.clip_grad_norm_(parameters, highest))

    def update(self, learning_rate: float) -> None:
        """Change the weights by the gradient, and forget it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into equal parts; all but the last one say that more of the batch follows."""
    size = len(batch) // count
    for index in range(count):
        part = batch[index * size : (index + 1) * size]
        yield dataclasses.replace(part, last_part=index == count - 1)


def _finite(values: dict[str, Tensor], step: int, scaler: torch.amp.GradScaler | None) -> dict[str, float]:
    """The values as floats, in one transfer from the device for all of them.

    A gradient that overflowed because its loss was scaled is left out: the scaler skips the step and lowers the
    scale of the next ones.
    """
    floats = torch.stack([value.detach().float() for value in values.values()]).tolist()
    finite = {name: value for name, value in zip(values, floats, strict=True) if math.isfinite(value)}
    for name, value in zip(values, floats, strict=True):
        if name not in finite and not (name.endswith("gradient_norm") and scaler and scaler.get_scale() > 1):
            raise NonFiniteError(
                f"{name} is {value} at step {step}; the last checkpoint stays. A lower --learning-rate may help"
            )
    return finite
