"""Likelihood: no symbol depends on a later one, probabilities sum to 1, and samples follow them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_least, at_most, noted
from pipeline.verification.subject import can_be_enumerated, every_grid, tolerance
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.likelihoods import categorical_log_prob

BINS = 20
"""Of the histogram of samples' probability integral transforms."""


def influence(model: AutoregressiveModel, symbols: Tensor, positions: Sequence[int]) -> Tensor:
    """How strongly logits react to each symbol that the network reads.

    Args:
        model: In evaluation mode.
        symbols: int64 ``(B, C, H, W)``.
        positions: Of the logits, in raster order.

    Returns:
        The size of the gradient of a random mixture of a position's logits with respect to the embedding of every
        symbol, ``(positions, B, N)``.
    """
    grid = model.grid
    inputs = model.embed(symbols).detach().requires_grad_()
    logits = grid.flatten(model.logits_from(inputs))
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(grid.levels, generator=generator, dtype=torch.float64).to(logits)
    found = []
    for position in positions:
        (gradient,) = torch.autograd.grad(
            (logits[:, position] * weights).sum(), inputs, retain_graph=True, allow_unused=True
        )
        gradient = torch.zeros_like(inputs) if gradient is None else gradient
        size = grid.flatten(gradient).abs()
        found.append(size.flatten(2).sum(2) if size.ndim > 2 else size)
    return torch.stack(found)


def ranks(model: AutoregressiveModel) -> Tensor:
    """The number of the step in which the model's order takes each position, int64 ``(N,)``."""
    found = torch.empty(model.grid.size, dtype=torch.int64)
    for rank, step in enumerate(model.order):
        found[step.cpu()] = rank
    return found


def causality(model: AutoregressiveModel, symbols: Tensor, positions: Sequence[int]) -> Check:
    """The gradient of a position's logits with respect to itself and every later symbol is exactly 0."""
    reached, rank = influence(model, symbols, positions), ranks(model)
    later = [
        size[:, (rank >= rank[position]).to(size.device)].amax().item()
        for size, position in zip(reached, positions, strict=True)
    ]
    worst = max(range(len(later)), key=later.__getitem__)
    where = f", worst at position {positions[worst]}" if later[worst] else ""
    return at_most(
        "causality",
        later[worst],
        0.0,
        f"largest gradient to the symbol itself or a later one, {len(positions)} of {model.grid.size} positions{where}",
        "a mask of type A where B belongs or the reverse, an input that is not shifted by one, a kernel that is padded "
        "on the wrong side, attention without a causal mask, or channels in another order in the mask than in the data",
    )


@torch.no_grad()
def exchange(model: AutoregressiveModel, symbols: Tensor, positions: Sequence[int]) -> Check:
    """A position's logits stay the same when it and every later symbol are exchanged for others.

    The gradient begins behind the embedding; this one begins with the symbols.
    """
    grid = model.grid
    before = grid.flatten(model(symbols))
    sequence, rank, worst, where = grid.flatten(symbols), ranks(model).to(symbols.device), 0.0, 0
    for position in positions:
        changed = torch.where(rank >= rank[position], (sequence + 1) % grid.levels, sequence)
        after = grid.flatten(model(grid.unflatten(changed)))
        difference = (after[:, position] - before[:, position]).abs().max().item()
        if not difference <= worst:
            worst, where = difference, position
    return at_most(
        "causality by exchange",
        worst,
        tolerance(model, before) / 100,
        f"largest change of a logit, {len(positions)} of {grid.size} positions"
        + (f", worst at position {where}" if worst else ""),
        "as for causality, or an embedding that mixes symbols, such as channels read in another order than predicted",
    )


def receptive_field(model: AutoregressiveModel, symbols: Tensor, positions: Sequence[int]) -> Check:
    """How many of the symbols before a position its logits react to: less than all is a blind spot or a short reach."""
    reached, rank = influence(model, symbols, positions), ranks(model)
    earlier = [rank < rank[position] for position in positions]
    seen = sum(
        int((size.cpu()[:, among] > 0).any(0).sum()) for size, among in zip(reached, earlier, strict=True)
    )
    before = sum(int(among.sum()) for among in earlier)
    return noted(
        "receptive field",
        seen / max(1, before),
        "share of the symbols before a position that its logits react to",
    )


