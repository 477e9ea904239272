"""What an autoregressive model of a grid is: exact log-probabilities, and a walk that draws new grids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
import tyro
from torch import Tensor

from rasterwise.decoding.cuda_graph import recorder_for
from rasterwise.decoding.decoder import (
    Decoder,
    GuidedDecoder,
    GuidedWavefrontDecoder,
    NaiveDecoder,
    WavefrontDecoder,
)
from rasterwise.decoding.fixed_point import ParallelSamples, sample_by_fixed_point
from rasterwise.decoding.loop import walk_to_the_end
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained, evaluating
from rasterwise.symbols.condition import UNCONDITIONED, Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig:
    """What every autoregressive model's configuration says of its data; each model adds its own fields.

    These three are no flags of a command: the data that a model is trained on decide them.

    Attributes:
        grid: The grid of symbols that the model is a distribution over.
        classes: Names of the classes that it can be conditioned on; empty for none.
        tokenizer: Fingerprint of the tokenizer that made the symbols; empty for any tokenizer.
    """

    grid: Annotated[Grid, tyro.conf.Suppress] = Grid(1, 28, 28, 256)
    classes: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    tokenizer: Annotated[str, tyro.conf.Suppress] = ""


class AutoregressiveModel(Pretrained):
    """p(x) = Π p(x_i | x_<i) over a grid of symbols in raster order, perhaps given a condition.

    A subclass implements ``embed``, ``logits_from`` and ``decoder``; scoring, sampling and completion are
    here and the same for all.

    Attributes:
        takes_spatial: Whether it can be told a map as well as a label.
    """

    config: AutoregressiveConfig
    takes_spatial: ClassVar[bool] = False

    @property
    def grid(self) -> Grid:
        """The grid of symbols that the model is a distribution over."""
        return self.config.grid

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @abstractmethod
    def embed(self, symbols: Tensor) -> Tensor:
        """Symbols as the network's differentiable input: int64 ``(B, C, H, W)`` to ``(B, C, H, W, ...)``."""

    @abstractmethod
    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits ``(B, C, H, W, K)`` of every symbol given what ``embed`` gave; site i sees only x_<i."""

    @abstractmethod
    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        """A cached decoder: it computes each activation once."""

    def wavefront_decoder(
        self, batch_size: int, condition: Condition | None = None
    ) -> WavefrontDecoder | None:
        """A cached decoder that draws several symbols of an image at once, exactly; None where it takes them all
        to tell the next. On a CPU ``sample`` draws by it where there is one."""
        return None

    def naive_decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        """The reference decoder: a whole forward pass a symbol. For tests and benchmarks alone."""
        return NaiveDecoder(self, batch_size, condition)

    def forward(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        """Teacher-forced logits of all sites in one pass.

        Args:
            symbols: int64 ``(B, C, H, W)`` in ``[0, K)``.
            condition: What the model is told, or None.

        Returns:
            Logits ``(B, C, H, W, K)``.
        """
        self.grid.check(symbols)
        return self.logits_from(self.embed(symbols), condition)

    def log_prob(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        """Exact log-probability of grids of symbols: ``(B,)`` nats. Arguments as for ``forward``."""
        return categorical_log_prob(self(symbols, condition), symbols).flatten(1).sum(1)

    def class_index(self, condition: Condition | None, batch_size: int) -> Tensor:
        """The row of a class-embedding table of ``len(classes) + 1`` rows, the last one for no label.

        Returns:
            int64 ``(B,)`` on the model's device.

        Raises:
            InputError: The model has no classes or takes no spatial map, or a label or the batch size is
                out of range.
        """
        classes = len(self.config.classes)
        if condition is not None and condition.spatial is not None and not self.takes_spatial:
            raise InputError(
                f"a spatial condition was given to a {self.kind}, which takes none; leave it out"
            )
        if condition is None or condition.label is None:
            return torch.full((batch_size,), classes, device=self.device)
        label = condition.label.to(self.device)
        if label.shape != (batch_size,):
            raise InputError(f"{tuple(label.shape)} labels for a batch of {batch_size}")
        if not torch.compiler.is_compiling():  # reading values would cut the compiled graph in two
            if not classes and bool((label != UNCONDITIONED).any()):
                raise InputError(
                    "labels were given to a model that was trained without classes; leave them out"
                )
            if int(label.min()) < UNCONDITIONED or int(label.max()) >= classes:
                raise InputError(f"label {int(label.max())} is out of range, expected 0 to {classes - 1}")
        return torch.where(label == UNCONDITIONED, classes, label)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: Condition | None = None,
        *,
        sampling: Sampling | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: Tensor | None = None,
        batch_size: int = 64,
        progress: Callable[[float, int], None] | None = None,
        replay: bool = True,
    ) -> Tensor:
        """Draw grids of symbols, or complete grids that are partly known.

        An image depends on the generator's seed and its place among the n, not on ``rows`` or
        ``batch_size`` (up to the rounding of the network's arithmetic, which can differ between batches).

        Args:
            n: How many.
            condition: n conditions, or None.
            sampling: Temperature, top-k, top-p, guidance; by default the model's own distribution.
            known: int64 ``(n, C, H, W)``: symbols to keep where ``mask`` is true. A drawn symbol takes
                into account the known ones before it in raster order, not those after it.
            mask: bool ``(C, H, W)`` or ``(n, C, H, W)``, true where ``known`` is kept.
            generator: Source of the noise, on the CPU.
            rows: int64 ``(R,)``: draw these of the n alone, for processes that share the work.
            batch_size: How many are drawn at once; bounds the memory.
            progress: Called as the walk goes with (images drawn so far, counted by their symbols;
                images in all).
            replay: On CUDA, record what repeats itself as a graph and replay it; False dispatches every
                operation from the host. Elsewhere nothing is recorded. The images are the same.

        Returns:
            int64 ``(n, C, H, W)``, or R of them, on the model's device.

        Raises:
            InputError: An argument does not fit the model.
        """
        plan = SamplingPlan.of(
            self.grid, n, condition, sampling=sampling, known=known, mask=mask,
            generator=generator, rows=rows, batch_size=batch_size, device=self.device,
        )  # fmt: skip
        record = recorder_for(self.device) if replay else None

        def report(before: int, size: int, count: int) -> None:
            if progress:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # what is queued is not yet drawn
                progress(before + size * count / self.grid.size, len(plan))

        drawn = []
        with evaluating(self):
            for start in range(0, len(plan), plan.batch_size):
                part = plan[start : start + plan.batch_size]
                drawn.append(walk_to_the_end(self, part, record, partial(report, start, len(part))))
        return self.grid.unflatten(torch.cat(drawn))

    @torch.no_grad()
    def sample_parallel(
        self,
        n: int,
        condition: Condition | None = None,
        *,
        sampling: Sampling | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: Tensor | None = None,
        batch_size: int = 64,
        progress: Callable[[float, int], None] | None = None,
    ) -> ParallelSamples:
        """The very images of ``sample``, in fewer evaluations of the network, each of all symbols.

        Equal symbol for symbol up to the rounding of the network's arithmetic, in which the cached walk and
        the teacher-forced pass differ. See ``sample_by_fixed_point`` for how, ``sample`` for the arguments.
        """
        plan = SamplingPlan.of(
            self.grid, n, condition, sampling=sampling, known=known, mask=mask,
            generator=generator, rows=rows, batch_size=batch_size, device=self.device,
        )  # fmt: skip
        with evaluating(self):
            return sample_by_fixed_point(self, plan, progress)

    def sampling_decoder(self, plan: SamplingPlan, *, recorded: bool = False) -> Decoder | WavefrontDecoder:
        """The decoder that a plan's images are drawn with, told what guidance asks for.

        Args:
            plan: What is drawn.
            recorded: Whether the walk is recorded to be replayed, for which it has to be in raster order.
        """

        def made(batch_size: int, condition: Condition | None) -> Decoder | WavefrontDecoder:
            wavefront = None if recorded else self.wavefront_decoder(batch_size, condition)
            return self.decoder(batch_size, condition) if wavefront is None else wavefront

        scale = plan.sampling.guidance
        if plan.condition is None or scale == 1:
            return made(len(plan), plan.condition)
        both = made(2 * len(plan), plan.condition.with_unconditioned())
        if isinstance(both, WavefrontDecoder):
            return GuidedWavefrontDecoder(both, scale)
        return GuidedDecoder(both, scale)
