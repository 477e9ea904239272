"""What is sampled: the condition, the known symbols and the noise of every image, fixed in advance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rasterwise.decoding.sampling import HIGHEST_UNIFORM, Sampling, draw, draw_by_gumbel
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid


@dataclass(frozen=True)
class SamplingPlan:
    """Images that are to be drawn, checked against the grid that they are drawn on.

    In whatever batches they are drawn, on however many processes, step by step or by Jacobi iteration: symbol i
    of an image is a function of the plan and of the logits that the model gives for it.

    Attributes:
        sampling: How a symbol is drawn.
        condition: Of each image; None where there is none, or where guidance is 0.
        known: int64 ``(n, N)``: symbols to keep, -1 where one is to be drawn; None for none.
        noise: float64 ``(n, N)`` in ``[0, 1)``: a number for every symbol. For Gumbel noise int64 ``(n, 1)``: a
            seed for every image.
        batch_size: How many images are drawn at once.
        positions: int64 ``(N,)``: which symbols of an image they are, counted in raster order.

    Example:
        >>> import torch
        >>> from rasterwise import Grid
        >>> plan = SamplingPlan.of(Grid(1, 2, 2, 5), 3, generator=torch.Generator().manual_seed(0))
        >>> logits, first = torch.zeros(3, 1, 5), slice(0, 1)
        >>> plan.draw(logits, first).tolist(), plan[1:].draw(logits[1:], first).tolist()
        ([[4], [3], [2]], [[3], [2]])
    """

    sampling: Sampling
    condition: Condition | None
    known: Tensor | None
    noise: Tensor
    batch_size: int
    positions: Tensor

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
            noise = torch.rand(n, grid.size, dtype=torch.float64, generator=generator).clamp_(
                max=HIGHEST_UNIFORM
            )
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
            raise InputError(f"rows are {rows.tolist()}, expected indices from 0 to {n - 1}")
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

    def at(self, indices: Tensor) -> SamplingPlan:
        """The plan of some of its positions, int64 ``(T,)`` on its device; the host never reads which."""
        return replace(
            self,
            known=None if self.known is None else self.known.index_select(1, indices),
            noise=self.noise if self.sampling.noise == "gumbel" else self.noise.index_select(1, indices),
            positions=self.positions.index_select(0, indices),
        )

    def draw(self, logits: Tensor, at: slice) -> Tensor:
        """The symbols at some positions of every image.

        Args:
            logits: ``(n, T, K)``, guided where guidance is asked for.
            at: Which T of the plan's positions.

        Returns:
            int64 ``(n, T)`` in ``[0, K)``; K where the logits are no distribution, which ``check_drawn`` finds.
        """
        probabilities = self.sampling.probabilities(logits)
        if self.sampling.noise == "gumbel":
            symbols = draw_by_gumbel(probabilities, self.noise[:, 0], self.positions[at])
        else:
            symbols = draw(probabilities, self.noise[:, at])
        if self.known is None:
            return symbols
        known = self.known[:, at]
        return torch.where(known >= 0, known, symbols)


@dataclass(frozen=True)
class SampledSymbols:
    """Symbols that were drawn, and what they took.

    Attributes:
        symbols: int64 ``(n, C, H, W)``.
        evaluations: int64 ``(n,)``: evaluations of the model that each image took by the fixed point, from 1 to N;
            None where symbols were drawn one after the other.
        positions: int64 ``(n,)``: the positions in all these evaluations together; N each where there was no
            window.
    """

    symbols: Tensor
    evaluations: Tensor | None = None
    positions: Tensor | None = None


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
