"""What a trained model costs to use: scoring, cached and naive sampling, network evaluations, FLOPs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.image_pipeline import ImagePipeline
from rasterwise.decoding.cuda_graph import capture_on
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.measure.flops import flop_counter
from rasterwise.measure.timing import median, seconds_of
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating

REPEATS = 3
LONG_SECONDS = 10.0
"""What takes so long is timed once."""
UNDRAWN = 160
"""The grey of what a sampler had not come to when its time was over."""


@dataclass(frozen=True)
class Drawn:
    """Images that a model drew within a limit of time.

    Attributes:
        images: uint8 ``(n, C, H, W)``, whole ones; none where the limit did not suffice for one batch.
        unfinished: uint8 ``(B, C, H, W)``: a batch that the limit cut off, grey below where it ended; empty
            where whole ones are there.
        seconds_an_image: At this batch size, decoding included.
        batch_size: How many were drawn at once.
        extrapolated: Whether seconds_an_image follows from the part of a batch that was drawn.
    """

    images: Tensor
    unfinished: Tensor
    seconds_an_image: float
    batch_size: int
    extrapolated: bool


@torch.no_grad()
def draw_images(
    pipeline: ImagePipeline, count: int, batch_size: int, *, seed: int, limit_seconds: float
) -> Drawn:
    """Draw with the cached sampler, a batch at a time, while the next one is expected to fit the limit.

    Args:
        pipeline: Whose images; the n-th image of a seed is the same whatever the limit.
        count: How many are wanted.
        batch_size: At once.
        seed: Of the noise.
        limit_seconds: The first batch is cut off here; later ones are not begun.
    """
    model, grid = pipeline.model, pipeline.model.grid
    batch_size = min(batch_size, count)
    generator = torch.Generator().manual_seed(seed)
    plan = SamplingPlan.of(grid, count, generator=generator, batch_size=batch_size, device=model.device)
    images: list[Tensor] = []
    with evaluating(model):
        _decode_until(model, plan[:batch_size], 0.0)  # a symbol warms up
        began = time.perf_counter()
        for start in range(0, count, batch_size):
            part = plan[start : start + batch_size]
            limit = limit_seconds if start == 0 else float("inf")
            sequence, sites = _decode_until(model, part, began + limit)
            if sites < grid.size:
                seconds = (time.perf_counter() - began) * grid.size / sites / len(part)
                return Drawn(
                    torch.empty(0, *pipeline.image_shape, dtype=torch.uint8),
                    _partly(pipeline, sequence),
                    seconds,
                    batch_size,
                    extrapolated=True,
                )
            images.append(pipeline.decode(grid.unflatten(sequence), "tensor", batch_size=batch_size))
            spent = time.perf_counter() - began
            if spent * (1 + 1 / len(images)) > limit_seconds:
                break
    whole = torch.cat(images)
    nothing = torch.empty(0, *pipeline.image_shape, dtype=torch.uint8)
    return Drawn(whole, nothing, spent / len(whole), batch_size, extrapolated=False)


def _decode_until(model: AutoregressiveModel, plan: SamplingPlan, deadline: float) -> tuple[Tensor, int]:
    """The symbols ``(B, N)`` drawn until a time of ``perf_counter``, -1 for the others, and how many are drawn."""
    device, drawn = model.device, 0
    sequence = torch.full((len(plan), model.grid.size), -1, device=device)
    for count in decode(partial(model.sampling_decoder, plan), plan, sequence, capture_on(device)):
        drawn = count
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if time.perf_counter() > deadline:
            break
    return sequence, drawn


def _partly(pipeline: ImagePipeline, sequence: Tensor) -> Tensor:
    """The images of decoding that ended early, in grey from the first row on that is not whole."""
    grid = pipeline.model.grid
    images = pipeline.decode(grid.unflatten(sequence.clamp(min=0)), "tensor")
    row = int((sequence[0] < 0).nonzero()[0, 0]) // (grid.width * grid.channels)
    images[:, :, row * images.shape[2] // grid.height :] = UNDRAWN
    return images


@torch.no_grad()
def naive_seconds_an_image(pipeline: ImagePipeline, batch_size: int, sites: int) -> float:
    """What a whole pass a symbol would take, extrapolated from a few sites: every site costs the same.

    Args:
        pipeline: Whose model.
        batch_size: Images at once.
        sites: How many are timed, after one that warms up.
    """
    model, size = pipeline.model, pipeline.model.grid.size
    generator = torch.Generator().manual_seed(0)
    plan = SamplingPlan.of(
        model.grid, batch_size, generator=generator, batch_size=batch_size, device=model.device
    )
    timed = min(sites, size - 1)
    with evaluating(model):
        decoder = NaiveDecoder(model, batch_size)
        sequence = torch.zeros(batch_size, size, dtype=torch.int64, device=model.device)
        steps = decode(lambda captured: decoder, plan, sequence)
        next(steps)
        seconds = seconds_of(lambda: [next(steps) for _ in range(timed)], model.device)
    return seconds / timed * size / batch_size


@torch.no_grad()
def score_seconds_an_image(pipeline: ImagePipeline, images: Tensor) -> float:
    """Seconds of an exact log-probability, encoding included: the median of a few of the same batch."""

    def score() -> None:
        pipeline.log_prob(images)

    with evaluating(pipeline.model):
        seconds = [seconds_of(score, pipeline.model.device)]
        if seconds[0] < LONG_SECONDS:
            seconds = [seconds_of(score, pipeline.model.device) for _ in range(REPEATS)]
    return median(seconds) / len(images)


@torch.no_grad()
def flops_an_image(pipeline: ImagePipeline, image: Tensor) -> int:
    """FLOPs of one image's encoding and scoring, a multiply-add as two, as they are computed.

    Args:
        pipeline: Whose.
        image: uint8 ``(1, C, H, W)``.
    """
    with evaluating(pipeline.model), flop_counter() as counter:
        pipeline.log_prob(image)
    return int(counter.get_total_flops())
