"""Two grids of codes between encoder and decoder: the top one at half the resolution of the bottom one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rasterwise.errors import NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.two_grids import SCALE, TwoGrids, joined, separated
from stage1_vqvae.autoencoders.convolutional import Decoder, Encoder
from stage1_vqvae.quantizers.quantizer import Bottleneck, Quantized, QuantizerConfig


class TwoGridBottleneck(Bottleneck):
    """Latents to a top grid of codes, and to a bottom grid of codes given the top one.

    The top encoder halves the latents' resolution. Its codes are decoded to as many channels as the latents have; from
    both the bottom codes are made. The image's decoder gets the bottom codes' vectors and the top codes', upsampled.
    Each grid has a codebook of its own; codes are those of the joint grid (``TwoGrids``).

    Args:
        config: Of the quantizer of each grid.
        width: Channels of the latents that come in, and of the networks between the grids.
        blocks: Residual blocks in the top encoder, and in the top decoder.

    References:
        Razavi et al., Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019 (arXiv 1906.00446), section 3.1.
    """

    multiple = SCALE

    def __init__(self, config: QuantizerConfig, width: int, blocks: int) -> None:
        top, bottom = config.build(), config.build()
        super().__init__(
            codebook_size=top.codebook_size,
            latent_width=width,
            code_width=top.code_width + bottom.code_width,
            depth=top.depth,
        )
        self.top, self.bottom = top, bottom
        self.top_encoder = Encoder(width, [width, width], blocks, top.latent_width)
        self.top_decoder = Decoder(width, [width, width], blocks, top.code_width)
        self.merge = nn.Conv2d(2 * width, bottom.latent_width, 1)
        self.upsample = nn.ConvTranspose2d(top.code_width, top.code_width, 4, stride=SCALE, padding=1)

    @property
    def fitted(self) -> bool:
        """Whether a first training batch has started both codebooks."""
        return self.top.fitted and self.bottom.fitted

    def forward(self, latents: Tensor, *, more_to_come: bool = False) -> Quantized:
        top = self.top(self._finite(self.top_encoder(latents)), more_to_come=more_to_come)
        decoded = self.top_decoder(top.latents).to(latents.dtype)
        bottom = self.bottom(
            self._finite(self.merge(torch.cat([latents, decoded], 1))), more_to_come=more_to_come
        )
        return Quantized(
            self._merged(top.latents, bottom.latents),
            joined(top.codes, bottom.codes),
            top.auxiliary_loss + bottom.auxiliary_loss,
        )

    def lookup(self, codes: Tensor) -> Tensor:
        top, bottom = separated(codes)
        return self._merged(self.top.lookup(top), self.bottom.lookup(bottom))

    def anneal(self, share: float) -> None:
        """Anneal both quantizers."""
        self.top.anneal(share)
        self.bottom.anneal(share)

    def grid(self, height: int, width: int) -> Grid:
        """The joint grid of latents whose height and width are even."""
        return TwoGrids.below(self.top.grid(height // SCALE, width // SCALE)).joint

    def latent_size(self, grid: Grid) -> tuple[int, int]:
        """Height and width of the latents of a joint grid; InputError for another grid."""
        return self.bottom.latent_size(TwoGrids.within(grid).bottom)

    def grids_of(self, codes: Tensor) -> dict[str, Tensor]:
        """Codes of the top and of the bottom grid."""
        return separated(codes)._asdict()

    def known_sites(self, latents: Tensor) -> Tensor:
        """A site of the top grid is known where all four latents below it are."""
        top = latents.unflatten(3, (-1, SCALE)).unflatten(2, (-1, SCALE)).all(5).all(3)
        return joined(top, latents)

    def requantized(self, codes: Tensor) -> Tensor | None:
        """The codes of the vectors of codes, in each grid; None where vectors are of another width than latents."""
        top, bottom = separated(codes)
        found = self.top.requantized(top), self.bottom.requantized(bottom)
        return None if found[0] is None or found[1] is None else joined(found[0], found[1])

    def _merged(self, top: Tensor, bottom: Tensor) -> Tensor:
        """What the decoder gets, ``(B, code_width, H, W)``, of vectors of both grids."""
        return torch.cat([self.upsample(top).to(bottom.dtype), bottom], 1)

    def _finite(self, latents: Tensor) -> Tensor:
        """Latents as they are, if all are finite: a quantizer has codes for NaN. In training it looks itself."""
        reading = not self.training and not torch.compiler.is_compiling()
        if reading and not bool(latents.isfinite().all()):
            raise NonFiniteError(
                "latents between the two grids are infinite or NaN: the weights are too large, or the precision is too "
                "low"
            )
        return latents
