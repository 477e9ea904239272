"""What an autoregressive model of a grid is: exact log-probabilities, and decoding that draws new grids."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, Self, get_args

import torch
import tyro
from torch import Tensor

from rasterwise.configuration import configuration
from rasterwise.decoding.cuda_graph import capture_on
from rasterwise.decoding.decoder import Decoder, GuidedDecoder, NaiveDecoder, decoded_logits
from rasterwise.decoding.fixed_point import jacobi_decode
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SampledSymbols, SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.decoding.window import windowed_decode
from rasterwise.errors import InputError
from rasterwise.measure.machine import device_name, has_bf16
from rasterwise.models.pretrained import Pretrained, evaluating
from rasterwise.symbols.condition import UNCONDITIONED, Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob, finite_log_prob
from rasterwise.symbols.order import RasterOrder, raster_order

SamplingMethod = Literal["sequential", "fixed-point"]


@configuration(kw_only=True)
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

    A subclass implements ``embed`` and ``logits_from``; scoring, sampling and completion are here and the same
    for all. Sampling is then naive, a pass for every symbol: ``decoder`` is what makes it fast.

    Attributes:
        takes_spatial: Whether a condition may hold a map as well as a label.
        takes_text: Whether it may hold a text.
        any_size: Whether its weights are those of a model of any height and width: see ``at_size``.
        decodes_in_bf16: Whether there is an ``in_bf16`` of it.
        scored_by_decoder: Whether its likelihood is made of its decoder's logits, which are rounded as its samples'.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from rasterwise import AutoregressiveConfig, AutoregressiveModel, Grid
        >>> class Independent(AutoregressiveModel):
        ...     "Every position has a distribution of its own."
        ...     kind, config_class = "independent", AutoregressiveConfig
        ...
        ...     def __init__(self, config):
        ...         super().__init__(config)
        ...         self.table = nn.Parameter(torch.zeros(*self.grid.shape, self.grid.levels))
        ...
        ...     def embed(self, symbols):
        ...         return symbols.float()
        ...
        ...     def logits_from(self, inputs, condition=None):
        ...         return self.table.expand(len(inputs), -1, -1, -1, -1)
        >>> model = Independent(AutoregressiveConfig(grid=Grid(1, 2, 2, 4)))
        >>> symbols = model.sample(3)
        >>> symbols.shape, model.log_prob(symbols).exp()
        (torch.Size([3, 1, 2, 2]), tensor([0.0039, 0.0039, 0.0039], grad_fn=<ExpBackward0>))
    """

    config: AutoregressiveConfig
    takes_spatial: ClassVar[bool] = False
    takes_text: ClassVar[bool] = False
    any_size: ClassVar[bool] = False
    decodes_in_bf16: ClassVar[bool] = False
    scored_by_decoder: bool = False

    @property
    def grid(self) -> Grid:
        """The grid of symbols that the model is a distribution over."""
        return self.config.grid

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def order(self) -> Sequence[Tensor]:
        """The steps of the factorization, int64 ``(T,)`` each: a symbol is given all those of earlier steps.

        Raster order, but for models that have others (``in_steps``).
        """
        return raster_order(self.grid, self.device)

    @abstractmethod
    def embed(self, symbols: Tensor) -> Tensor:
        """Symbols as the network's differentiable input: int64 ``(B, C, H, W)`` to ``(B, C, H, W, ...)``."""

    @abstractmethod
    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits ``(B, C, H, W, K)`` of every symbol given what ``embed`` gave; site i sees only x_<i."""

    def grids_of(self, values: Tensor) -> dict[str, Tensor]:
        """Values ``(B, C, H, W, ...)`` by the grids that the grid consists of; a single one has an empty name."""
        return {"": values}

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        """What draws one symbol of each image a step, in raster order.

        By default a naive decoder. A model that is to sample fast replaces it by one that computes each
        activation once.
        """
        return NaiveDecoder(self, batch_size, condition)

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder | None:
        """What draws several symbols of each image a step, exactly; None where each symbol takes all before it.

        ``sample`` decodes by it where there is one, unless steps are captured.
        """
        return None

    def window_decoder(
        self, batch_size: int, condition: Condition | None = None, *, window: int
    ) -> TransformerDecoder:
        """What the windowed fixed point evaluates ``window`` positions of: for transformers in raster order alone.

        Raises:
            InputError: The model is no such transformer.
        """
        raise InputError(f"a {self.kind} is drawn without a window; leave it out")

    def forward(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        """Teacher-forced logits of all sites in one pass.

        Args:
            symbols: int64 ``(B, C, H, W)`` in ``[0, K)``.
            condition: B conditions, or None.

        Returns:
            Logits ``(B, C, H, W, K)``.
        """
        self.grid.check(symbols)
        if self.scored_by_decoder:
            return self.grid.unflatten(decoded_logits(self.decoder(len(symbols), condition), symbols))
        return self.logits_from(self.embed(symbols), condition)

    def log_prob(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        """Exact log-probability of grids of symbols: ``(B,)`` nats. Arguments as for ``forward``.

        Raises:
            NonFiniteError: The model's logits are infinite or NaN; in training, whose loop looks at the loss, none.
        """
        log_prob = categorical_log_prob(self(symbols, condition), symbols).flatten(1).sum(1)
        return log_prob if self.training else finite_log_prob(log_prob)

    def class_index(self, condition: Condition | None, batch_size: int) -> Tensor:
        """The row of a class-embedding table of ``len(classes) + 1`` rows, the last one for no label.

        Returns:
            int64 ``(B,)`` on the model's device.

        Raises:
            InputError: The model has no classes, takes no spatial map or no text, or a label or the batch size is
                out of range.
        """
        classes = len(self.config.classes)
        if condition is not None and condition.spatial is not None and not self.takes_spatial:
            raise InputError(
                f"a spatial condition was given to a {self.kind}, which takes none; leave it out"
            )
        if condition is not None and condition.text is not None and not self.takes_text:
            raise InputError(f"a text was given to a {self.kind}, which takes none; leave it out")
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

    def at_size(self, height: int, width: int) -> Self:
        """The same weights as a model of a grid of another size, which shares them, in evaluation mode.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.

        Raises:
            InputError: The model has no ``any_size``, and the size is not its own.
        """
        grid = self.grid
        if (height, width) != (grid.height, grid.width) and not self.any_size:
            raise InputError(
                f"a {self.kind} has the size that it was built for, {grid.width}×{grid.height} sites"
            )
        config = dataclasses.replace(self.config, grid=dataclasses.replace(grid, height=height, width=width))
        with torch.random.fork_rng(devices=[]):  # building draws weights
            sized = type(self)(config).to(self.device)
        try:
            sized.load_state_dict(self.state_dict(), assign=True)
        except RuntimeError:
            raise InputError(f"{width}×{height} sites are too few for this {self.kind}") from None
        return sized.eval()

    def in_order(self, order: Sequence[Tensor]) -> Self:
        """The same weights as a model of another order, which scores, samples and compresses in it.

        The order is not saved with the model.

        Args:
            order: Steps of positions, int64 ``(T,)`` each; a symbol is given all those of earlier steps.

        Raises:
            InputError: The order does not take every position once, or the model has raster order alone.
        """
        if isinstance(order, RasterOrder):
            return self
        raise InputError(
            f"a {self.kind} is in raster order alone; `train prior --model any-order` trains others"
        )

    def in_steps(self, steps: int) -> Self:
        """The same weights as a model that draws an image in so many steps, with a likelihood of its own.

        Args:
            steps: 1 to N; the symbols of one step are independent given those of the steps before it.

        Raises:
            InputError: The model was not trained for it, or the number is out of range.
        """
        raise InputError(
            f"a {self.kind} was trained to draw one symbol a step; leave the steps out, or train a prior for several "
            "with --model any-order"
        )

    def in_bf16(self) -> Self:
        """A copy with weights and KV cache in bfloat16, half as many bytes for a step to read; in evaluation mode.

        Sums over many positions at once are rounded in another order than those of one. So that ``log_prob`` is that of
        what is drawn, bit for bit on CPUs in batches of one size, the copy scores with its decoder, in as much time as
        it samples.

        Raises:
            InputError: The model has no such copy, or the device no such arithmetic.
        """
        if not self.decodes_in_bf16:
            raise InputError(f"a {self.kind} is decoded in float32 alone; leave bf16 out")
        if not has_bf16(self.device):
            raise InputError(
                f"bf16 was asked for on a device without it ({device_name(self.device)}; CPUs have it as avx512_bf16, "
                "amx_bf16 or ARM's bf16); leave it out"
            )
        rounded = copy.deepcopy(self).to(torch.bfloat16).eval()
        rounded.scored_by_decoder = True
        return rounded

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
        method: SamplingMethod = "sequential",
        window: int | None = None,
        progress: Callable[[float, int], None] | None = None,
        capture: bool = True,
    ) -> Tensor:
        """Draw grids of symbols, or complete grids that are partly known.

        An image depends on the generator's seed and its place among the n, not on ``rows``, ``batch_size`` or
        ``method`` (up to the rounding of the network's arithmetic, which can differ between batches).

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
            method: As for ``draw``.
            window: As for ``draw``.
            progress: As for ``draw``.
            capture: As for ``draw``.

        Returns:
            int64 ``(n, C, H, W)``, or R of them, on the model's device.

        Raises:
            InputError: An argument does not fit the model.
            NonFiniteError: The logits of a symbol are no distribution: one is NaN or +inf, or all are −inf.
        """
        plan = SamplingPlan.of(
            self.grid, n, condition, sampling=sampling, known=known, mask=mask,
            generator=generator, rows=rows, batch_size=batch_size, device=self.device,
        )  # fmt: skip
        return self.draw(plan, method=method, window=window, progress=progress, capture=capture).symbols

    @torch.no_grad()
    def draw(
        self,
        plan: SamplingPlan,
        *,
        method: SamplingMethod = "sequential",
        window: int | None = None,
        progress: Callable[[float, int], None] | None = None,
        capture: bool = True,
    ) -> SampledSymbols:
        """Draw the images of a plan; ``sample`` makes the plan from its arguments.

        Args:
            plan: What is drawn, on the model's device.
            method: "sequential" decodes step by step. "fixed-point" evaluates the model on all symbols of an
                image at once until they agree (``jacobi_decode``): the same images in fewer evaluations, each
                of which costs more.
            window: For the fixed point of a transformer: evaluate at most so many symbols at once, the next ones,
                over a KV cache of those that have settled (``windowed_decode``). Images are drawn one by one. By
                default all symbols of an image are evaluated, by any model.
            progress: Called now and then with (images drawn so far, counted by their symbols; images in all).
            capture: On CUDA, capture steps that repeat as a graph and replay it; False dispatches every
                operation from the host. Elsewhere nothing is captured. The images are the same.

        Returns:
            The symbols, and what the fixed point took.

        Raises:
            InputError: The method is none of them, a condition does not fit the model, the window is below 1, or
                the method or the model has none.
            NonFiniteError: The logits of a symbol are no distribution: one is NaN or +inf, or all are −inf.
        """
        if method not in get_args(SamplingMethod):
            raise InputError(f"method is {method!r}, expected one of {', '.join(get_args(SamplingMethod))}")
        if window is not None:
            if method != "fixed-point":
                raise InputError(f"a window is of the fixed point; the method is {method}")
            if window < 1:
                raise InputError(f"window is {window}, expected 1 or more symbols")
        if method == "fixed-point" and self.scored_by_decoder:
            raise InputError(
                "the fixed point rounds in another order than bf16 decoding; leave one of them out"
            )
        with evaluating(self):
            if window is not None:
                return windowed_decode(self.window_decoder, plan, window, progress)
            if method == "fixed-point":
                if not isinstance(self.order, RasterOrder):
                    raise InputError("the fixed point is of raster order; leave it out, or the steps")
                return jacobi_decode(self, plan, progress)
            drawn = []
            for start in range(0, len(plan), plan.batch_size):
                part = plan[start : start + plan.batch_size]
                sequence = torch.empty(len(part), self.grid.size, dtype=torch.int64, device=self.device)
                capturing = capture_on(self.device) if capture else None
                for count in decode(partial(self.sampling_decoder, part), part, sequence, capturing):
                    if progress:
                        if self.device.type == "cuda":
                            torch.cuda.synchronize(self.device)  # what is queued is not yet drawn
                        progress(start + len(part) * count / self.grid.size, len(plan))
                drawn.append(sequence)
            return SampledSymbols(self.grid.unflatten(torch.cat(drawn)))

    def sampling_decoder(self, plan: SamplingPlan, captured: bool = False) -> Decoder:
        """The decoder that a plan's images are drawn with, guided where the plan asks for it.

        Args:
            plan: What is drawn.
            captured: Whether its steps are captured, for which it has to be the one in raster order.
        """

        def made(batch_size: int, condition: Condition | None) -> Decoder:
            wavefront = None if captured else self.wavefront_decoder(batch_size, condition)
            return self.decoder(batch_size, condition) if wavefront is None else wavefront

        scale = plan.sampling.guidance
        if plan.condition is None or scale == 1:
            return made(len(plan), plan.condition)
        return GuidedDecoder(made(2 * len(plan), plan.condition.with_unconditioned()), scale)
