"""What sampling costs against scoring: cached, naive, and transformers' generate on the same weights."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from benchmarks.limits import LeastTime, measured_peaks, peaks_note
from benchmarks.models import MODELS, SAMPLED, SampledName, Size
from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from rasterwise.decoding.cuda_graph import capture_on
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.errors import InputError
from rasterwise.measure.timing import (
    DeviceChoice,
    PeakMemory,
    chosen_device,
    in_fresh_process,
    median,
    seconds_of,
    with_peak_memory,
)
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating
from rasterwise.progress import Progress
from stage2_prior import TransformerPrior

CacheKind = Literal["dynamic", "static"]
GENERATE: dict[str, CacheKind] = {"generate_dynamic_cache": "dynamic", "generate_static_cache": "static"}


@dataclass(frozen=True)
class SamplingBenchmark:
    """Time scoring and sampling of every model, interleaved; print a Markdown table and write JSON.

    Each model and batch size is measured in a process of its own. The naive sampler is timed on a slice of a
    few sites and extrapolated; every one of its sites costs a whole pass, so that this loses nothing.

    Attributes:
        models: Which.
        batch_sizes: How many images are scored and sampled at once.
        repeats: How often each is timed, in turn: score, sample, (generate,) naive slice, score, sample, ...
        naive_sites: Sites in the slice of the naive sampler; 0 to leave it out.
        threads: CPU threads of torch; 0 for torch's own choice.
        size: stated, or tiny to see that the benchmark works: its figures mean nothing.
        device: auto takes a GPU where there is one.
        capture: On a GPU, sample by captured graphs; --no-capture dispatches every operation from the host.
        output: The JSON file, written as the benchmark goes: a stopped run keeps what it has.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    models: tuple[SampledName, ...] = SAMPLED
    batch_sizes: tuple[int, ...] = (1, 16, 64)
    repeats: int = 3
    naive_sites: int = 3
    threads: int = 2
    size: Size = "stated"
    device: DeviceChoice = "auto"
    capture: bool = True
    output: Path = Path("runs/benchmarks/sampling.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if not self.models or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise InputError(
                f"asked for batch sizes {self.batch_sizes} of models {self.models}, expected 1 or more"
            )
        if self.repeats < 1 or self.naive_sites < 0 or self.threads < 0:
            raise InputError(
                f"asked for {self.repeats} repeats, {self.naive_sites} naive sites and {self.threads} threads, "
                "expected 1, 0 and 0 or more"
            )


def benchmark_sampling(options: SamplingBenchmark) -> dict[str, Any]:
    """Run the command; returns its report."""
    file = BenchmarkFile(options.output, "sampling", options, chosen_device(options.device), options.force)
    planned: list[tuple[Cell, Callable[[], Cell]]] = []
    for name in options.models:
        for batch_size in options.batch_sizes:
            subject = {"model": name, "label": MODELS[name].label(options.size), "batch_size": batch_size}
            planned.append(
                (subject, partial(in_fresh_process, options.threads, measure_cell, name, batch_size, options))
            )
    file.run(planned)
    return file.report(tables, as_json=options.json)


