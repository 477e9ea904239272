"""The command ``rasterwise``: the whole chain, its help, and every kind of bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import COMMANDS
from pipeline.cli import main as rasterwise
from rasterwise.training.checkpoints import Checkpoints
from tests.conftest import TINY_PRIOR, TINY_VQVAE, Chain, Folders
from tests.forked import fork_two, module


def failed(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Run a command that must end with status 2 and one line; returns the line."""
    capsys.readouterr()
    assert rasterwise([str(word) for word in command]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("rasterwise: ")]
    assert captured.out == ""
    assert len(lines) == 1
    return lines[0]


def succeeded(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, object]:
    """Run a command that must work; returns its JSON report."""
    capsys.readouterr()
    assert rasterwise([*(str(word) for word in command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------- what works


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare command and --help; heavy libraries are not loaded for it."""
    assert rasterwise([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    code = "import sys; from pipeline.cli import main; main(['--help']); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With its own name, what it does, and a line for every flag."""
    with pytest.raises(SystemExit) as caught:
        rasterwise([*name.split(), "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: rasterwise {name}" in shown
    assert "--json" in shown


@pytest.mark.parametrize("group", ["train", "compare"])
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=" ".join)
def test_groups_list_their_commands(group: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Theirs alone."""
    assert rasterwise([group, *words]) == 0
    shown = capsys.readouterr().out
    assert f"usage: rasterwise {group} COMMAND" in shown
    listed = {name for name in COMMANDS if f"\n  {name} " in shown}
    assert listed == {name for name in COMMANDS if name.startswith(f"{group} ")}
    assert len(listed) >= 3


def test_sample(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One image of them all, the same for the same seed; or a folder with a file each."""
    images = []
    for number, seed in enumerate((3, 3, 4)):
        output = tmp_path / f"{number}.png"
        report = succeeded(
            capsys, "sample", "--pipeline", chain.prior, "--n", 20, "--seed", seed, "--output", output
        )
        assert report["images"] == 20
        images.append(np.asarray(Image.open(output)))
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    folder = tmp_path / "files"
    succeeded(
        capsys, "sample", "--pipeline", chain.prior, "--n", 3, "--label", "7", "1", "--output", folder,
        "--temperature", 0.9, "--top-k", 8, "--top-p", 0.9, "--guidance", 1.5,
    )  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert Image.open(folder / "00000.png").size == (8, 8)


def test_reconstruct_and_complete(
    chain: Chain, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of any size and colour go in."""
    files = sorted(folders.images("mine", 3).iterdir())
    for source in (chain.vqvae, chain.prior):
        output = tmp_path / "reconstructions.png"
        report = succeeded(capsys, "reconstruct", "--source", source, "--images", *files, "--output", output)
        assert (report["images"], report["size"]) == (3, 16)
        assert Image.open(output).size[0] > 100
    for keep in ("top", "bottom", "left", "right"):
        output = tmp_path / f"{keep}.png"
        succeeded(
            capsys, "complete", "--pipeline", chain.prior, "--images", *files[:2], "--keep", keep, "--n", 2,
            "--label", "5", "--output", output,
        )  # fmt: skip
        assert Image.open(output).size[0] > 100


def test_evaluate(chain: Chain, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A VQ-VAE by its reconstructions; a pipeline by its likelihood and its samples."""
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 20)
    report = succeeded(capsys, "evaluate", "--source", chain.vqvae, "--distance-images", 16)
    assert {"psnr_db", "codebook_usage", "position_entropy", "distances"} <= report.keys()
    report = succeeded(capsys, "evaluate", "--source", chain.prior, "--samples", 20, "--distance-images", 0)
    assert report["test_images"] == 360
    assert report["samples"] == 20
    assert 0 <= report["conditional_accuracy"] <= 1  # type: ignore[operator]
    assert report["nats_per_code"] * 16 == pytest.approx(report["nll_nats"])  # type: ignore[operator]


def test_dry_run(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every training says what it is and what it costs, and writes nothing; so does one that would go on."""
    for command in (
        ["train", "vqvae", *TINY_VQVAE],
        ["train", "prior", "--codes", chain.codes, *TINY_PRIOR],
        ["train", "pixel", "--model=gated-pixelcnn", "--width=8", "--depth=2", "--dynamic", "--levels=2"],
        [
            "train",
            "pixel",
            "--model=image-gpt",
            "--width=16",
            "--heads=2",
            "--depth=1",
            "--codes",
            chain.codes,
        ],
    ):
        report = succeeded(capsys, *command, "--output", tmp_path / "run", "--dry-run", "--batch-size=16")
        configuration: Any = report["configuration"]
        assert configuration["training"]["batch_size"] == 16
        if "vqvae" in command:
            assert configuration["model"]["autoencoder"]["width"] == 16
        else:
            assert configuration["model"]["depth"] in (1, 2)
        assert report["parameters"] > 100  # type: ignore[operator]
        assert report["flops_a_step"] > 1000  # type: ignore[operator]
        assert report["memory_mib"]["activations"] > 0  # type: ignore[index]
        assert not any(tmp_path.iterdir())
    before = {path: path.stat().st_mtime_ns for path in chain.vqvae.rglob("*")}
    resumed = succeeded(capsys, "train", "vqvae", "--resume", chain.vqvae, "--dry-run")
    assert resumed["configuration"]["model"]["quantizer"]["codebook_size"] == 16  # type: ignore[index]
    assert {path: path.stat().st_mtime_ns for path in chain.vqvae.rglob("*")} == before
    trained = json.loads((chain.vqvae / "report.json").read_text())
    assert resumed["parameters"] == trained["parameters"]


def test_evaluation_counts_broken_images(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Left out where that was asked for; without any, the report does not speak of them."""
    dataset, run = folders.images("plain", 20), tmp_path / "vqvae"
    succeeded(capsys, "train", "vqvae", "--dataset", dataset, "--output", run, *TINY_VQVAE, "--batch-size=8")
    command = ["evaluate", "--source", run, "--distance-images=0"]
    assert "broken_images" not in succeeded(capsys, *command)
    (dataset / "003.png").write_bytes(b"no image")
    assert "003.png" in failed(capsys, *command, "--dataset", dataset)
    assert succeeded(capsys, *command, "--dataset", dataset, "--skip-broken")["broken_images"] == 1


def test_own_images_from_end_to_end(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with class folders, RGB, not square: every stage without a change of code, ELBO included."""
    dataset = folders.classes("animals", 20)
    vqvae, codes, prior = (tmp_path / name for name in ("vqvae", "codes", "prior"))
    succeeded(
        capsys, "train", "vqvae", "--dataset", dataset, "--output", vqvae, *TINY_VQVAE, "--factor=4",
        "--likelihood=logistic", "--steps=4", "--batch-size=8",
    )  # fmt: skip
    encoded = succeeded(
        capsys, "encode", "--tokenizer", vqvae, "--output", codes, "--copies", 2, "--rotate", 5, "--flip"
    )
    assert encoded["train_grids"] > 40, "the images and two copies of each"
    succeeded(
        capsys,
        "train",
        "prior",
        "--codes",
        codes,
        "--output",
        prior,
        *TINY_PRIOR,
        "--steps=4",
        "--batch-size=8",
    )
    assert list((prior / "images").iterdir())
    report = succeeded(capsys, "evaluate", "--source", prior, "--samples", 0, "--distance-images", 0)
    reconstruction = report["reconstruction"]
    assert reconstruction["elbo_bits_per_dim"] > reconstruction["reconstruction_bits_per_dim"]  # type: ignore[index]
    succeeded(
        capsys, "sample", "--pipeline", prior, "--label", "dog", "--n", 2, "--output", tmp_path / "dogs"
    )
    assert Image.open(tmp_path / "dogs" / "00000.png").size == (20, 16)


def test_streaming_from_end_to_end(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--streaming trains and encodes without knowing how many images there are."""
    dataset = folders.images("plain", 30)
    settings = [*TINY_VQVAE, "--streaming", "--steps=3", "--batch-size=8", "--evaluate-every=3"]
    succeeded(capsys, "train", "vqvae", "--dataset", dataset, "--output", tmp_path / "vqvae", *settings)
    report = succeeded(
        capsys, "encode", "--dataset", dataset, "--streaming", "--tokenizer", tmp_path / "vqvae",
        "--output", tmp_path / "codes",
    )  # fmt: skip
    assert (report["train_grids"], report["test_grids"]) == (27, 3)


# ---------------------------------------------------------------------------------- what a user can mend


def test_flags_that_say_nothing_are_refused(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they are of is not read: other images than the tokenizer's, or images where there are codes."""
    for command in (["evaluate", "--source", chain.vqvae], ["encode", "--tokenizer", chain.vqvae]):
        for flag in ("--size=4", "--image-column=photo", "--label-column=x"):
            line = failed(
                capsys, *command, flag, *(["--output", tmp_path / "x"] if "encode" in command else [])
            )
            assert f"{flag.partition('=')[0]} " in line
            assert "takes --dataset" in line
        other = [
            *command,
            "--test-split=night",
            *(["--output", tmp_path / "x"] if "encode" in command else []),
        ]
        assert "no split 'night'" in failed(capsys, *other)
    pixel = ["train", "pixel", "--codes", chain.codes, "--output", tmp_path / "x"]
    for flag in (
        "--dataset=digits-8",
        "--levels=4",
        "--palette=8",
        "--dynamic",
        "--test-split=night",
        "--size=4",
    ):
        line = failed(capsys, *pixel, flag)
        assert f"{flag.partition('=')[0]} is about images" in line
    assert not list(tmp_path.iterdir())


def test_an_output_in_the_dataset_is_refused(
    chain: Chain, folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sample images would be data; nothing is written there."""
    mine = folders.images("mine", 12, size=(8, 8))
    before = sorted(mine.rglob("*"))
    for command in (
        ["train", "vqvae", *TINY_VQVAE],
        ["train", "pixel", "--model=gated-pixelcnn", "--width=8", "--depth=1"],
        ["encode", "--tokenizer", chain.vqvae, "--colour=grey"],
    ):
        line = failed(capsys, *command, "--dataset", mine, "--output", mine / "run")
        assert "lies in the folder of the dataset" in line
    assert sorted(mine.rglob("*")) == before


def test_a_run_goes_on_with_its_own_data_alone(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working directory and after the folder was moved; files that changed meanwhile are named."""
    mine, run, elsewhere = folders.images("mine", 20, size=(8, 8)), tmp_path / "run", tmp_path / "elsewhere"
    settings = [*TINY_VQVAE, "--batch-size=8", "--steps=4", "--evaluate-every=2"]
    monkeypatch.chdir(tmp_path)
    report = succeeded(capsys, "train", "vqvae", "--dataset", "mine", "--output", run, *settings)
    assert (report["images_found"], report["images_read"]) == (20, 20)
    assert json.loads((run / "run.json").read_text())["config"]["data"]["dataset"] == str(mine)

    def stopped_half_way() -> None:
        (run / "report.json").unlink()
        shutil.rmtree(run / "checkpoints" / "step-00000004")

    stopped_half_way()
    shutil.copytree(mine, elsewhere / "mine")
    Image.new("RGB", (8, 8)).save(elsewhere / "mine" / "003.png")
    monkeypatch.chdir(elsewhere)
    for path in mine.iterdir():
        path.touch()
    whole = (run / "model" / "model.safetensors").read_bytes()
    succeeded(capsys, "train", "vqvae", "--resume", run)
    assert (run / "model" / "model.safetensors").read_bytes() == whole
    resume = ["train", "vqvae", "--resume", run]
    stopped_half_way()
    assert "have changed: changed 003.png;" in failed(capsys, *resume, "--dataset", "mine")
    shutil.copy(mine / "000.png", mine / "extra.png")
    (mine / "001.png").unlink()
    assert "have changed: added extra.png; gone 001.png;" in failed(capsys, *resume)
    shutil.move(mine / "extra.png", mine / "001.png")
    assert "have changed: changed 001.png;" in failed(capsys, *resume)
    shutil.copy(elsewhere / "mine" / "001.png", mine / "001.png")
    mine.rename(tmp_path / "moved")
    assert "does not exist" in failed(capsys, *resume)
    succeeded(capsys, *resume, "--dataset", tmp_path / "moved")
    assert (run / "model" / "model.safetensors").read_bytes() == whole


def test_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the commands, and after ``train`` or ``compare`` those that may follow."""
    assert "no command 'paint'; expected quickstart, quickstart documents, train vqvae" in failed(
        capsys, "paint"
    )
    line = failed(capsys, "train", "pixels-please")
    assert line.endswith("no command 'train pixels-please'; expected train vqvae, train prior, train pixel")


def test_bad_datasets(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No such folder or split; no images in it; one that does not decode: nothing is written."""
    output = tmp_path / "run"
    train = ["train", "vqvae", "--output", output, *TINY_VQVAE]
    assert "does not exist" in failed(capsys, *train, "--dataset", tmp_path / "absent")
    (tmp_path / "nothing").mkdir()
    assert "is empty" in failed(capsys, *train, "--dataset", tmp_path / "nothing")
    mine = folders.images("mine", 12)
    assert "no split 'night'" in failed(capsys, *train, "--dataset", mine, "--train-split", "night")
    assert "columns are" in failed(capsys, *train, "--dataset", mine, "--image-column", "photo")
    (mine / "005.png").write_bytes(b"no image")
    assert "005.png) does not decode" in failed(capsys, *train, "--dataset", mine)
    assert not output.exists()


def test_a_size_that_the_factor_does_not_divide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digits are 8×8; factor 16 needs more. Nothing is written."""
    line = failed(capsys, "train", "vqvae", "--output", tmp_path / "run", *TINY_VQVAE, "--factor=16")
    assert "8×8, which factor 16 does not divide" in line
    assert "--size 16" in line
    assert not (tmp_path / "run").exists()


def test_a_label_out_of_range(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By index and by name; no image is written."""
    for label in ("10", "cat"):
        line = failed(
            capsys, "sample", "--pipeline", chain.prior, "--label", label, "--output", tmp_path / "x.png"
        )
        assert f"label '{label}' is out of range, expected 0 to 9" in line
    assert not list(tmp_path.iterdir())


def test_broken_checkpoints(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is absent, lacks a file, is cut short, or is of another kind."""
    assert "is no folder" in failed(capsys, "sample", "--pipeline", tmp_path / "absent")
    assert "holds no tokenizer/" in failed(capsys, "sample", "--pipeline", chain.vqvae)
    assert "expected a tokenizer" in failed(capsys, "encode", "--tokenizer", chain.prior / "model")
    broken = tmp_path / "broken"
    shutil.copytree(chain.prior, broken)
    weights = broken / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors is damaged" in failed(capsys, "sample", "--pipeline", broken)
    weights.unlink()
    assert "model.safetensors is missing" in failed(capsys, "sample", "--pipeline", broken)
    shutil.copytree(chain.vqvae / "model", broken / "model", dirs_exist_ok=True)
    assert "holds a 'vqvae', expected a model" in failed(capsys, "sample", "--pipeline", broken)


def test_a_prior_with_another_tokenizer(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline whose tokenizer was exchanged."""
    assert rasterwise(["train", "vqvae", f"--output={tmp_path / 'other'}", *TINY_VQVAE, "--seed=1"]) == 0
    mixed = tmp_path / "mixed"
    shutil.copytree(chain.prior, mixed)
    shutil.rmtree(mixed / "tokenizer")
    shutil.copytree(tmp_path / "other" / "model", mixed / "tokenizer")
    assert "trained on the symbols of tokenizer" in failed(capsys, "sample", "--pipeline", mixed)
    line = failed(capsys, "encode", "--tokenizer", tmp_path / "other", "--output", chain.codes)
    assert "codes of another tokenizer" in line


def test_an_output_that_is_taken(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another run, or somebody's files: left as they are."""
    line = failed(capsys, "train", "vqvae", "--output", chain.vqvae, *TINY_VQVAE, "--width=32")
    assert "holds a run with model.autoencoder.width = 16, not 32" in line
    line = failed(capsys, "train", "prior", "--codes", chain.codes, "--output", chain.vqvae, *TINY_PRIOR)
    assert "holds a run of 'train vqvae'" in line
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds no run" in failed(capsys, "train", "vqvae", "--output", tmp_path, *TINY_VQVAE)
    assert "is not empty" in failed(capsys, "sample", "--pipeline", chain.prior, "--output", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_full_disk(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, status 2; the checkpoint before is whole: with room again the run goes on to the same end."""
    settings = [*TINY_VQVAE, "--steps=6", "--evaluate-every=2"]
    assert rasterwise(["train", "vqvae", "--output", str(tmp_path / "whole"), *settings]) == 0
    run, save = small_disk / "run", Checkpoints.save

    def filled(checkpoints: Checkpoints, step: int, best: Any) -> None:
        if step == 4:  # somebody else takes all but a little of the room that is left
            free = shutil.disk_usage(small_disk).free
            (small_disk / "filler").write_bytes(b"x" * (free - 30_000))
        save(checkpoints, step, best)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", filled)
        line = failed(capsys, "train", "vqvae", "--output", run, *settings)
    assert "the disk is full" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    (small_disk / "filler").unlink()
    succeeded(capsys, "train", "vqvae", "--resume", run)
    for name in ("checkpoints/step-00000006/state.safetensors", "model/model.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_images_that_cannot_be_read(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Absent files and files that are no images, named."""
    command = ["reconstruct", "--source", chain.vqvae, "--output", tmp_path / "x.png", "--images"]
    assert "absent.png does not exist" in failed(capsys, *command, tmp_path / "absent.png")
    (tmp_path / "note.txt").write_text("no image")
    assert "note.txt does not decode" in failed(capsys, *command, tmp_path / "note.txt")


@pytest.mark.slow
def test_training_in_two_processes(chain: Chain, tmp_path: Path) -> None:
    """Each stage's module runs in two processes, which end with one model and count every image once."""
    short = ["--device=cpu", "--steps=4", "--evaluate-every=4", "--json"]
    for name, settings in (
        ("stage1_vqvae.train", TINY_VQVAE),
        ("stage2_prior.train", [*TINY_PRIOR, f"--codes={chain.codes}"]),
        ("pixel_baselines.train", ["--model=gated-pixelcnn", "--width=8", "--depth=2", "--batch-size=8"]),
    ):
        output = tmp_path / name
        first, second = fork_two(module(name, *settings, *short, f"--output={output}"))
        assert (first.status, second.status) == (0, 0), first.err[-2000:] + second.err[-2000:]
        assert json.loads(first.out)["test"]["items"] == 360
        assert not second.out
        assert (output / "model" / "model.safetensors").exists()
