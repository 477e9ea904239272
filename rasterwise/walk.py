"""Drawing a plan's symbols with a decoder: one after the other, or a stretch recorded once and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rasterwise.sampling_plan import SamplingPlan
from rasterwise.wavefront import WavefrontDecoder, walk_by_fronts

if TYPE_CHECKING:
    from rasterwise.autoregressive import AutoregressiveModel, Decoder

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs some work without its effect on any tensor and gives back what has that effect, as often as called."""


class CannotRecordError(RuntimeError):
    """This machine cannot record the work; nothing has happened on its device."""


class Stretch(NamedTuple):
    """A part of a walk that does the very same operations on the very same tensors again and again.

    Attributes:
        period: Symbols until they begin anew.
        repeats: How often they are done.
    """

    period: int
    repeats: int


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
        report: Called with how many symbols of each picture are drawn.

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
        decoder: At the first symbol of the plan's pictures, told what guidance asks for: from
            ``AutoregressiveModel.sampling_decoder``.
        plan: What is drawn.
        sequence: int64 ``(B, N)``: filled in raster order, or by fronts.
        record: By what a stretch is recorded, to replay it; the symbols are the same. None to replay nothing.

    Yields:
        How many symbols of each picture are drawn, on a GPU perhaps only queued.

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


def _replayed_walk(decoder: Decoder, plan: SamplingPlan, sequence: Tensor, record: Recorder) -> Iterator[int]:
    """Do the first period of each stretch as it is, record the second, and replay it to the end.

    The first one loads and allocates all that the recording needs. What differs from one period to the next is
    never a number or a view of the host's, but the content of tensors: here the places that are drawn, and
    with them the noise, the known symbols, and where the symbols go.
    """
    cursor = torch.zeros(1, dtype=torch.int64, device=sequence.device)

    def draw(count: int) -> None:
        places = cursor + torch.arange(count, device=cursor.device)
        part, drawn = plan.at(places), []
        for index in range(count):
            symbols = part.draw(decoder.logits(), index)
            decoder.advance(symbols)
            drawn.append(symbols)
        sequence.index_copy_(1, places, torch.stack(drawn, 1))
        cursor.add_(count)

    for period, repeats in decoder.for_replay():
        step: Callable[[], None] = partial(draw, period)
        for number in range(repeats):
            if number == 1:
                step = record(step)  # takes the decoder's count on, though nothing is drawn yet
            elif number > 1:
                decoder.skip(period)
            step()
            yield decoder.index


def recorder_for(device: torch.device) -> Recorder | None:
    """How work on a device is recorded, or None where it cannot be."""
    return partial(_record_cuda_graph, _recording_stream(device)) if device.type == "cuda" else None


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: the matrix products keep a workspace for every stream that they ever ran on."""
    return torch.cuda.Stream(device)


def _record_cuda_graph(stream: torch.cuda.Stream, work: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads, which pin memory or log, may go on meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CannotRecordError(" ".join(str(error).split())[:300]) from error
    return graph.replay