def measure_cell(name: SampledName, batch_size: int, options: SamplingBenchmark) -> Cell:
    """Measure one model at one batch size; in this process.

    Returns:
        The cell's figures. ``repeats`` holds each repeat's raw seconds; the medians are over it.
    """
    device = chosen_device(options.device)
    model = cast(AutoregressiveModel, MODELS[name].build(options.size, device)).eval()
    work = works(model, batch_size, min(options.naive_sites, model.grid.size), options.capture)
    with evaluating(model), torch.no_grad(), Progress(name) as progress, warnings.catch_warnings():
        warnings.filterwarnings("error", "sampling without a CUDA graph")  # or "captured" would not be true
        for part in warm_ups(model, batch_size, options.capture):
            part()
        memory: dict[str, PeakMemory] = {}
        repeats: list[dict[str, float]] = []
        for repeat in range(options.repeats):
            seconds: dict[str, float] = {}
            for what, do in work.items():
                if repeat == 0:  # which measures the memory as well, at next to no cost
                    memory[what] = with_peak_memory(do, device)
                    seconds[f"{what}_seconds"] = memory[what].seconds
                else:
                    seconds[f"{what}_seconds"] = seconds_of(do, device)
            repeats.append(seconds)
            measured = ", ".join(f"{what} {value:.3g}" for what, value in seconds.items())
            progress.line(f"  repeat {repeat + 1}/{options.repeats}: {measured}")
        peaks = measured_peaks(device)
        least = LeastTime.of(model, batch_size, peaks)
    measured_figures = figures(
        repeats, batch_size, model.grid.size, min(options.naive_sites, model.grid.size)
    )
    return {
        "size": options.size,
        "config": dataclasses.asdict(model.config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "symbols_an_image": model.grid.size,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "device": str(device),
        "captured": options.capture and capture_on(model.device) is not None,
        "threads": torch.get_num_threads(),
        **measured_figures,
        "peaks": dataclasses.asdict(peaks),
        "least": dataclasses.asdict(least),
        "share_of_limit": least.seconds / measured_figures["sample_seconds_median"],
        "peak_memory": {
            what: {"before_bytes": peak.before_bytes, "peak_bytes": peak.peak_bytes, "method": peak.method}
            for what, peak in memory.items()
        },
        "repeats": repeats,
    }


def works(
    model: AutoregressiveModel, batch_size: int, naive_sites: int, capture: bool = True
) -> dict[str, Callable[[], object]]:
    """What is timed, by name, in the order of a repeat."""
    grid = model.grid
    generator = torch.Generator().manual_seed(0)
    symbols = torch.randint(grid.levels, (batch_size, *grid.shape), generator=generator).to(model.device)
    work: dict[str, Callable[[], object]] = {
        "score": lambda: model.log_prob(symbols),
        "sample": lambda: model.sample(
            batch_size, generator=generator, batch_size=batch_size, capture=capture
        ),
    }
    if isinstance(model, TransformerPrior):
        llama = as_llama(model)
        for what, cache in GENERATE.items():
            work[what] = partial(generate, model, batch_size, cache, llama=llama)
    if naive_sites:
        work["naive_slice"] = lambda: draw_until(steps(model, batch_size, naive=True), naive_sites)
    return work


def warm_ups(model: AutoregressiveModel, batch_size: int, capture: bool = True) -> list[Callable[[], object]]:
    """What is done once, untimed, before the first repeat.

    On a CPU a whole row, decoded with the cache, stands for sampling; on a GPU everything runs whole, since
    graphs are captured and kernels compiled for the shapes of the whole grid.
    """
    if model.device.type == "cuda":
        return list(works(model, batch_size, 1, capture).values())
    row = model.grid.width * model.grid.channels
    parts = works(model, batch_size, 0)
    parts["sample"] = lambda: draw_until(steps(model, batch_size), row)
    if isinstance(model, TransformerPrior):
        for what, cache in GENERATE.items():
            parts[what] = partial(generate, model, batch_size, cache, row)
    return list(parts.values())


def steps(model: AutoregressiveModel, batch_size: int, *, naive: bool = False) -> Iterator[int]:
    """The steps that ``sample`` draws a batch by, each dispatched from the host; they yield as ``decode`` does.

    Args:
        model: In evaluation mode.
        batch_size: Of the batch.
        naive: Whether by a whole pass a symbol.
    """
    plan = SamplingPlan.of(model.grid, batch_size, batch_size=batch_size, device=model.device)
    sequence = torch.empty(batch_size, model.grid.size, dtype=torch.int64, device=model.device)
    decoder = NaiveDecoder(model, batch_size) if naive else model.sampling_decoder(plan)
    return decode(lambda captured: decoder, plan, sequence)


def draw_until(steps: Iterator[int], symbols: int) -> int:
    """Go on until so many symbols of each image are drawn, or one step more; returns how many are."""
    return next(count for count in steps if count >= symbols)


def as_llama(prior: TransformerPrior) -> Any:
    """A prior's own weights and positions in transformers' Llama, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    config, options, weights = prior.config, prior.llama.options, prior.llama.state_dict()
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=prior.grid.levels,
            hidden_size=config.width,
            intermediate_size=options.inner_width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            max_position_embeddings=prior.grid.size,
            # The vocabulary is codes alone: none of them starts, ends or pads a sequence.
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            tie_word_embeddings=False,
        )
    )
    for name, module in list(llama.named_modules()):
        if isinstance(module, LlamaRMSNorm):  # whose float32 would round float64
            llama.set_submodule(name, nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon))
    llama.model.rotary_emb = prior.rotary
    llama.to(prior.device, prior.llama.lm_head.weight.dtype).load_state_dict(weights)
    return llama.eval()


def generate(
    prior: TransformerPrior,
    batch_size: int,
    cache: CacheKind,
    symbols: int = 0,
    *,
    greedy: bool = False,
    llama: Any = None,
) -> Tensor:
    """Draw with transformers' ``generate`` on the prior's own weights, from the same distribution.

    Args:
        prior: In evaluation mode.
        batch_size: Grids at once.
        cache: Which of transformers' caches.
        symbols: How many of a grid's symbols; 0 for all.
        greedy: Take the likeliest symbol in place of a draw.
        llama: ``as_llama(prior)``, if it is there already.

    Returns:
        int64 ``(B, symbols)`` in raster order.
    """
    start = prior.start(prior.class_index(None, batch_size))[:, None]
    # Left to itself, generate draws among the 50 likeliest alone.
    drawn: dict[str, Any] = {} if greedy else {"top_k": 0, "top_p": 1.0, "temperature": 1.0}
    sequence: Tensor = (llama or as_llama(prior)).generate(
        inputs_embeds=start,
        max_new_tokens=symbols or prior.grid.size,
        do_sample=not greedy,
        use_cache=True,
        cache_implementation=cache,
        **drawn,
    )
    return sequence


def figures(repeats: Sequence[dict[str, float]], batch_size: int, symbols: int, naive_sites: int) -> Cell:
    """Medians over the repeats, and their ratios.

    The naive sampler's seconds are those of its slice times symbols / naive_sites, as their names say.
    """
    medians = {what: median([repeat[what] for repeat in repeats]) for what in repeats[0]}
    score, sample = medians["score_seconds"], medians["sample_seconds"]
    naive = medians["naive_slice_seconds"] * symbols / naive_sites if naive_sites else None
    return {
        **{f"{what}_median": value for what, value in medians.items()},
        "sample_over_score": sample / score,
        "naive_sites_timed": naive_sites,
        "naive_seconds_extrapolated_from_slice": naive,
        "naive_extrapolated_over_sample": naive / sample if naive is not None else None,
        "sampled_images_per_second": batch_size / sample,
        "scored_images_per_second": batch_size / score,
        **{
            f"{what}_over_sample": medians[f"{what}_seconds"] / sample
            for what in GENERATE
            if f"{what}_seconds" in medians
        },
    }


def tables(cells: Sequence[Cell]) -> str:
    """The cells as Markdown: every model, then the prior against transformers' generate."""
    measured = [cell for cell in cells if "error" not in cell]
    heads = [
        "model",
        "B",
        "score s",
        "sample s",
        "sample ÷ score",
        "naive s (extrapolated)",
        "naive ÷ cached",
    ]
    heads += [
        "arithmetic s",
        "reading s",
        "share of its limit",
        "images/s",
        "sampling's peak MB",
        "it adds MB",
        "scoring adds MB",
    ]
    rows = [
        [
            *(cell["label"], cell["batch_size"], cell["score_seconds_median"], cell["sample_seconds_median"]),
            *(cell["sample_over_score"], cell["naive_seconds_extrapolated_from_slice"]),
            *(cell["naive_extrapolated_over_sample"], cell["least"]["arithmetic_seconds"]),
            *(cell["least"]["reading_seconds"], f"{cell['share_of_limit']:.0%}"),
            cell["sampled_images_per_second"],
            cell["peak_memory"]["sample"]["peak_bytes"] / 1e6,
            *(added_megabytes(cell, what) for what in ("sample", "score")),
        ]
        for cell in measured
    ]
    parts = [markdown_table(heads, rows)]
    if measured:
        parts.append(peaks_note(measured))
    generated = [cell for cell in measured if "generate_dynamic_cache_over_sample" in cell]
    if generated:
        heads = ["model", "B", "sample s"]
        heads += ["generate, dynamic cache s", "÷ sample", "generate, static cache s", "÷ sample"]
        rows = [
            [cell["label"], cell["batch_size"], cell["sample_seconds_median"]]
            + [cell[f"{what}_{of}"] for what in GENERATE for of in ("seconds_median", "over_sample")]
            for cell in generated
        ]
        parts.append(markdown_table(heads, rows))
    parts += [
        f"{cell['label']}, B = {cell['batch_size']}: {cell['error']}" for cell in cells if "error" in cell
    ]
    return "\n\n".join(parts)


def added_megabytes(cell: Cell, what: str) -> float:
    """By how much a cell's work raised the memory in use at its peak."""
    memory = cell["peak_memory"][what]
    return (memory["peak_bytes"] - memory["before_bytes"]) / 1e6


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where a cell failed."""
    return command_status(benchmark_sampling, SamplingBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.sampling"))
