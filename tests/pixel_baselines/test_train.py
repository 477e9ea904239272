"""The pixel-level models' command: every model, on pixels, palettes and codes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from pipeline import ImagePipeline
from pipeline.cli import main as rasterwise
from pixel_baselines import PaletteTokenizer
from pixel_baselines.models import MODELS
from pixel_baselines.train import main as pixel_main
from rasterwise.command_line.run import split_word
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.splits import Batch
from rasterwise.symbols.grid import Grid
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from tests.autoregressive_suite import random_symbols
from tests.conftest import Chain, Folders

SMALL = {"width": 16, "depth": 1, "blocks": 1, "heads": 2, "components": 2}
"""What makes a model small, where it has such a field."""
SHORT = ["--steps=3", "--batch-size=8", "--evaluate-every=3"]


def trained(capsys: pytest.CaptureFixture[str], model: str, output: Path, *flags: str) -> dict[str, object]:
    capsys.readouterr()
    fields = {field.name for field in dataclasses.fields(MODELS[model].config_class)}
    command = [
        "train",
        "pixel",
        "--model",
        model,
        f"--output={output}",
        *(f"--{name}={value}" for name, value in SMALL.items() if name in fields),
        *SHORT,
        *flags,
        "--json",
    ]
    assert rasterwise(command) == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_names_every_model_by_its_kind() -> None:
    """--model takes what config.json says."""
    assert all(name == model.kind for name, model in MODELS.items())
    assert split_word(["--width=8", "--model", "x", "--json"], "--model") == ("x", ["--width=8", "--json"])
    assert split_word(["--model=y"], "--model") == ("y", [])
    assert split_word(["--width=8"], "--model") == (None, ["--width=8"])


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_evaluates_and_samples(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dynamically binarized digits: the run is a pipeline, and its likelihood is that of the report."""
    report = trained(capsys, model, tmp_path / "run", "--levels=2", "--dynamic")
    test = report["test"]
    assert test["items"] == 360  # type: ignore[index]
    assert test["bits_per_dim"] == pytest.approx(test["bits_per_symbol"])  # type: ignore[index]
    assert rasterwise(["evaluate", "--source", str(tmp_path / "run"), "--batch-size=17", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["nll_nats"] == pytest.approx(test["nll_nats"], rel=1e-5)  # type: ignore[index]
    assert again["nll_nats_standard_error"] > 0
    assert list((tmp_path / "run" / "images").iterdir())
    pipeline = ImagePipeline.from_pretrained(tmp_path / "run")
    assert set(pipeline.sample(2, seed=0, output="tensor").unique().tolist()) <= {0, 255}


@pytest.mark.parametrize("model", ["gated-pixelcnn", "row-lstm", "image-gpt"])
def test_any_model_is_a_prior_over_codes(
    model: str, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command trains it, with the classes of the codes; its folder is a pipeline."""
    trained(capsys, model, tmp_path / "run", f"--codes={chain.codes}")
    pipeline = ImagePipeline.from_pretrained(tmp_path / "run")
    assert pipeline.model.kind == model
    assert pipeline.sample(2, labels="7", seed=0, output="tensor").shape == (2, 1, 8, 8)
    assert list((tmp_path / "run" / "images").iterdir())


def test_palette_of_colours(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageGPT on RGB images through a palette fitted to them, conditioned on their classes."""
    dataset = folders.classes("animals", 20)
    flags = [f"--dataset={dataset}", "--size=8", "--palette=16", "--conditional"]
    report = trained(capsys, "image-gpt", tmp_path / "run", *flags)
    assert "bits_per_dim" not in report["test"]  # type: ignore[operator]  # palette symbols are no subpixels
    pipeline = ImagePipeline.from_pretrained(tmp_path / "run")
    images = pipeline.sample(2, labels="dog", seed=0)
    assert all(image.mode == "RGB" and image.size == (8, 8) for image in images)
    rasterwise(["sample", "--pipeline", str(tmp_path / "run"), "--n=2", f"--output={tmp_path / 'x.png'}"])
    assert Image.open(tmp_path / "x.png").mode == "RGB"


def test_dynamic_evaluation_does_not_depend_on_the_batch_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image is binarized by its own noise; another seed gives other figures."""
    trained(capsys, "gated-pixelcnn", tmp_path / "run", "--levels=2", "--dynamic")
    pipeline, data = ImagePipeline.from_pretrained(tmp_path / "run"), open_images(DataConfig())
    pipeline.model.double()

    def nats(batch_size: int, seed: int = 0) -> float:
        metrics = evaluate_likelihood(
            pipeline.model,
            data.test,
            Accelerator(cpu=True),
            tokenizer=pipeline.tokenizer,
            batch_size=batch_size,
            seed=seed,
        )
        return metrics["nll_nats"]

    assert nats(1) == pytest.approx(nats(64), abs=1e-9)
    assert nats(64) != pytest.approx(nats(64, seed=1), abs=1e-6)


def test_a_model_beats_independent_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A little training is enough to know more than each pixel's frequency."""
    flags = [
        "--levels=2",
        "--width=16",
        "--evaluate-every=200",
        "--steps=200",
        "--warmup-steps=10",
        "--batch-size=64",
    ]
    report = trained(
        capsys, "gated-pixelcnn", tmp_path / "run", *flags, "--learning-rate=0.005", "--ema-decay=0"
    )
    images = next(open_images(DataConfig()).train.ordered(2000)).values
    share = (images >= 128).double().mean(0).clamp(1e-3, 1 - 1e-3)
    test = next(open_images(DataConfig()).test.ordered(2000)).values >= 128
    independent = -torch.where(test, share.log(), (1 - share).log()).flatten(1).sum(1).mean().item()
    assert report["test"]["nll_nats"] < independent  # type: ignore[index]


def test_resume_knows_the_model(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--model comes from the run, as do codes and palettes; another one or a recipe is refused by name."""
    runs = {
        "pixels": ("row-lstm", ["--levels=2", "--dynamic"]),
        "codes": ("gated-pixelcnn", [f"--codes={chain.codes}"]),
        "palette": ("image-gpt", ["--palette=4"]),
    }
    for name, (model, flags) in runs.items():
        run = tmp_path / name
        report = trained(capsys, model, run, *flags)
        (run / "report.json").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(PaletteTokenizer, "fit", None)  # another machine may find other colours
            for command in (["rasterwise"], ["rasterwise", "--model", model]):
                assert rasterwise(["train", "pixel", "--resume", str(run), *command[1:], "--json"]) == 0
                again = json.loads(capsys.readouterr().out)
                assert again["test"] == report["test"]
        assert (pixel_main([f"--resume={run}", "--json"])) == 0
        capsys.readouterr()
    for flags, said in (
        (["--model=pixelcnn"], "--model is 'pixelcnn', but the run in"),
        (["--recipe=mnist-256-cpu"], "leave --recipe out"),
        (["--levels=4"], "--levels is 4"),
        (["--no-dynamic"], "leave --dynamic out"),
    ):
        assert rasterwise(["train", "pixel", "--resume", str(tmp_path / "pixels"), *flags]) == 2
        assert said in capsys.readouterr().err
    assert rasterwise(["train", "pixel", "--resume", str(chain.vqvae)]) == 2
    assert "holds a run of 'train vqvae'" in capsys.readouterr().err
    assert rasterwise(["train", "prior", "--resume", str(tmp_path / "codes")]) == 2
    assert "holds a run of 'train pixel --model gated-pixelcnn'" in capsys.readouterr().err


def test_refusals(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown models, palettes with levels, classes that are not there, dynamic greys."""
    output = f"--output={tmp_path / 'run'}"
    plain = folders.images("plain", 20)
    for flags, said in (
        (["--model=gan"], "--model is 'gan', expected one of pixelcnn"),
        (["--palette=8", "--levels=4"], "--palette takes the place of --levels"),
        (["--levels=5"], "levels is 5"),
        (["--dynamic"], "dynamic binarization gives 2 levels, not 256"),
        ([f"--dataset={plain}", "--conditional"], "has no classes to condition on"),
        (["--model=image-gpt", "--palette=4000"], "ask for"),
    ):
        capsys.readouterr()
        assert rasterwise(["train", "pixel", output, *flags]) == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert error.count("\n") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", MODELS)
def test_the_objective_compiles_as_one_graph(model: str) -> None:
    """torch.compile finds nothing that cuts a training step in two, and the step says the same."""
    torch.manual_seed(0)
    config = MODELS[model].config_class(grid=Grid(1, 5, 4, 8), classes=("a", "b"), width=16)
    objective = LikelihoodObjective(MODELS[model](config))
    batch = Batch(random_symbols(config.grid, 3), torch.tensor([0, 1, 0]))
    objective(batch)  # PixelCNN++ starts from its first batch, which is no compiled step
    whole_graph = model != "pixelcnn-pp"  # it looks whether it has started
    compiled = torch.compile(objective, backend="eager", fullgraph=whole_graph)
    losses = []
    for step in (objective, compiled):
        torch.manual_seed(1)
        losses.append(step(batch).total)
    torch.testing.assert_close(*losses)


def test_a_resumed_run_counts_broken_images_as_one_that_was_not_stopped(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are found as they are read: by the part before the checkpoint, and not again by the one that goes on."""
    images, run, part = (
        folders.images("some", 30, size=(4, 4), mode="L"),
        folders.root / "run",
        folders.root / "part",
    )
    for number in (3, 11, 17, 23, 29):
        sorted(images.iterdir())[number].write_bytes(b"no image")
    flags = [
        f"--dataset={images}",
        "--streaming",
        "--skip-broken",
        "--workers=0",
        "--levels=2",
        "--save-every=1",
    ]
    whole = trained(capsys, "gated-pixelcnn", run, *flags)
    assert whole["broken_images"] > 2  # type: ignore[operator]
    shutil.copytree(run, part)
    (part / "report.json").unlink()
    shutil.rmtree(part / "checkpoints" / "step-00000003")
    assert rasterwise(["train", "pixel", f"--resume={part}", "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    counted = ("images_found", "images_read", "broken_images")
    assert [resumed[name] for name in counted] == [whole[name] for name in counted]
    assert json.loads((part / "report.json").read_text())["broken_images"] == whole["broken_images"]
