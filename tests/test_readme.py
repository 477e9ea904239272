"""No command in the README that is not run here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import main as rasterwise
from pipeline.compare.measurement import cell, comparison
from tests.conftest import Folders

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TINY_COMPARISON = [
    *("--models", "gated-pixelcnn", "--resolutions", "4", "--budget", "2steps"),
    *("--samples", "16", "--sample-batch", "16", "--test-images", "16", "--naive-sites", "1"),
]
FEWER_STEPS = ["--steps=4", "--batch-size=8", "--evaluate-every=4"]
FEWER_IMAGES = ["--samples=8", "--distance-images=8"]

# What other tests run: the installation (by .ci/run), the tests themselves, and the quickstart (test_quickstart).
ELSEWHERE = {'pip install -e ".[dev]" && pytest', "pip install -e . && rasterwise quickstart"}
# Run in two processes by test_cli, test_encode and test_sample.
WITH_LAUNCHERS = (
    *(
        f"torchrun --nproc_per_node 2 -m {words} "
        for words in ("rasterwise train vqvae", "rasterwise encode", "-- rasterwise sample")
    ),
    "accelerate launch --config_file fsdp.yaml -m rasterwise train prior ",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_two_commands_come_first() -> None:
    """Install and quickstart; install and test."""
    assert set(commands()) >= ELSEWHERE


@pytest.mark.slow
def test_commands_and_python(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and every Python block runs, in order, on a folder of images; trainings are cut short."""
    for path in folders.classes("my-images", 20).rglob("*.png"):
        path.with_suffix(".txt").write_text(f"a {path.parent.name}")
    monkeypatch.chdir(folders.root)
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 20)
    # A comparison's cell in this process, whose memory is then not limited: a fresh one takes seconds to start.
    monkeypatch.setattr(comparison, "in_fresh_process", lambda threads, work, *rest: work(*rest))
    monkeypatch.setattr(cell, "limit_memory", lambda gib, device: None)
    ran = 0
    for command in commands():
        if command in ELSEWHERE or command.startswith(WITH_LAUNCHERS):
            continue
        words = shlex.split(command)
        assert words[0] == "rasterwise", command
        if words[1] == "train":
            words += FEWER_STEPS
        if words[1] == "evaluate":
            words += FEWER_IMAGES
        if words[1] == "compare":
            words += TINY_COMPARISON
        assert rasterwise(words[1:]) == 0, command
        ran += 1
    assert ran >= 6
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_accelerate_knows_the_configuration(tmp_path: Path) -> None:
    """The YAML of the README opens, and every FSDP key of it is a flag of Accelerate's launcher."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    (block,) = blocks("yaml")
    (tmp_path / "fsdp.yaml").write_text(block)
    config = load_config_from_file(str(tmp_path / "fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    flags = launch_command_parser()._option_string_actions
    assert {f"--{key}" for key in config.fsdp_config} <= flags.keys()


def test_images_and_links_are_there() -> None:
    """Files that the README shows or points to exist."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
