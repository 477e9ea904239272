"""What is to be drawn: arguments that fit, and the noise of every image."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid

GRID = Grid(1, 2, 3, 4)
KNOWN = torch.zeros(5, 1, 2, 3, dtype=torch.int64)
MASK = torch.ones(1, 2, 3, dtype=torch.bool)


def plan(n: int = 5, **arguments: Any) -> SamplingPlan:
    return SamplingPlan.of(GRID, n, generator=torch.Generator().manual_seed(0), **arguments)


def test_known_symbols_are_kept_and_the_others_drawn() -> None:
    """At one position and at all of them, whatever the logits are."""
    known = torch.arange(4).expand(5, 4)
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    grids = GRID.unflatten(torch.cat([known, torch.full((5, 2), 3)], 1))
    made = plan(known=grids, mask=mask)
    logits = torch.full((5, 6, 4), -torch.inf).index_fill(-1, torch.tensor(1), 0.0)  # a drawn symbol is 1
    expected = torch.tensor([0, 1, 2, 1, 1, 3]).expand(5, 6)
    assert torch.equal(made.draw(logits, slice(None)), expected)
    for at in (slice(index, index + 1) for index in range(6)):
        assert torch.equal(made.draw(logits[:, at], at), expected[:, at])


def test_a_part_of_a_plan_is_the_plan_of_a_part() -> None:
    """Rows keep their noise, their condition and their known symbols, picked before or after."""
    mask = torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    arguments = {"condition": Condition(torch.arange(5)), "known": KNOWN, "mask": mask}
    rows = torch.tensor([3, 0, 4])
    for part in (plan(**arguments)[rows], plan(**arguments, rows=rows)):
        assert len(part) == 3
        assert torch.equal(part.noise, plan().noise[rows])
        assert part.condition is not None
        assert part.condition.label is not None
        assert part.condition.label.tolist() == [3, 0, 4]
        assert part.known is not None
        assert torch.equal(part.known >= 0, GRID.flatten(mask)[rows])


@pytest.mark.parametrize("noise", ["uniform", "gumbel"])
def test_a_plan_of_some_positions_draws_what_the_plan_draws_there(noise: Any) -> None:
    """Noise and known symbols stay those of the position, whichever are picked, and picked from what."""
    mask = torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.3
    made = plan(known=KNOWN, mask=mask, sampling=Sampling(noise=noise))
    logits = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(2))
    positions, whole = torch.tensor([4, 1, 2]), made.draw(logits, slice(None))
    part = made.at(positions)
    assert torch.equal(part.positions, positions)
    assert torch.equal(part.draw(logits[:, positions], slice(None)), whole[:, positions])
    assert torch.equal(part.draw(logits[:, 1:2], slice(1, 2)), whole[:, 1:2])
    assert torch.equal(part.at(torch.tensor([2, 0])).draw(logits[:, [2, 4]], slice(None)), whole[:, [2, 4]])


def test_at_guidance_0_there_is_no_condition() -> None:
    """Scale 0 is the unconditional model, exactly."""
    condition = Condition(torch.arange(5))
    assert plan(condition=condition, sampling=Sampling(guidance=0)).condition is None
    assert plan(condition=condition, sampling=Sampling(guidance=2)).condition is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 0}, "0 samples in batches of 64, expected at least 1"),
        ({"batch_size": 0}, "5 samples in batches of 0, expected at least 1"),
        ({"condition": Condition(torch.arange(4))}, "4 conditions for 5 samples"),
        ({"sampling": Sampling(guidance=1.5)}, "no condition to guide towards"),
        ({"known": KNOWN}, "takes both `known` and `mask`"),
        ({"mask": MASK}, "takes both `known` and `mask`"),
        ({"known": KNOWN[:4], "mask": MASK}, "4 known grids for 5 samples"),
        ({"known": KNOWN.float(), "mask": MASK}, "symbols are int64"),
        ({"known": KNOWN[..., :2], "mask": MASK}, r"symbols have shape \(5, 1, 2, 2\)"),
        ({"known": KNOWN + 4, "mask": MASK}, r"symbols lie in \[4, 4\]"),
        ({"known": KNOWN - 1, "mask": MASK}, r"symbols lie in \[-1, -1\]"),
        ({"known": KNOWN, "mask": MASK[..., :2]}, r"mask is torch.bool \(1, 2, 2\), expected bool"),
        ({"known": KNOWN, "mask": MASK[0]}, r"mask is torch.bool \(2, 3\), expected bool"),
        ({"known": KNOWN, "mask": MASK.float()}, "mask is torch.float32"),
        ({"known": KNOWN, "mask": MASK.expand(4, 1, 2, 3)}, "4 masks for 5 samples"),
        ({"rows": torch.tensor([0, 5])}, r"rows are \[0, 5\], expected indices from 0 to 4"),
        ({"rows": torch.tensor([-1])}, r"rows are \[-1\]"),
        ({"rows": torch.tensor([], dtype=torch.int64)}, r"rows are \[\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], said: str) -> None:
    """The message names what came and what was expected."""
    with pytest.raises(ValueError, match=said):
        plan(**arguments)
