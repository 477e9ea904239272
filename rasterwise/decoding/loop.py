"""Drawing a plan's symbols with a decoder: one after the other, or a stretch recorded once and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rasterwise.decoding.cuda_graph import CannotRecordError, Recorder, _replayed_walk
from rasterwise.decoding.decoder import WavefrontDecoder
from rasterwise.decoding.plan import SamplingPlan

if TYPE_CHECKING:
    from rasterwise.decoding.decoder import Decoder
    from rasterwise.models.autoregressive import AutoregressiveModel


def walk_by_fronts(decoder: WavefrontDecoder, plan: SamplingPlan, sequence: Tensor) -> Iterator[int]:
    """Draw the symbols of a plan; arguments and what is yielded as for ``walk``."""
    count = 0
    for places in decoder.places:
        symbols = plan.at(places).draw(decoder.logits(), slice(None))
        sequence[:, places] = symbols
        decoder.advance(symbols)
        count += len(places)
        yield count


def walk_to_the_end(
    model: AutoregressiveModel,
    plan: SamplingPlan,
    record: Recorder | None,
    report: Callable[[int], None],
) -> Tensor:
    """Draw a plan whole; where its walk cannot be recorded, by a walk that is not, and with a warning.

    Args:
        model: In evaluation mode.
        plan: What is drawn.
        record: As for ``walk``.
        report: Called with how many symbols of each image are drawn.

    Returns:
        int64 ``(B, N)`` in raster order.
    """
    sequence = torch.empty(len(plan), len(plan.places), dtype=torch.int64, device=plan.noise.device)
    try:
        decoder = model.sampling_decoder(plan, recorded=record is not None)
        for count in walk(decoder, plan, sequence, record):
            report(count)
    except CannotRecordError as error:
        warnings.warn(f"sampling without a CUDA graph, which takes longer: {error}", stacklevel=2)
        return walk_to_the_end(model, plan, None, report)
    return sequence


def walk(
    decoder: Decoder | WavefrontDecoder,
    plan: SamplingPlan,
    sequence: Tensor,
    record: Recorder | None = None,
) -> Iterator[int]:
    """Draw the symbols of a plan.

    Args:
        decoder: At the first symbol of the plan's images, told what guidance asks for: from
            ``AutoregressiveModel.sampling_decoder``.
        plan: What is drawn.
        sequence: int64 ``(B, N)``: filled in raster order, or by fronts.
        record: By what a stretch is recorded, to replay it; the symbols are the same. None to replay nothing.

    Yields:
        How many symbols of each image are drawn, on a GPU perhaps only queued.

    Raises:
        CannotRecordError: A stretch could not be recorded; the decoder is of no more use.
    """
    if isinstance(decoder, WavefrontDecoder):
        yield from walk_by_fronts(decoder, plan, sequence)
        return
    if record is not None:
        yield from _replayed_walk(decoder, plan, sequence, record)
        return
    for index in range(decoder.grid.size):
        symbols = plan.draw(decoder.logits(), index)
        sequence[:, index] = symbols
        decoder.advance(symbols)
        yield index + 1
