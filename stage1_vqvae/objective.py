"""What trains a learned tokenizer."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rasterwise.data.splits import Batch
from rasterwise.training.objective import Losses, Objective
from stage1_vqvae.reconstruction import Reconstruction, to_unit
from stage1_vqvae.tokenizers.learned import LearnedTokenizer

LEAST_ERROR = 4e-14
"""Mean squared error of a perfect reconstruction, as the training's PSNR has it: 140 dB."""


class LearnedTokenizerObjective(Objective):
    """The error of the reconstruction plus the quantizer's auxiliary loss.

    Args:
        model: The tokenizer; its configuration says which error.
    """

    model: LearnedTokenizer

    def __init__(self, model: LearnedTokenizer) -> None:
        super().__init__()
        self.model = model
        self.criterion = "mse" if model.config.likelihood == "mse" else "reconstruction_bits_per_dim"

    def begin_step(self, step: int, steps: int) -> None:
        """Anneal the quantizer."""
        self.model.quantizer.anneal(step / steps)

    def forward(self, batch: Batch) -> Losses:
        images = batch.values
        reconstruction: Reconstruction = self.model(images, more_to_come=not batch.last_part)
        target = to_unit(images, self.model)
        seen = F.mse_loss(reconstruction.mean.detach().clamp(-1, 1), target)
        # Images span 2 from black to white. An error below what float32 resolves is none, and no reason to stop.
        shown = {"psnr_db": -10 * torch.log10(seen.clamp(min=LEAST_ERROR) / 4)}
        if reconstruction.log_scale is None:
            error = F.mse_loss(reconstruction.mean, target)
        else:
            error = reconstruction.nats(images).mean() / images[0].numel()
            shown["reconstruction_nats_per_dim"] = error.detach()
        shown["auxiliary_loss"] = reconstruction.auxiliary_loss.detach()
        return Losses(error + reconstruction.auxiliary_loss, shown)
