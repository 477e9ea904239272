"""The decoding loop: a plan's symbols drawn with a decoder, step by step or by replays of captured steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from rasterwise.decoding.cuda_graph import CannotCaptureError, Capture
from rasterwise.decoding.decoder import Decoder
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import check_drawn


def decode(
    make_decoder: Callable[[bool], Decoder],
    plan: SamplingPlan,
    sequence: Tensor,
    capture: Capture | None = None,
) -> Iterator[int]:
    """Draw the symbols of a plan; the caller may stop when it likes.

    Where the steps cannot be captured, decoding begins again without a capture, and warns.

    Args:
        make_decoder: Makes the decoder of the plan's images, given whether its steps are captured.
        plan: What is drawn.
        sequence: int64 ``(B, N)`` in raster order: where the symbols go, on the device of the plan.
        capture: By what repeated steps are captured, to replay them; the symbols are the same. None to
            capture nothing.

    Yields:
        How many symbols of each image are drawn, on a GPU perhaps only queued.

    Raises:
        NonFiniteError: The logits of a symbol are no distribution: one is NaN or +inf, or all are −inf. It is
            found when all steps are done, so that none of them waits for the device.
    """
    decoder = make_decoder(capture is not None)
    try:
        yield from _decode(decoder, plan, sequence, capture)
    except CannotCaptureError as error:
        warnings.warn(f"sampling without a CUDA graph, which takes longer: {error}", stacklevel=2)
        yield from _decode(make_decoder(False), plan, sequence, None)
    check_drawn(sequence, decoder.grid.levels)


def _decode(decoder: Decoder, plan: SamplingPlan, sequence: Tensor, capture: Capture | None) -> Iterator[int]:
    ends = [0, *accumulate(len(positions) for positions in decoder.steps)]
    plan = plan.at(torch.cat(list(decoder.steps)))  # once, so that a step's part of it is a view
    if capture is not None:
        yield from _replay(decoder, plan, sequence, ends, capture)
        return
    for positions, start, end in zip(decoder.steps, ends, ends[1:], strict=False):
        _draw_step(decoder, plan, slice(start, end), sequence, positions)
        yield end


def _replay(
    decoder: Decoder, plan: SamplingPlan, sequence: Tensor, ends: list[int], capture: Capture
) -> Iterator[int]:
    """Do the first period of each region as it is, capture the second, and replay it to the end.

    The first one loads and allocates all that the capture needs. One period differs from the next never by a
    number or a view of the host's, but by the content of tensors: here the cursor, and with it which positions
    are drawn, their noise and known symbols, and where the symbols go.
    """
    cursor = torch.zeros(1, dtype=torch.int64, device=sequence.device)

    def draw(period: int) -> None:
        bounds = ends[decoder.index : decoder.index + period + 1]
        first, last = bounds[0], bounds[-1]
        part = plan.at(cursor + torch.arange(last - first, device=cursor.device))
        for start, end in pairwise(bounds):
            at = slice(start - first, end - first)
            _draw_step(decoder, part, at, sequence, part.positions[at])
        cursor.add_(last - first)

    for period, repeats in decoder.capture_regions():
        steps: Callable[[], None] = partial(draw, period)
        for repeat in range(repeats):
            if repeat == 1:
                steps = capture(steps)  # takes the decoder's count on, though nothing is drawn yet
            elif repeat > 1:
                decoder.skip(period)
            steps()
            yield ends[decoder.index]


def _draw_step(decoder: Decoder, plan: SamplingPlan, at: slice, sequence: Tensor, positions: Tensor) -> None:
    """Draw the decoder's next step, whose positions are those of a plan that a slice names."""
    symbols = plan.draw(decoder.logits(), at)
    sequence.index_copy_(1, positions, symbols)
    # Where the logits are no distribution the symbol is K: it stays in the sequence, to be found at the end.
    decoder.advance(symbols.clamp_(max=decoder.grid.levels - 1))
