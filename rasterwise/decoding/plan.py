"""Images that are to be drawn: what each is told, what is known of it, and its noise, fixed in advance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rasterwise.decoding.sampling import Sampling, draw, draw_by_gumbel
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid


@dataclass(frozen=True)
class SamplingPlan:
    """Images that are to be drawn, checked against the grid that they are drawn on.

    Whoever draws them, in whatever batches, on however many processes, by a walk or all symbols at once:
    symbol i of an image is a function of the plan and of the logits that the model gives for it.

    Attributes:
        sampling: How a symbol is drawn.
        condition: What each image is told; None where nothing is, or where guidance is 0.
        known: int64 ``(n, N)`` in raster order: symbols to keep, -1 where one is to be drawn; None for none.
        noise: float64 ``(n, N)`` in ``[0, 1)``: a number for every symbol. For Gumbel noise int64 ``(n, 1)``: a
            seed for every image.
        batch_size: How many are drawn at once.
        places: int64 ``(N,)``: which symbols of an image they are, 0 to N − 1 in raster order.

    Example:
        >>> import torch
        >>> from rasterwise import Grid
        >>> plan = SamplingPlan.of(Grid(1, 2, 2, 5), 3, generator=torch.Generator().manual_seed(0))
        >>> plan.draw(torch.zeros(3, 5), 0), plan[1:].draw(torch.zeros(2, 5), 0)
        (tensor([4, 3, 2]), tensor([3, 2]))
    """

    sampling: Sampling
    condition: Condition | None
    known: Tensor | None
    noise: Tensor
    batch_size: int
    places: Tensor

    @classmethod
    def of(
        cls,
        grid: Grid,
        n: int,
        condition: Condition | None = None,
        *,
        sampling: Sampling | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: Tensor | None = None,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> SamplingPlan:
        """Check what ``AutoregressiveModel.sample`` takes, and draw the noise.

        Raises:
            InputError: An argument does not fit the grid or another argument.
        """
        sampling = sampling or Sampling()
        if n < 1 or batch_size < 1:
            raise InputError(f"asked for {n} samples in batches of {batch_size}, expected at least 1 of each")
        if condition is not None and len(condition) != n:
            raise InputError(f"{len(condition)} conditions for {n} samples")
        if condition is None and sampling.guidance not in (0, 1):
            raise InputError(f"guidance is {sampling.guidance} but there is no condition to guide towards")
        if sampling.noise == "gumbel":
            noise = torch.randint(-(2**63), 2**63 - 1, (n, 1), generator=generator)
        else:
            noise = torch.rand(n, grid.size, dtype=torch.float64, generator=generator)
        plan = cls(
            sampling,
            None if condition is None or sampling.guidance == 0 else condition.to(device),
            _known_sequence(grid, n, known, mask, device),
            noise.to(device),
            batch_size,
            torch.arange(grid.size, device=device),
        )
        if rows is None:
            return plan
        if rows.ndim != 1 or not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= n:
            raise InputError(f"rows are {rows.tolist()}, expected some of the numbers from 0 to {n - 1}")
        return plan[rows.to(device)]

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, rows: slice | Tensor) -> SamplingPlan:
        return replace(
            self,
            condition=None if self.condition is None else self.condition[rows],
            known=None if self.known is None else self.known[rows],
            noise=self.noise[rows],
        )

    def at(self, places: Tensor) -> SamplingPlan:
        """The plan of some places alone, int64 ``(T,)`` on its device; the host never reads which."""
        return replace(
            self,
            known=None if self.known is None else self.known.index_select(1, places),
            noise=self.noise if self.sampling.noise == "gumbel" else self.noise.index_select(1, places),
            places=places,
        )

    def draw(self, logits: Tensor, at: int | slice) -> Tensor:
        """The symbols at one place, or at several, of every image.

        Args:
            logits: ``(n, K)``, or ``(n, T, K)`` for a slice of T places; guidance is in them already.
            at: Which of the plan's places, by their order.

        Returns:
            int64 ``(n,)`` or ``(n, T)``.
        """
        probabilities = self.sampling.probabilities(logits)
        if self.sampling.noise == "gumbel":
            symbols = draw_by_gumbel(probabilities, self.noise[:, 0], self.places[at])
        else:
            symbols = draw(probabilities, self.noise[:, at])
        if self.known is None:
            return symbols
        known = self.known[:, at]
        return torch.where(known >= 0, known, symbols)


def _known_sequence(
    grid: Grid, n: int, known: Tensor | None, mask: Tensor | None, device: torch.device | str
) -> Tensor | None:
    if known is None and mask is None:
        return None
    if known is None or mask is None:
        raise InputError("a completion takes both `known` and `mask`; one of them was left out")
    grid.check(known)
    if known.shape[0] != n:
        raise InputError(f"{known.shape[0]} known grids for {n} samples")
    if mask.dtype != torch.bool or mask.shape[-3:] != known.shape[-3:] or mask.ndim not in (3, 4):
        raise InputError(f"mask is {mask.dtype} {tuple(mask.shape)}, expected bool {grid.shape}")
    if mask.ndim == 4 and mask.shape[0] != n:
        raise InputError(f"{mask.shape[0]} masks for {n} samples")
    return grid.flatten(torch.where(mask.to(device), known.to(device), -1))
