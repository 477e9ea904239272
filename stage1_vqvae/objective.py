"""What trains a learned tokenizer: the errors of its reconstructions, and a discriminator of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from rasterwise.data.splits import Batch
from rasterwise.images import to_unit
from rasterwise.training.objective import Losses, Objective
from stage1_vqvae.losses.adversarial import (
    AdversarialConfig,
    PatchDiscriminator,
    adaptive_weight,
    decoder_loss,
    discriminator_loss,
)
from stage1_vqvae.losses.likelihood import raised
from stage1_vqvae.losses.perceptual import PerceptualConfig, PerceptualLoss
from stage1_vqvae.reconstruction import Reconstruction
from stage1_vqvae.tokenizers.learned import LearnedTokenizer

LEAST_ERROR = 4e-14
"""Mean squared error of a perfect reconstruction, as the training's PSNR has it: 140 dB."""


class LearnedTokenizerObjective(Objective):
    """The error of the reconstruction, the quantizer's auxiliary loss, and a perceptual and an adversarial loss.

    Args:
        model: The tokenizer; its configuration says which error.
        perceptual: The perceptual loss; none of weight 0.
        adversarial: The adversarial loss, for which a discriminator is trained in the same step; none of weight 0.

    Attributes:
        adversaries: The discriminator, or nothing.
        criterion: The error on the test split. With a perceptual or an adversarial loss there is none: the error,
            which they raise on purpose, would say that the weights before they took part are best.

    Raises:
        InputError: The network of the perceptual loss cannot be opened.
    """

    model: LearnedTokenizer
    adversaries: tuple[DiscriminatorObjective, ...] = ()

    def __init__(
        self,
        model: LearnedTokenizer,
        perceptual: PerceptualConfig | None = None,
        adversarial: AdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        if not model.likelihood.has_nats:
            self.criterion = "mse"
        else:
            self.criterion = "reconstruction_bits_per_dim"
        self.perceptual: PerceptualLoss | None = None
        if perceptual and perceptual.perceptual_weight:
            self.criterion, self.perceptual = "", PerceptualLoss(perceptual)
        if adversarial and adversarial.adversarial_weight:
            self.criterion, self.adversaries = "", (DiscriminatorObjective(model.channels, adversarial),)

    def begin_step(self, step: int, steps: int) -> None:
        """Anneal the quantizer."""
        self.model.quantizer.anneal(step / steps)

    def forward(self, batch: Batch) -> Losses:
        images = batch.values
        reconstruction: Reconstruction = self.model(images, more_to_come=not batch.last_part)
        mean = reconstruction.mean
        target = to_unit(images, mean.dtype)
        loss = reconstruction.error(images).mean()
        seen = F.mse_loss(mean.detach().clamp(-1, 1), target)
        shown = {
            # Images span 2 from black to white. An error below what float32 resolves is none, and no reason to stop.
            "psnr_db": -10 * torch.log10(seen.clamp(min=LEAST_ERROR) / 4),
            f"reconstruction_{reconstruction.likelihood.name}": loss.detach(),
            "auxiliary_loss": reconstruction.auxiliary_loss.detach(),
        }
        if self.perceptual:
            apart = self.perceptual(mean, target).mean()
            shown["perceptual_loss"] = apart.detach()
            loss = loss + self.perceptual.config.perceptual_weight * apart
        for discriminator in self.adversaries:
            loss = loss + self._adversarial(discriminator, mean, loss, shown)
        return Losses(loss + reconstruction.auxiliary_loss, shown)

    def _adversarial(
        self, discriminator: DiscriminatorObjective, mean: Tensor, loss: Tensor, shown: dict[str, Tensor]
    ) -> Tensor | int:
        """The weighted adversarial loss; the discriminator learns from the same reconstructions afterwards."""
        discriminator.drawn = mean.detach()
        if not discriminator.takes_part:
            return 0
        config = discriminator.config
        fooling = decoder_loss(discriminator.frozen_scores(mean), config.adversarial_loss)
        balance = adaptive_weight(
            loss, fooling, self.model.decoder.last_weight, config.highest_adaptive_weight
        )
        shown |= {"adversarial_loss": fooling.detach(), "adaptive_weight": balance}
        return config.adversarial_weight * balance * fooling


class DiscriminatorObjective(Objective):
    """A discriminator, which learns to tell images from reconstructions of them.

    Before it takes part its gradients are 0, and its weights stay all but as they are.

    Args:
        channels: Of the images.
        config: The discriminator, and from which step on it takes part.

    Attributes:
        drawn: The reconstructions of the batch that comes next, without a graph; the tokenizer's objective sets them.
        takes_part: Whether the training has come to the step from which on it does.
    """

    model: PatchDiscriminator  # type: ignore[assignment]  # which no model folder holds

    def __init__(self, channels: int, config: AdversarialConfig) -> None:
        super().__init__()
        self.model = PatchDiscriminator(channels, config)
        self.config = config
        self.drawn: Tensor | None = None
        self.takes_part = True

    def begin_step(self, step: int, steps: int) -> None:
        """Take part from the configured step on."""
        self.takes_part = step >= self.config.adversarial_start

    def frozen_scores(self, images: Tensor) -> Tensor:
        """Scores of images, whose gradients reach the images alone."""
        weights = {name: weight.detach() for name, weight in self.model.named_parameters()}
        return raised(functional_call(self.model, weights, (images,)))

    def forward(self, batch: Batch) -> Losses:
        assert self.drawn is not None
        if not self.takes_part:
            return Losses(torch.stack([weight.sum() for weight in self.model.parameters()]).sum() * 0, {})
        real = raised(self.model(to_unit(batch.values, self.drawn.dtype)))
        drawn, self.drawn = raised(self.model(self.drawn)), None
        loss = discriminator_loss(real, drawn, self.config.adversarial_loss)
        shown = {"loss": loss.detach(), "score_of_images": real.detach().mean()}
        return Losses(loss, {**shown, "score_of_reconstructions": drawn.detach().mean()})
