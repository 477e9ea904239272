"""The comparison of tokenizers: equal bits, one cell from its training to its page, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pipeline.cli import main as rasterwise
from pipeline.compare.commands import tokenizer as command
from pipeline.compare.measurement import tokenizer as measurement
from pipeline.compare.plan.tokenizers import TokenizerCell, quantizer_of_bits
from pipeline.evaluation import reconstruction
from rasterwise.errors import InputError
from stage1_vqvae.quantizers.table import QUANTIZERS


@pytest.mark.parametrize("bits", [4, 10])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_all_quantizers_have_the_same_bits(name: str, bits: int) -> None:
    quantizer = quantizer_of_bits(name, bits).build()
    assert quantizer.depth * math.log2(quantizer.codebook_size) == bits


def test_names_are_read_back() -> None:
    cell = TokenizerCell("l2", "vit", "logit-laplace")
    assert TokenizerCell.named(cell.name) == cell


def absent(_: object) -> None:
    raise InputError("the network is not installed")


@pytest.mark.slow
def test_a_comparison_of_one_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, measured, and on the page; the same command again does nothing anew."""
    for module in (measurement, reconstruction):
        monkeypatch.setattr(module, "open_frozen_network", absent)
    monkeypatch.setattr(command, "in_fresh_process", lambda _, work, *arguments: work(*arguments))
    words = [
        "compare", "tokenizer", "--quantizers", "fsq", "--factor", "4", "--code-bits", "4", "--prior", "16x1",
        "--budget", "4steps", "--batch-size", "8", "--samples", "2", "--output", str(tmp_path), "--json",
    ]  # fmt: skip
    assert rasterwise(words) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["not_done"] == {}
    found = json.loads((tmp_path / "comparison.json").read_text())["cells"]["fsq-convolutional-mse"]
    assert (found["bits_an_image"], found["tokenizer_steps"], found["prior_steps"]) == (16, 2, 2)
    assert found["prior_bits_an_image"] == pytest.approx(found["nats_per_code"] * 4 / math.log(2))
    assert found["sample_frechet"] is None
    assert "fsq-convolutional-mse" in (tmp_path / "index.html").read_text()
    monkeypatch.setattr(command, "in_fresh_process", None)
    assert rasterwise(words) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quantizers", "cubes"], "quantizer is 'cubes', expected one of ema"),
        (["--losses", "cubes"], "loss is 'cubes', expected one of mse"),
        (["--code-bits", "9", "--quantizers", "residual"], "code_bits is 9, expected a multiple of 2"),
        (["--factor", "16"], "images are 8×8, which factor 16 does not divide"),
        (["--budget", "much"], "budget is 'much'"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rasterwise(["compare", "tokenizer", *words, "--output", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x" / "cells").exists()
