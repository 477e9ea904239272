"""Conditions: all parts are cut, moved and doubled together."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.symbols.condition import UNCONDITIONED, Condition
from rasterwise.symbols.text import TextBatch

TEXT = TextBatch.of([torch.tensor([5, 6]), torch.tensor([7])])
WHOLE = Condition(torch.tensor([3, 1]), torch.rand(2, 1, 2, 2), TEXT)


def test_the_unconditioned_rows_hold_nothing() -> None:
    """No label, a map of zeros, an empty text; the rows before them are as they were."""
    both = WHOLE.with_unconditioned()
    assert len(both) == 4
    first, rest = both[:2], both[slice(2, None)]
    for part in (first, rest):
        assert part.label is not None
        assert part.spatial is not None
        assert part.text is not None
    assert torch.equal(first.label, WHOLE.label)
    assert torch.equal(first.spatial, WHOLE.spatial)
    assert torch.equal(first.text.tokens, TEXT.tokens)
    assert (rest.label == UNCONDITIONED).all()
    assert not rest.spatial.any()
    assert not rest.text.lengths.any()


def test_rows_are_taken_from_all_parts() -> None:
    """By an index tensor too, and on a device."""
    last = WHOLE[torch.tensor([1])].to("cpu")
    assert last.label.tolist() == [1]
    assert last.text.lengths.tolist() == [1]
    assert len(Condition(text=TEXT)) == 2


def test_parts_that_do_not_fit_are_refused() -> None:
    """None at all, or of different sizes."""
    with pytest.raises(InputError, match="needs a label or a spatial map or a text"):
        Condition()
    with pytest.raises(InputError, match="3 labels but 2 texts"):
        Condition(torch.zeros(3, dtype=torch.int64), text=TEXT)
