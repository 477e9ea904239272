"""Lookup-free quantization: the signs of the channels are the code."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
import tyro
from torch import Tensor

from rasterwise.configuration import Levels, Positive, Weight, configuration
from rasterwise.errors import InputError
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig, straight_through

MAX_BITS = 24
"""The average probability of every code is computed in training."""


@configuration()
class LFQConfig(QuantizerConfig):
    """Lookup-free quantization.

    Attributes:
        codebook_size: How many codes there are, a power of two: a code has a channel a bit.
        entropy_weight: Weight of the entropy loss: each latent sure of its code, all codes used alike.
        diversity: Weight of the second part of it.
        entropy_temperature: Of the probabilities that the entropies are of: the higher, the farther from a change of
            sign a latent still feels them.
        commitment_weight: Weight of the pull of latents to their codes.
        kind: The quantizer's name.
    """

    codebook_size: Levels = 1024
    entropy_weight: Weight = 0.1
    diversity: Weight = 1.0
    entropy_temperature: Positive = 0.1
    commitment_weight: Weight = 0.25
    kind: Annotated[Literal["lfq"], tyro.conf.Suppress] = "lfq"

    def __post_init__(self) -> None:
        if self.codebook_size & (self.codebook_size - 1):
            raise InputError(f"codebook_size is {self.codebook_size}, expected a power of two")

    def build(self) -> LookupFreeQuantizer:
        """A quantizer; it has nothing to learn."""
        return LookupFreeQuantizer(self)


class LookupFreeQuantizer(Quantizer):
    """Every channel is −1 or 1, by its sign; the signs are the bits of the code, the first channel the lowest.

    The entropies are exact, and take no memory of latents × codes: bits are independent given a latent. It is not
    vector-quantize-pytorch's, which holds that memory, and whose average over processes leaves the others' share out.

    Args:
        config: How many codes, and the weights of the losses.

    References:
        Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023 (arXiv 2310.05737),
        section 3.1.

    Example:
        >>> import torch
        >>> quantizer = LookupFreeQuantizer(LFQConfig(codebook_size=4))
        >>> quantizer.eval()(torch.tensor([[-0.1, 2.0]]).view(1, 2, 1, 1)).codes.item()
        2
        >>> quantizer.lookup(torch.tensor(2).view(1, 1, 1, 1)).flatten().tolist()
        [-1.0, 1.0]
    """

    place: Tensor

    def __init__(self, config: LFQConfig) -> None:
        bits = config.codebook_size.bit_length() - 1
        super().__init__(codebook_size=config.codebook_size, latent_width=bits)
        self.config = config
        self.register_buffer("place", 2 ** torch.arange(bits), persistent=False)

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The signs, straight-through; the loss is that of the entropies and the commitment."""
        codes = ((latents > 0) * self.place).sum(-1, keepdim=True)
        signs = self._signs(codes, latents.dtype)
        if not self.training:
            return Quantized(signs, codes, latents.new_zeros(()))
        logits = 4 / self.config.entropy_temperature * latents.flatten(0, 1)
        loss = sample_entropy(logits) - self.config.diversity * batch_entropy(logits)
        commitment = self.config.commitment_weight * F.mse_loss(latents, signs)
        return Quantized(
            straight_through(latents, signs), codes, self.config.entropy_weight * loss + commitment
        )

    def vectors(self, codes: Tensor) -> Tensor:
        """The bits as signs, float32."""
        return self._signs(codes, torch.get_default_dtype())

    def _signs(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return (codes & self.place).bool().to(dtype) * 2 - 1


def sample_entropy(logits: Tensor) -> Tensor:
    """The mean entropy of a latent's code, in nats.

    Args:
        logits: Of each bit, float ``(N, bits)``.
    """
    return (F.softplus(logits) - logits * torch.sigmoid(logits)).sum(1).mean()


def batch_entropy(logits: Tensor) -> Tensor:
    """The entropy of the codes' average probabilities, over the latents of all processes, in nats.

    Args:
        logits: Of each bit, float ``(N, bits)``.
    """
    half = logits.shape[1] // 2
    # A code's probability is a product of one of the first bits and one of the rest: the average is a matrix product.
    average = joint(logits[:, :half]).T @ joint(logits[:, half:]) / len(logits)
    if dist.is_available() and dist.is_initialized():
        average = _Mean.apply(average)
    average = average.clamp(min=torch.finfo(average.dtype).tiny)  # the logarithm of 0 has no gradient
    return -(average * average.log()).sum()


def joint(logits: Tensor) -> Tensor:
    """The probabilities of all combinations of independent bits, float ``(N, 2 ** bits)``."""
    probabilities = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], 2)
    combined = logits.new_ones(len(logits), 1)
    for bit in probabilities.unbind(1):
        combined = (bit[:, :, None] * combined[:, None, :]).flatten(1)
    return combined


class _Mean(torch.autograd.Function):
    """The mean over processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        mean = value.clone()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        # Every process has the same loss of the mean. DDP averages the processes' gradients, which then add up to it.
        return gradient
