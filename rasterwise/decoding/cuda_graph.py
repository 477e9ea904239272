"""Capture and replay of the decoding loop as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rasterwise.decoding.plan import SamplingPlan

if TYPE_CHECKING:
    from rasterwise.decoding.decoder import Decoder


Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs some work without its effect on any tensor and gives back what has that effect, as often as called."""


class CannotRecordError(RuntimeError):
    """This machine cannot record the work; nothing has happened on its device."""


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
