"""The training benchmark: every figure is what its name says. No test of a time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import MODELS, ModelName
from benchmarks.training import (
    DTYPES,
    Convolution,
    Precision,
    TrainingBenchmark,
    Variant,
    main,
    measure_model,
)
from rasterwise.measure.timing import median

CPU = torch.device("cpu")
TINY = TrainingBenchmark(batch_size=2, steps=2, size="tiny", device="cpu")


@pytest.mark.parametrize("name", get_args(ModelName))
def test_a_cell_says_what_was_measured(name: ModelName) -> None:
    cell = measure_model(name, TINY)
    assert cell["config"] == dataclasses.asdict(MODELS[name].tiny)
    assert (cell["size"], cell["device"]) == ("tiny", "cpu")
    peaks = cell["convolution_peak_flops_per_second"]
    for record in cell["convolutions"]:
        assert len(record["seconds"]) == 2
        one = Convolution(*(record[name] for name in ("batch_size", "channels", "side", "passes")))
        assert one.flops / min(record["seconds"]) <= peaks[record["precision"]]
    assert cell["variants"].keys() == {"fp32", "bf16"}
    for precision, variant in cell["variants"].items():
        seconds = variant["step_seconds_median"]
        assert len(variant["step_seconds"]) == 2
        assert min(variant["step_seconds"]) <= seconds <= max(variant["step_seconds"])
        assert variant["images_per_second"] == 2 / seconds
        achieved = cell["flops_a_step"] / seconds
        assert variant["achieved_flops_per_second"] == achieved
        assert variant["share_of_peak_in_its_precision"] == achieved / peaks[precision]
        assert variant["share_of_bf16_peak"] == achieved / peaks["bf16"]
        assert len(variant["loop_step_seconds"]) == 2
        loop, bare = (median(variant[f"{name}_step_seconds"]) for name in ("loop", "bare"))
        assert variant["loop_overhead"] == 1 - bare / loop
    assert json.loads(json.dumps(cell)).keys() == cell.keys()


@pytest.mark.parametrize("name", get_args(ModelName))
def test_a_step_trains_and_counting_does_not(name: ModelName) -> None:
    """Counting FLOPs leaves no gradient behind; a step changes the weights."""
    variant = Variant(MODELS[name], "fp32", False, TINY, CPU)
    parameters = dict(variant.objective.named_parameters())
    assert variant.parameters == sum(parameter.numel() for parameter in parameters.values())
    variant.step()
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    assert variant.flops_a_step() > 0
    assert all(parameter.grad is None for parameter in parameters.values())
    assert all(torch.equal(before[key], parameter) for key, parameter in parameters.items())
    variant.step()
    changed = sum(not torch.equal(before[key], parameter) for key, parameter in parameters.items())
    assert changed > len(parameters) / 2


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_variant_computes_in_its_precision(precision: Precision) -> None:
    variant = Variant(MODELS["gated-pixelcnn"], precision, False, TINY, CPU)
    dtypes: set[torch.dtype] = set()
    for module in variant.objective.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    variant.step()
    assert dtypes == {DTYPES[precision]}


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_convolution_does_the_flops_that_it_claims(precision: Precision) -> None:
    convolution = Convolution(batch_size=2, channels=4, side=5, passes=3)
    with FlopCounterMode(display=False) as counter:
        convolution.work(precision, CPU)()
    assert counter.get_total_flops() == convolution.flops


def test_what_cannot_be_compiled_still_has_its_eager_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(objective: nn.Module) -> Any:
        def call(batch: Any) -> Any:
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    options = dataclasses.replace(TINY, compile=True, precisions=("fp32",), steps=1)
    cell = measure_model("gated-pixelcnn", options)
    assert cell["variants"]["fp32"]["images_per_second"] > 0
    assert cell["variants"]["fp32-compiled"] == {"error": "RuntimeError: no compiler here"}


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "training.json"
    flags = [
        "--models",
        "vqvae",
        "--batch-size",
        "2",
        "--steps",
        "1",
        "--warmup-steps",
        "1",
        "--threads",
        "1",
    ]
    flags += ["--size", "tiny", "--device", "cpu", "--output", str(output)]
    assert main(flags) == 0
    content = json.loads(output.read_text())
    assert (content["benchmark"], content["complete"]) == ("training", True)
    (cell,) = content["cells"]
    assert (cell["model"], cell["label"], cell["threads"]) == ("vqvae", "VQ-VAE, tiny", 1)
    printed = capsys.readouterr().out
    for precision in DTYPES:
        assert f"| VQ-VAE, tiny | {precision} |" in printed
        assert f"Peak of a {precision} convolution" in printed
    assert main(flags) == 2
    assert "--force" in capsys.readouterr().err
