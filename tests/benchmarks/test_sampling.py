"""The sampling benchmark: every figure is what its name says. No test of a time."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from benchmarks import sampling
from benchmarks.models import MODELS, SampledName
from benchmarks.sampling import SamplingBenchmark, figures, generate, main, measure_cell, works
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.grid import Grid
from stage2_prior import TransformerPrior, TransformerPriorConfig

CPU = torch.device("cpu")
TINY = SamplingBenchmark(repeats=2, naive_sites=2, size="tiny", device="cpu")


@pytest.mark.parametrize("name", get_args(SampledName))
def test_a_cell_says_what_was_measured(name: SampledName) -> None:
    cell = measure_cell(name, 2, TINY)
    assert cell["config"] == dataclasses.asdict(MODELS[name].tiny)
    assert (cell["size"], cell["device"], cell["dtype"]) == ("tiny", "cpu", "float32")
    assert cell["captured"] is False  # on a CPU nothing is
    assert cell["symbols_an_image"] == MODELS[name].tiny.grid.size
    timed = {"score", "sample", "naive_slice"}
    if name == "transformer-prior":
        timed |= {"generate_dynamic_cache", "generate_static_cache"}
    assert min(cell["peaks"].values()) > 0
    assert cell["share_of_limit"] == max(cell["least"].values()) / cell["sample_seconds_median"]
    assert len(cell["repeats"]) == 2
    for repeat in cell["repeats"]:
        assert repeat.keys() == {f"{what}_seconds" for what in timed}
        assert all(seconds > 0 for seconds in repeat.values())
    assert cell["peak_memory"].keys() == timed
    for memory in cell["peak_memory"].values():
        assert memory["peak_bytes"] >= memory["before_bytes"] > 0
    for what in timed:
        raw = [repeat[f"{what}_seconds"] for repeat in cell["repeats"]]
        assert cell[f"{what}_seconds_median"] == statistics.median(raw)
    assert json.loads(json.dumps(cell)).keys() == cell.keys()


def test_figures_are_medians_and_the_naive_one_is_extrapolated() -> None:
    repeats = [
        {"score_seconds": score, "sample_seconds": sample, "naive_slice_seconds": naive}
        for score, sample, naive in ((2.0, 3.0, 9.0), (1.0, 9.0, 6.0), (5.0, 4.0, 5.0))
    ]
    cell = figures(repeats, batch_size=8, symbols=100, naive_sites=3)
    assert cell["sample_over_score"] == 4 / 2
    assert cell["naive_sites_timed"] == 3
    assert cell["naive_seconds_extrapolated_from_slice"] == 6 * 100 / 3
    assert cell["naive_extrapolated_over_sample"] == 200 / 4
    assert (cell["sampled_images_per_second"], cell["scored_images_per_second"]) == (2, 4)


def test_without_a_naive_slice_no_naive_figure() -> None:
    cell = figures([{"score_seconds": 1.0, "sample_seconds": 2.0}], batch_size=1, symbols=10, naive_sites=0)
    assert cell["naive_seconds_extrapolated_from_slice"] is None
    assert cell["naive_extrapolated_over_sample"] is None


@pytest.mark.parametrize("name", get_args(SampledName))
def test_the_slice_is_naive_and_the_sample_is_not(name: SampledName) -> None:
    """A site of the slice is a pass over the whole batch and grid; sampling makes no such pass."""
    model = cast(AutoregressiveModel, MODELS[name].build("tiny", CPU)).eval()
    passes: list[int] = []
    whole_pass = model.logits_from

    def counted(inputs: torch.Tensor, *arguments: Any) -> torch.Tensor:
        passes.append(len(inputs))
        return whole_pass(inputs, *arguments)

    model.logits_from = counted  # type: ignore[method-assign]
    work = works(model, batch_size=3, naive_sites=2)
    work["naive_slice"]()
    assert passes == [3, 3]
    drawn = work["sample"]()
    assert passes == [3, 3]
    assert isinstance(drawn, torch.Tensor)
    assert drawn.shape == (3, *model.grid.shape)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_is_of_the_same_weights(cache: sampling.CacheKind) -> None:
    """The likeliest grid by transformers' generate is the model's own."""
    prior = cast(TransformerPrior, MODELS["transformer-prior"].build("tiny", CPU)).double().eval()
    ours = prior.sample(2, sampling=Sampling(temperature=0))
    with torch.no_grad():
        theirs = generate(prior, 2, cache, greedy=True)
    assert torch.equal(prior.grid.flatten(ours), theirs)


def test_generate_draws_from_all_levels() -> None:
    """Left to its defaults it would draw from the 50 likeliest alone, which is less work and another p."""
    prior = TransformerPrior(
        TransformerPriorConfig(grid=Grid(1, 2, 2, 64), depth=1, width=16, heads=2)
    ).eval()
    with torch.no_grad():
        assert len(generate(prior, 4000, "dynamic", symbols=1).unique()) == 64


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sampling.json"
    flags = ["--models", "transformer-prior", "--batch-sizes", "1", "--repeats", "1", "--naive-sites", "1"]
    flags += ["--threads", "1", "--size", "tiny", "--device", "cpu", "--output", str(output)]
    assert main(flags) == 0
    content = json.loads(output.read_text())
    assert (content["benchmark"], content["complete"]) == ("sampling", True)
    (cell,) = content["cells"]
    assert (cell["model"], cell["batch_size"], cell["threads"]) == ("transformer-prior", 1, 1)
    assert cell["label"] == "Transformer prior, tiny"
    printed = capsys.readouterr().out
    assert "naive s (extrapolated)" in printed
    assert "generate, static cache s" in printed
    assert printed.count("| Transformer prior, tiny | 1 |") == 2
    assert main(flags) == 2
    assert "--force" in capsys.readouterr().err


def test_a_cell_that_fails_is_told_and_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(threads: int, measure: Any, name: str, batch_size: int, *arguments: Any) -> Any:
        if batch_size == 2:
            raise MemoryError("killed")
        return measure(name, batch_size, *arguments)

    monkeypatch.setattr(sampling, "in_fresh_process", in_this_process)
    output = tmp_path / "sampling.json"
    flags = ["--models", "pixelcnn", "--batch-sizes", "2", "1", "--repeats", "1", "--size", "tiny"]
    assert main([*flags, "--device", "cpu", "--output", str(output)]) == 1
    failed, measured = json.loads(output.read_text())["cells"]
    assert failed["error"] == "MemoryError: killed"
    assert "sample_over_score" in measured
    assert "PixelCNN, tiny, B = 2: MemoryError: killed" in capsys.readouterr().out
