"""Stage 1's evaluation and its command."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Batch
from rasterwise.measure.metrics import psnr_db
from stage1_vqvae import VQVAE, ConvolutionalConfig, FSQConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.evaluation import evaluate_tokenizer
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.train import main
from tests.conftest import TINY_VQVAE

TINY = [flag for flag in TINY_VQVAE if not flag.startswith("--code")]


def test_evaluation_counts_every_image_once() -> None:
    """Whatever the batch size; the error is pooled and the histogram is of all codes."""
    images = torch.randint(256, (21, 1, 8, 8), dtype=torch.uint8)
    model = VQVAE(
        VQVAEConfig(
            factor=2,
            quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4),
            autoencoder=ConvolutionalConfig(width=16, blocks=1),
            likelihood="logistic",
        )
    )
    model(images)
    model.eval()
    whole = evaluate_tokenizer(model, tensor_split(images), (1, 8, 8), Accelerator(cpu=True), batch_size=21)
    parts = evaluate_tokenizer(model, tensor_split(images), (1, 8, 8), Accelerator(cpu=True), batch_size=4)
    assert parts == pytest.approx(whole, rel=1e-5)
    with torch.no_grad():
        reconstruction = model(images)
    mse = (reconstruction.images.double() - images.double()).square().mean().item()
    counts = torch.bincount(reconstruction.codes.flatten(), minlength=8).double()
    entropy = torch.special.entr(counts / counts.sum()).sum().item()
    nats = reconstruction.nats(images).mean().item()
    assert whole["items"] == 21
    assert whole["psnr_db"] == pytest.approx(psnr_db(mse))
    assert whole["codebook_perplexity"] == pytest.approx(math.exp(entropy))
    assert whole["codebook_usage"] == (counts > 0).double().mean()
    assert whole["elbo_bits_per_dim"] == pytest.approx((nats + 16 * math.log(8)) / math.log(2) / 64, rel=1e-5)


def test_a_perfect_reconstruction_is_no_reason_to_stop() -> None:
    """Black images, and a decoder that gives less than black: no error at all, and a PSNR that is finite."""
    model = VQVAE(VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1)))
    objective = LearnedTokenizerObjective(model)
    model._decode = lambda latents: latents.new_full((4, 1, 8, 8), -2.0)  # type: ignore[method-assign]
    losses = objective(Batch(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)))
    assert losses.shown["psnr_db"] == pytest.approx(140, abs=1e-3)


def test_command_trains_reports_and_does_not_train_again(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is JSON; the same command again shows it at once; other settings are refused."""
    command = [*TINY_VQVAE, f"--output={tmp_path / 'run'}", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["steps"] == 12
    assert {"psnr_db", "mse", "codebook_usage", "codebook_perplexity"} <= first["test"].keys()
    model = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["test"] == first["test"]
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == model
    assert list((tmp_path / "run" / "images").iterdir())
    assert main([*command, "--learning-rate=1"]) == 2
    assert "training.learning_rate = 0.001, not 1" in capsys.readouterr().err


def test_resume_takes_the_configuration_from_the_run(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume alone goes on to the same end; a flag that contradicts the run is named, one that agrees is fine."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main([*TINY_VQVAE, "--flip", f"--output={whole}"]) == 0
    shutil.copytree(whole, run)
    (run / "report.json").unlink()
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    capsys.readouterr()
    for flags, said in (
        (["--learning-rate=1"], "--learning-rate is 1.0, but the run in"),
        (["--no-flip"], "--flip is False"),
        (["--steps=24"], "leave --steps out"),
        ([f"--output={whole}"], "leave --output out"),
        (["--force"], "leave --force out"),
    ):
        assert main([f"--resume={run}", *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert main(["--resume", str(tmp_path / "absent")]) == 2
    assert "holds no run to go on with" in capsys.readouterr().err
    assert main(["--resume", str(run), "--width=16", "--flip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(run)
    for name in ("model/model.safetensors", "checkpoints/step-00000012/state.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def status(arguments: list[str]) -> int:
    """The command's exit status, also where its flags could not be read."""
    try:
        return main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def test_quantizer_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quantizer chooses whose flags there are; levels that make other codes, and other names, are refused."""
    command = ["--quantizer=fsq", *TINY, f"--output={tmp_path / 'run'}", "--json"]
    assert status([*command, "--levels", "5", "4", "--codebook-size=16"]) == 2
    assert "codebook_size is 16, but levels 5 4 make 20" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--levels", "5", "4", "--codebook-size=20"]) == 0
    capsys.readouterr()
    assert VQVAE.from_pretrained(tmp_path / "run").config.quantizer == FSQConfig(
        levels=(5, 4), codebook_size=20
    )
    assert main([f"--resume={tmp_path / 'run'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 12
    assert main([f"--resume={tmp_path / 'run'}", "--quantizer=ema"]) == 2
    assert "--quantizer is 'ema', but the run in" in capsys.readouterr().err
    assert main(["--quantizer=cubes"]) == 2
    assert "--quantizer is 'cubes', expected one of ema, l2, fsq" in capsys.readouterr().err
    assert status([*command, "--code-width=4"]) == 2
