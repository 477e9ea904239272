"""Training in random orders, whose probability falls in the course of training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rasterwise.symbols.condition import Condition
from rasterwise.training.likelihood import LikelihoodObjective
from stage2_prior.any_order.model import AnyOrderPrior


class AnyOrderObjective(LikelihoodObjective):
    """Negative log-likelihood in random orders and in raster order, averaged over the symbols of a batch.

    Each grid has a random order with a probability that is 1 up to ``anneal_from``, falls linearly, and from
    ``anneal_to`` on is the model's ``final_random_share``; else it is in raster order. The orders of a step depend on
    the seed and the step alone.

    Args:
        model: What is trained.
        seed: Of the orders.
        anneal_from: Share of the training after which the probability falls.
        anneal_to: Share of the training after which it stays.
        label_dropout: As for ``LikelihoodObjective``.

    References:
        Yu et al., Randomized Autoregressive Visual Generation, 2024 (arXiv 2411.00776).
    """

    model: AnyOrderPrior

    def __init__(
        self,
        model: AnyOrderPrior,
        *,
        seed: int = 0,
        anneal_from: float = 0.5,
        anneal_to: float = 0.75,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(model, label_dropout=label_dropout)
        self.seed, self.anneal_from, self.anneal_to = seed, anneal_from, anneal_to
        self.begin_step(0, 1)

    def begin_step(self, step: int, steps: int) -> None:
        self.random_share = self.random_share_after(step / steps)
        self._generator = np.random.default_rng([self.seed, step])

    def random_share_after(self, done: float) -> float:
        """The probability of a random order after a share of the training."""
        if done >= self.anneal_to:
            return self.model.config.final_random_share
        annealed = max(0.0, done - self.anneal_from) / max(self.anneal_to - self.anneal_from, 1e-12)
        return 1 - annealed * (1 - self.model.config.final_random_share)

    def _log_prob(self, symbols: Tensor, condition: Condition | None) -> Tensor:
        sequences = self.sequences(len(symbols)).to(symbols.device)
        return self.model.log_prob_in_orders(symbols, condition, sequences)

    @torch.compiler.disable
    def sequences(self, batch_size: int) -> Tensor:
        """The next grids' orders of this step, int64 ``(B, N)``: random ones, or raster order."""
        raster = np.tile(np.arange(self.model.grid.size), (batch_size, 1))
        random = self._generator.random(batch_size) < self.random_share
        permuted = self._generator.permuted(raster, axis=1)
        return torch.from_numpy(np.where(random[:, None], permuted, raster))
