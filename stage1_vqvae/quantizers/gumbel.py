"""Gumbel-softmax: a distribution over codes, relaxed in training."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from rasterwise.configuration import Levels, Positive, Share, Weight, Width, configuration
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig


@configuration()
class GumbelQuantizerConfig(QuantizerConfig):
    """Codes drawn by Gumbel-softmax in training; the likeliest afterwards.

    Attributes:
        codebook_size: How many codes there are (K); the encoder gives as many logits a site.
        code_width: Length of a code vector.
        relaxed: Give the decoder the relaxed mixture of code vectors, as the discrete VAE does, not the drawn one.
        temperature: Of the softmax as training begins.
        final_temperature: Of the softmax as it ends; along half a cosine.
        kl_weight: Weight of the mean divergence of a site's distribution from the uniform one, in nats. With a
            likelihood, 1 / (factor² · channels) makes the loss the negative ELBO of the relaxed model, per subpixel.
        kl_warmup: Share of the training in which that weight rises from 0, along half a cosine.
        kind: The quantizer's name.
    """

    codebook_size: Levels = 512
    code_width: Width = 64
    relaxed: bool = False
    temperature: Positive = 1.0
    final_temperature: Positive = 1 / 16
    kl_weight: Weight = 1e-2
    kl_warmup: Share = 0.0
    kind: Annotated[Literal["gumbel"], tyro.conf.Suppress] = "gumbel"

    def build(self) -> GumbelQuantizer:
        """A quantizer with a random codebook."""
        return GumbelQuantizer(self)


class GumbelQuantizer(Quantizer):
    """Latents are logits of codes. Training draws a code by Gumbel noise, with the gradient of a softmax.

    Args:
        config: Size of the codebook, temperatures, and the weight of the divergence.

    Attributes:
        temperature: Of the softmax, a scalar; ``anneal`` sets it.
        kl_weight: Of the divergence, a scalar; ``anneal`` sets it.

    References:
        Jang et al., Categorical Reparameterization with Gumbel-Softmax, 2016 (arXiv 1611.01144).
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092), section 2.1 and appendix A.2.

    Example:
        >>> import torch
        >>> quantizer = GumbelQuantizer(GumbelQuantizerConfig(codebook_size=16, code_width=8))
        >>> quantized = quantizer(torch.randn(2, 16, 4, 4))
        >>> quantized.codes.shape, quantized.latents.shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2, 8, 4, 4]))
    """

    temperature: Tensor
    kl_weight: Tensor

    def __init__(self, config: GumbelQuantizerConfig) -> None:
        size, width = config.codebook_size, config.code_width
        super().__init__(codebook_size=size, latent_width=size, code_width=width)
        self.config = config
        # Tensors, so that nothing is compiled anew as they change. They follow from the step, and are in no file.
        self.register_buffer("temperature", torch.tensor(float(config.temperature)), persistent=False)
        self.register_buffer("kl_weight", torch.tensor(float(config.kl_weight)), persistent=False)
        self.codebook = nn.Parameter(torch.randn(size, width))

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """Vectors of drawn codes in training, with the softmax's gradient; of the likeliest codes in evaluation."""
        log_probabilities = F.log_softmax(latents, -1)
        divergence = (log_probabilities.exp() * (log_probabilities + math.log(self.codebook_size))).sum(-1)
        loss = self.kl_weight * divergence.mean()
        if not self.training:
            codes = latents.argmax(-1, keepdim=True)
            return Quantized(self.vectors(codes), codes, loss)
        drawn = F.gumbel_softmax(
            latents,
            tau=self.temperature,  # type: ignore[arg-type]
            hard=not self.config.relaxed,
        )
        return Quantized(drawn @ self.codebook, drawn.argmax(-1, keepdim=True), loss)

    def vectors(self, codes: Tensor) -> Tensor:
        """Rows of the codebook."""
        return self.codebook[codes[..., 0]]

    def anneal(self, share: float) -> None:
        """Lower the temperature from the first to the final one; raise the divergence's weight in the warm-up."""
        first, final = self.config.temperature, self.config.final_temperature
        self.temperature.fill_(final + (first - final) * (1 + math.cos(math.pi * share)) / 2)
        risen = min(1.0, share / self.config.kl_warmup) if self.config.kl_warmup else 1.0
        self.kl_weight.fill_(self.config.kl_weight * (1 - math.cos(math.pi * risen)) / 2)
