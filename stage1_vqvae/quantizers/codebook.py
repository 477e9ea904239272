"""A codebook that follows the latents by moving averages, and the search in it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook, accum_grad_, ema_inplace, kmeans

DISTANCES_AT_ONCE = 2**24
"""Distances that are held at once: 64 MiB in float32, where 8192 latents and 16,384 codes have 512 MiB."""

LEAST_SHARE = 0.25
"""A code that is used less than this share of an even use is dead, where that is less than the threshold: of a codebook
with more codes than a batch has latents, no code reaches a use a batch."""


def nearest_codes(latents: Tensor, codebook: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The nearest code of each latent; of several the first.

    Args:
        latents: float ``(..., D)``.
        codebook: float ``(K, D)``, of the same dtype.
        allowed: int64, broadcast to ``(...)``: how many codes each latent may have, the first ones; None for all.

    Returns:
        int64 ``(...)``.
    """
    # |latent − code|² less |latent|², by a matrix product. Taken from their centre, codes keep what sets them apart.
    centre = codebook.mean(0)
    codes = codebook - centre
    squares, crossed = codes.square().sum(1), -2 * codes.T
    at_once, shape = max(1, DISTANCES_AT_ONCE // len(codes)), latents.shape[:-1]
    found, bounds = [], None if allowed is None else allowed.expand(shape).reshape(-1, 1).split(at_once)
    for index, part in enumerate((latents.reshape(-1, codes.shape[1]) - centre).split(at_once)):
        distances = torch.addmm(squares, part, crossed)
        if bounds is not None:
            distances.masked_fill_(torch.arange(len(codes), device=codes.device) >= bounds[index], torch.inf)
        found.append(distances.argmin(1))
    return torch.cat(found).view(shape)


class MovingAverageCodebook(Codebook):
    """The codebook of vector-quantize-pytorch, with a search and a count of our own.

    The library's search clamps squared distances at 1e-8, so that latents of a small scale get wrong codes, and its
    count holds a number for each latent and code. What is used of it are k-means, moving averages, the renewal of dead
    codes and the exchange between processes; and its buffers are what files hold.

    Args:
        codebook_size: Codes (K).
        code_width: Length of a code vector (D).
        decay: Of the moving averages.
        dead_code_threshold: Codes used less often than this a batch, on average, are renewed.
        normalised: Code vectors have length 1, and so have the latents that come in.
    """

    def __init__(
        self,
        codebook_size: int,
        code_width: int,
        *,
        decay: float,
        dead_code_threshold: float,
        normalised: bool = False,
    ) -> None:
        super().__init__(
            code_width,
            codebook_size,
            kmeans_init=True,
            decay=decay,
            threshold_ema_dead_code=dead_code_threshold,
            use_ddp=torch.distributed.is_available() and torch.distributed.is_initialized(),
            use_cosine_sim=normalised,
        )

    @property
    def vectors(self) -> Tensor:
        """The code vectors, float ``(K, D)``."""
        return self.embed[0]

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Take means of a first batch's latents ``(N, D)``, found by k-means, as code vectors.

        Where there are fewer latents than codes, the codes without any are dead, and renewed as training goes on.
        """
        totals = torch.stack([latents.double().square().mean(), latents.new_tensor(len(latents)).double()])
        self.all_reduce_fn(totals)  # processes must take the same scale, and as many means
        square, count = totals.tolist()
        scale = 1.0 if square == 0 or self.use_cosine_sim else 2.0 ** -round(math.log2(square) / 2)
        means, uses = kmeans(
            latents[None] * scale,  # of about 1, which the clamp does not touch; a power of two loses nothing
            min(self.codebook_size, int(count)),
            self.kmeans_iters,
            use_cosine_sim=self.use_cosine_sim,
            sample_fn=self.sample_fn,
            all_reduce_fn=self.kmeans_all_reduce_fn,
        )
        self.cluster_size.zero_()[:, : uses.shape[1]] = uses
        self.embed_avg.zero_()[:, : uses.shape[1]] = means / scale * uses[..., None]
        self.update_ema()
        self.initted.fill_(True)

    @torch.no_grad()
    def learn(self, latents: Tensor, codes: Tensor, *, more_to_come: bool) -> None:
        """Move the averages towards latents ``(N, D)`` of codes ``(N,)``, and renew dead codes.

        With ``more_to_come``, latents are only added up, for the call without it.
        """
        latents = latents.to(self.embed.dtype)
        uses = torch.bincount(codes, minlength=self.codebook_size).to(latents)[None]
        sums = torch.zeros_like(self.vectors).index_add_(0, codes, latents)[None]
        self.all_reduce_fn(uses)
        self.all_reduce_fn(sums)
        if more_to_come:
            accum_grad_(self.cluster_size, uses)
            accum_grad_(self.embed_avg, sums)
            return
        ema_inplace(self.cluster_size, uses, self.decay)
        ema_inplace(self.embed_avg, sums, self.decay)
        self.update_ema()
        least = torch.clamp(LEAST_SHARE * self.cluster_size.mean(), max=self.threshold_ema_dead_code)
        dead = self.cluster_size < least
        if bool(dead.any()):
            self.replace(latents[None], batch_mask=dead)
