"""What a quantizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid


@dataclass(frozen=True)
class Quantized:
    """Latents after the quantizer.

    Attributes:
        latents: What the decoder gets, float ``(B, D, H, W)``; gradients pass to the encoder.
        codes: int64 ``(B, depth, H, W)`` in ``[0, codebook_size)``; of two grids, as their joint grid.
        auxiliary_loss: Scalar, weighted: what the quantizer adds to the loss of the reconstruction, such as the
            distance of latents to their codes.
    """

    latents: Tensor
    codes: Tensor
    auxiliary_loss: Tensor


class QuantizerConfig(ABC):
    """The configuration of a quantizer: a frozen dataclass whose field ``kind`` is the quantizer's name."""

    @abstractmethod
    def build(self) -> Quantizer:
        """The quantizer that it describes."""


class Bottleneck(nn.Module, ABC):
    """What stands between encoder and decoder: latents to codes, and codes to latents.

    Args:
        codebook_size: How many codes there are (K).
        latent_width: Channels of the latents that come in.
        code_width: Channels of the latents that come out; by default as many.
        depth: Codes a site: the channels of the code grid.

    Attributes:
        multiple: What height and width of the latents are multiples of.
    """

    multiple: ClassVar[int] = 1

    def __init__(
        self, *, codebook_size: int, latent_width: int, code_width: int | None = None, depth: int = 1
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.latent_width = latent_width
        self.code_width = latent_width if code_width is None else code_width
        self.depth = depth

    @property
    def fitted(self) -> bool:
        """Whether there is a codebook to encode with; False until a first training batch has started it."""
        return True

    @abstractmethod
    def forward(self, latents: Tensor, *, more_to_come: bool = False) -> Quantized:
        """Quantize a map of latents; in training mode the codebook learns from them.

        Args:
            latents: float ``(B, latent_width, H, W)``. Half precision is raised to float32.
            more_to_come: They are a part of a batch and not its last. What is learned without gradients waits
                for the last part, and then learns from all of them.

        Raises:
            InputError: Nothing was learned yet that could encode.
            NonFiniteError: The latents are not finite, in training.
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 of ``grid(H, W)`` to latents ``(B, code_width, H, W)``."""

    def anneal(self, share: float) -> None:
        """Set what changes in the course of a training, such as a temperature.

        Args:
            share: Of the training's steps, how many were taken: 0 to 1. An objective calls this before each step.
        """

    def grid(self, height: int, width: int) -> Grid:
        """The code grid of latents of a height and a width."""
        return Grid(self.depth, height, width, self.codebook_size)

    def latent_size(self, grid: Grid) -> tuple[int, int]:
        """Height and width of the latents of a code grid."""
        return grid.height, grid.width

    def grids_of(self, codes: Tensor) -> dict[str, Tensor]:
        """The grids that codes consist of, by name: here one, whose name is empty."""
        return {"": codes}

    def known_sites(self, latents: Tensor) -> Tensor:
        """Which sites of the code grid, bool ``(B, 1, h, w)``, stand for known latents ``(B, 1, H, W)`` alone."""
        return latents

    def requantized(self, codes: Tensor) -> Tensor | None:
        """The codes of the vectors of codes; None where vectors are of another width than latents."""
        return self(self.lookup(codes)).codes if self.latent_width == self.code_width else None


class Quantizer(Bottleneck):
    """Latents to codes, site by site.

    A subclass works on sequences of latents ``(B, N, D)`` in float32 or float64; layout and precision are seen to here.
    No quantizer projects: the encoder's last layer gives ``latent_width`` channels and the decoder's first layer
    takes ``code_width``, so a narrow codebook needs no layers of its own. Arguments as for ``Bottleneck``.
    """

    @abstractmethod
    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """Quantize a sequence.

        Args:
            latents: float32 or float64 ``(B, N, latent_width)``; finite in training mode. Autocast is off.
            more_to_come: See ``forward``.

        Returns:
            Latents ``(B, N, code_width)`` and codes ``(B, N, depth)``, of any integer dtype.
        """

    @abstractmethod
    def vectors(self, codes: Tensor) -> Tensor:
        """Codes int64 ``(B, N, depth)`` to what ``quantize`` gives for them in evaluation, ``(B, N, code_width)``."""

    def forward(self, latents: Tensor, *, more_to_come: bool = False) -> Quantized:
        if not (self.training or self.fitted):
            raise InputError("the codebook has not been fitted: train the tokenizer before encoding with it")
        size = latents.shape[-2:]
        # Half precision changes which code is nearest, and one NaN would spread through the whole codebook.
        with torch.autocast(latents.device.type, enabled=False):
            flat = latents if latents.dtype == torch.float64 else latents.float()
            flat = flat.flatten(2).transpose(1, 2)
            if self.training and not bool(torch.isfinite(flat).all()):
                raise NonFiniteError("the encoder's latents are not finite; a lower --learning-rate may help")
            quantized = self.quantize(flat, more_to_come=more_to_come)
        return Quantized(
            latents=quantized.latents.transpose(1, 2).unflatten(2, size),
            codes=quantized.codes.long().transpose(1, 2).unflatten(2, size),
            auxiliary_loss=quantized.auxiliary_loss,
        )

    def lookup(self, codes: Tensor) -> Tensor:
        flat = codes.flatten(2).transpose(1, 2)
        return self.vectors(flat).transpose(1, 2).unflatten(2, codes.shape[-2:])


def straight_through(latents: Tensor, vectors: Tensor) -> Tensor:
    """The vectors, with the gradient passed to the latents as it comes."""
    return latents + (vectors - latents).detach()