@torch.no_grad()
def normalisation(model: AutoregressiveModel, symbols: Tensor, condition: Condition | None = None) -> Check:
    """The probabilities of all grids sum to 1.

    Where there are too many grids, ``log_prob`` is compared with the sum of the sites' log-probabilities under a
    softmax, each of which sums to 1 over the K levels: with causality, that makes the whole sum to 1.
    """
    name, cause = (
        "normalisation",
        "log_prob leaves out or repeats a symbol, divides by something, floors small probabilities, or reads other "
        "logits than sampling does",
    )
    if can_be_enumerated(model.grid):
        everything = every_grid(model.grid).to(model.device)
        one = None if condition is None else condition[:1]
        total = 0.0
        for part in everything.split(256):
            repeated = None if one is None else one[torch.zeros(len(part), dtype=torch.int64)]
            total += model.log_prob(part, repeated).exp().sum().item()
        exact = next(model.parameters()).dtype == torch.float64
        about = f"distance from 1 of the sum over all {len(everything):,} grids"
        return at_most(name, abs(total - 1), 1e-9 if exact else 1e-4, about, cause)
    stated = model.log_prob(symbols, condition).double()
    by_site = categorical_log_prob(model(symbols, condition).double(), symbols).flatten(1).sum(1)
    exact = next(model.parameters()).dtype == torch.float64
    return at_most(
        name,
        ((stated - by_site).abs() / by_site.abs().clamp(min=1)).max().item(),
        1e-9 if exact else 1e-4,
        "relative difference of log_prob and the sum of the sites' normalised log-probabilities",
        cause,
    )


@torch.no_grad()
def samples_follow_probabilities(
    model: AutoregressiveModel, n: int, *, least: float = 1e-6, seed: int = 0, batch_size: int = 64
) -> Check:
    """Samples are distributed as ``log_prob`` says.

    Where all grids can be enumerated, and some are likely enough to be counted, a chi-square test compares their
    counts with their probabilities. Elsewhere the randomised probability integral transforms
    u_i = F(x_i − 1) + v_i p(x_i) of all symbols, which are independent and uniform if x follows p, are compared with
    the uniform distribution; and the samples' surprise, −log p, with the entropy of the distributions that they came
    from.

    References:
        Rosenblatt, Remarks on a Multivariate Transformation, 1952 (Annals of Mathematical Statistics 23).
    """
    from scipy.stats import chisquare

    generator = torch.Generator().manual_seed(seed)
    samples = model.sample(n, generator=generator, batch_size=batch_size)
    p_value, of = math.nan, "all grids"
    if can_be_enumerated(model.grid):
        p_value = _chi_square_of_grids(model, samples)
    if math.isnan(p_value):
        transforms, surprise = _transforms(model, samples, generator)
        counts = torch.histc(transforms.float(), BINS, 0, 1).double()
        p_value = float(chisquare(counts.numpy()).pvalue)
        p_value = min(1.0, 2 * min(p_value, torch.special.erfc(surprise.abs() / 2**0.5).item()))
        of = f"{len(transforms):,} symbols"
    return at_least(
        "samples against log_prob",
        p_value,
        least,
        f"p-value of {n:,} samples, {of}",
        "sampling that applies another temperature, top-k or top-p than asked for, that goes on from a wrong state, "
        "or whose logits belong to another position or channel",
    )


def _chi_square_of_grids(model: AutoregressiveModel, samples: Tensor) -> float:
    """The p-value; NaN where so few grids are expected five times that there is nothing to compare."""
    from scipy.stats import chisquare

    grid = model.grid
    everything = every_grid(grid).to(model.device)
    expected = torch.cat([model.log_prob(part) for part in everything.split(256)]).double().exp()
    powers = grid.levels ** torch.arange(grid.size - 1, -1, -1, device=samples.device)
    counts = torch.bincount((grid.flatten(samples) * powers).sum(1), minlength=len(everything)).double()
    likely = expected * len(samples) >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    wanted = torch.cat([expected[likely], expected[~likely].sum()[None]])
    kept = wanted > 0
    if int(kept.sum()) < 3:
        return math.nan
    wanted = wanted[kept] * observed.sum() / wanted[kept].sum()
    return float(chisquare(observed[kept].cpu().numpy(), wanted.cpu().numpy()).pvalue)


def _transforms(
    model: AutoregressiveModel, samples: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The transforms of all symbols, and how many standard deviations their surprise is off its expectation."""
    uniform, off, variance = [], torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for part in samples.split(1):
        nats = model(part).double().log_softmax(-1).cpu()
        probabilities, drawn = nats.exp(), part[..., None].cpu()
        below = (probabilities.cumsum(-1) - probabilities).gather(-1, drawn)[..., 0]
        own = probabilities.gather(-1, drawn)[..., 0]
        uniform.append(below + torch.rand(own.shape, generator=generator, dtype=torch.float64) * own)
        weighted = torch.where(probabilities > 0, nats, 0.0)
        entropy = -(probabilities * weighted).sum(-1)
        off += (-nats.gather(-1, drawn)[..., 0] - entropy).sum()
        variance += ((probabilities * weighted.square()).sum(-1) - entropy.square()).sum()
    return torch.cat(uniform).flatten().clamp(0, 1), off / variance.clamp(min=1e-12).sqrt()
