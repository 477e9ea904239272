"""Trainings killed at random moments and resumed until they are done: ``python -m tests.killing --help``.

A process that has imported everything forks one process a training, so that an attempt costs no imports. It
computes nothing itself: threads that it had started would not live on in the forks.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pipeline.commands.train  # noqa: F401
import stage1_vqvae.train  # noqa: F401
from pipeline.cli import main as rasterwise
from pipeline.commands import encode
from rasterwise.command_line import training
from rasterwise.data.columns import Columns
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split

SHORT = [
    "--device=cpu", "--steps=10", "--batch-size=48", "--warmup-steps=2", "--save-every=1", "--evaluate-every=3",
    "--sample-every=100", "--log-every=2",
]  # fmt: skip
VQVAE = [
    "train",
    "vqvae",
    *SHORT,
    "--factor=2",
    "--codebook-size=64",
    "--code-width=4",
    "--width=16",
    "--blocks=1",
]
PRIOR = ["train", "prior", *SHORT, "--depth=1", "--width=32", "--heads=2", "--dropout=0.2"]
PIXEL = [
    "train", "pixel", *SHORT, "--model=gated-pixelcnn", "--width=8", "--depth=2", "--levels=2", "--dynamic",
    "--conditional",
]  # fmt: skip
STAGES = ("vqvae", "prior", "pixel")
LONGEST_S = 120.0


@dataclass
class Outcome:
    """What came of the trainings of a stage.

    Attributes:
        runs: Trainings that came to their end.
        identical: Those of them that left the same files as the one that was never killed.
        kills: How often one was killed.
        during_save: Kills that left something half-written.
        failed: What went wrong: a process that could not start, a file that differs.
    """

    runs: int = 0
    identical: int = 0
    kills: int = 0
    during_save: int = 0
    failed: list[str] = field(default_factory=list)


def killed_trainings(stage: str, root: Path, *, runs: int, kills: int, seed: int = 0) -> Outcome:
    """Train twice undisturbed, then ``runs`` times with up to ``kills`` SIGKILLs, and compare what is left."""
    command = command_of(stage, root)
    whole, rng, outcome = root / f"{stage}-whole", random.Random(seed), Outcome()
    twice = [_undisturbed([*command, f"--output={run}"], root) for run in (whole, root / f"{stage}-again")]
    outcome.failed += differences(whole, root / f"{stage}-again")
    for number in range(runs):
        run = root / f"{stage}-{number}"
        for kill in range(kills + 1):
            again = ["train", stage, f"--resume={run}"]
            words = (
                again if (run / "run.json").exists() and rng.random() < 0.5 else [*command, f"--output={run}"]
            )
            after = rng.uniform(0, min(twice)) if kill < kills else None
            status = attempt(words, root / "log.txt", kill_after=after)
            if status not in (0, -signal.SIGKILL):
                outcome.failed.append(f"{run.name}: {(root / 'log.txt').read_text()[-2000:]}")
            outcome.kills += status == -signal.SIGKILL
            outcome.during_save += any(run.rglob(".*.pending-*"))
        outcome.runs += 1
        different = list(differences(whole, run))
        outcome.identical += not different
        outcome.failed += different
        print(
            f"{stage} {number + 1}/{runs}: {outcome.kills} kills, {outcome.identical} identical", flush=True
        )
    return outcome


def command_of(stage: str, root: Path) -> list[str]:
    """A stage's training command without its output; codes are made first where it takes them."""
    if stage == "vqvae":
        return VQVAE
    if stage == "pixel":
        return PIXEL
    tokenizer, codes = root / "tokenizer", root / "codes"
    for words in (
        [*VQVAE, f"--output={tokenizer}"],
        ["encode", f"--tokenizer={tokenizer}", f"--output={codes}"],
    ):
        _undisturbed(words, root)
    return [*PRIOR, f"--codes={codes}"]


def _undisturbed(words: list[str], root: Path) -> float:
    began = time.monotonic()
    if attempt(words, root / "log.txt") != 0:
        raise RuntimeError((root / "log.txt").read_text())
    return time.monotonic() - began


def attempt(words: list[str], log: Path, kill_after: float | None = None) -> int:
    """Run a command in a forked process; returns its exit status, or minus the signal that killed it."""
    process = os.fork()
    if process == 0:
        _in_fork(lambda: rasterwise(words), log)
    deadline = time.monotonic() + (LONGEST_S if kill_after is None else kill_after)
    while time.monotonic() < deadline:
        if (found := os.waitpid(process, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(found[1])
        time.sleep(max(0.0, min(0.002, deadline - time.monotonic())))
    os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if kill_after is None:
        raise RuntimeError(f"{words} took more than {LONGEST_S} s: {log.read_text()[-2000:]}")
    return status


def _in_fork(work: Callable[[], int], log: Path) -> None:
    """Do the work with its output in a file, and end the process with its status, whatever happens."""
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def differences(whole: Path, run: Path) -> Iterator[str]:
    """Names of what a run's folder holds otherwise than that of the undisturbed run."""
    last = sorted(path.name for path in (whole / "checkpoints").iterdir())
    if (found := sorted(path.name for path in (run / "checkpoints").iterdir())) != last:
        yield f"{run.name}: checkpoints {found}, not {last}"
        return
    files = [f"checkpoints/{step}/state.safetensors" for step in last]
    files += ["model/model.safetensors", "model-best/model.safetensors", "metrics.jsonl"]
    for name in files:
        if (run / name).read_bytes() != (whole / name).read_bytes():
            yield f"{run.name}: {name} differs"
    if (
        json.loads((run / "report.json").read_text())["test"]
        != json.loads((whole / "report.json").read_text())["test"]
    ):
        yield f"{run.name}: the test metrics differ"
    if leftovers := [str(path) for path in run.rglob(".*.pending-*")]:
        yield f"{run.name}: {leftovers} are left"


def main() -> None:
    """The command: prints the outcome of each stage as JSON in the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--kills", type=int, default=3, help="SIGKILLs in each run, if it lasts so long")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare()
    outcomes = {
        stage: vars(
            killed_trainings(stage, options.folder, runs=options.runs, kills=options.kills, seed=options.seed)
        )
        for stage in options.stages
    }
    print(json.dumps(outcomes))


def prepare() -> None:
    """Import what the commands would import one by one, and hand them a few images held in memory."""
    for name in ("datasets", "torch.utils.tensorboard", "torchvision", "tyro", "pipeline.commands.encode"):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    values = torch.randint(256, (200, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(200) % 2
    data = ImageData(
        tensor_split(values[:160], labels[:160]),
        tensor_split(values[160:], labels[160:]),
        shape=(1, 8, 8),
        classes=("a", "b"),
        columns=Columns(image="image", label="label", caption=None),
    )
    for module in (training, encode):
        assert module.open_images is open_images, "else the commands would read the digits"
        module.open_images = lambda *_: data


if __name__ == "__main__":
    main()
