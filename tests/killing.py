"""Commands that are killed and run again until they are done: ``python -m tests.killing --help``.

They are killed at random moments, or before one of the operations that change files. A process that has imported
everything forks one process a command, so that an attempt costs no imports. It computes nothing itself: threads that
it had started would not live on in the forks.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pipeline.commands.train  # noqa: F401
import stage1_vqvae.train  # noqa: F401
from pipeline.commands import encode
from rasterwise.command_line import training
from rasterwise.data.columns import Columns
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.files import LEFTOVER
from tests.attempts import Attempt, attempt

SHORT = [
    "--device=cpu", "--batch-size=48", "--warmup-steps=2", "--save-every=1", "--evaluate-every=2",
    "--sample-every=2", "--log-every=2", "--keep-last=1",
]  # fmt: skip
VQVAE = ["--factor=2", "--codebook-size=64", "--code-width=4", "--width=16", "--blocks=1"]
PRIOR = ["--depth=1", "--width=32", "--heads=2", "--dropout=0.2"]
PIXEL = ["--model=gated-pixelcnn", "--width=8", "--depth=2", "--levels=2", "--dynamic", "--conditional"]
CASES = ("vqvae", "prior", "pixel", "encode", "force")
"""Three trainings, an encoding, and a training that takes the place of one that has ended."""
IMAGES = 200
LIMITS = {
    resource.RLIMIT_FSIZE: ("files", "a file would be larger than is allowed here"),
    resource.RLIMIT_AS: ("memory", "memory did not suffice"),
}
"""What may be limited: its name, and how the line begins of a command that it ends."""


@dataclass
class Outcome:
    """What came of the runs of a case.

    Attributes:
        runs: Those that came to their end.
        identical: Those of them that left the same files as the one that was never killed.
        kills: How often one was killed.
        during_save: Kills that left something half-written.
        before: Kills before an operation, by its kind.
        limited: How commands within a limit ended: with a line, by a library's signal, or with enough.
        failed: What went wrong: a process that could not start, a file that differs.
    """

    runs: int = 0
    identical: int = 0
    kills: int = 0
    during_save: int = 0
    before: Counter[str] = field(default_factory=Counter)
    limited: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


class Case:
    """A command, what it leaves when nobody disturbs it, and what it leaves when it is killed.

    Args:
        name: One of ``CASES``.
        root: A folder to work in.
        steps: Of its training.
        seed: Of what is drawn.
    """

    def __init__(self, name: str, root: Path, steps: int, seed: int) -> None:
        self.name, self.root, self.steps, self.rng = name, root, steps, random.Random(seed)
        self.outcome, self.command = Outcome(), self._command()
        self.whole = root / f"{name}-whole"
        self.undisturbed = self._through(self.whole)
        if name != "prior":  # which reads codes
            assert self.undisturbed.report["images_found"] == IMAGES, (
                "it read other images than those of prepare()"
            )
        again = root / f"{name}-again"
        self._through(again)
        self.outcome.failed += differences(self.whole, again)

    def _command(self) -> list[str]:
        short = [*SHORT, f"--steps={self.steps}", "--json"]
        if self.name == "vqvae":
            return ["train", "vqvae", *short, *VQVAE]
        if self.name in ("pixel", "force"):
            force = ["--force"] if self.name == "force" else []
            return ["train", "pixel", *short, *PIXEL, *force]
        tokenizer, codes = self.root / "tokenizer", self.root / "codes"
        encoding = ["encode", f"--tokenizer={tokenizer}", "--shard-size=64", "--batch-size=32", "--json"]
        if not tokenizer.exists():
            done(attempt(["train", "vqvae", *short, *VQVAE, f"--output={tokenizer}"], self.root))
        if self.name == "encode":
            return encoding
        if not codes.exists():
            done(attempt([*encoding, f"--output={codes}"], self.root))
        return ["train", "prior", *short, *PRIOR, f"--codes={codes}"]

    def _through(self, output: Path) -> Attempt:
        self._prepared(output)
        return done(attempt([*self.command, f"--output={output}"], self.root))

    def _prepared(self, output: Path) -> None:
        """Put in the place of the output what the command finds there."""
        before = self.root / "before"
        if self.name == "force":
            if not before.exists():
                short = [*SHORT, "--steps=2", *PIXEL, "--depth=1", f"--output={before}"]
                done(attempt(["train", "pixel", *short], self.root))
            shutil.copytree(before, output)

    def run_again(self, output: Path) -> list[str]:
        """The words that go on with what is in a folder."""
        resumes = self.name in ("vqvae", "prior", "pixel") and (output / "run.json").exists()
        if resumes and self.rng.random() < 0.5:
            return ["train", self.name, f"--resume={output}", "--json"]
        return [*self.command, f"--output={output}"]

    def at_random_moments(self, runs: int, kills: int) -> None:
        """Run the command some times with up to so many kills each."""
        for number in range(runs):
            output = self.root / f"{self.name}-{number}"
            self._prepared(output)
            for kill in range(kills + 1):
                after = self.rng.uniform(0, self.undisturbed.seconds) if kill < kills else None
                self._took(attempt(self.run_again(output), self.root, kill_after=after), output)
            self._ended(output)

    def before_operations(self, points: int) -> None:
        """Run the command once for each of some operations, or of all (0), and kill it before that one.

        What goes on is killed too, before one of its first operations, which mend and clear up.
        """
        total = len(self.undisturbed.operations)
        chosen = range(1, total + 1)
        for point in sorted(self.rng.sample(chosen, points)) if points else chosen:
            output = self.root / f"{self.name}-at-{point}"
            self._prepared(output)
            first = attempt([*self.command, f"--output={output}"], self.root, kill_at=point)
            self._took(first, output)
            assert first.status == -signal.SIGKILL, f"{self.name} has no operation {point} of {total}"
            second = attempt(self.run_again(output), self.root, kill_at=self.rng.randint(1, 12))
            self._took(second, output)
            self._took(attempt(self.run_again(output), self.root), output)
            self._ended(output, "; ".join(first.operations[-1:] + second.operations[-1:]))

    def within_limits(self, tries: int) -> None:
        """Run the command some times with files, and some times with memory, of a limited size, and then without.

        What a limit ends says so in its last line, with status 2. Far too little memory may also end a process in
        a library, by a signal.
        """
        largest = max(path.stat().st_size for path in self.whole.rglob("*"))
        drawn = [{resource.RLIMIT_FSIZE: self.rng.randint(8192, largest - 1)} for _ in range(tries)]
        drawn += [{resource.RLIMIT_AS: self.rng.randint(0, 32 << 20)} for _ in range(tries)]
        for number, limits in enumerate(drawn):
            output = self.root / f"{self.name}-within-{number}"
            self._prepared(output)
            limited = attempt([*self.command, f"--output={output}"], self.root, limits=limits)
            self._was_limited(limited, *limits)
            self._took(attempt(self.run_again(output), self.root), output)
            self._ended(output, str(limits))

    def _was_limited(self, one: Attempt, limit: int) -> None:
        said = one.log.splitlines()[-1] if one.log else ""
        name, line = LIMITS[limit]
        as_expected = (
            one.status == 2 and said.startswith(f"rasterwise: {line}") and "Traceback" not in one.log
        )
        enough = limit == resource.RLIMIT_AS and one.status == 0
        by_a_library = limit == resource.RLIMIT_AS and one.status < 0
        kind = "line" if as_expected else "enough" if enough else "signal" if by_a_library else "else"
        self.outcome.limited[f"{name}: {kind}"] += 1
        if kind == "else":
            self.outcome.failed.append(f"{self.name}, limited {name}: {one.status}, {one.log[-2000:]}")

    def _took(self, one: Attempt, output: Path) -> None:
        if one.status not in (0, -signal.SIGKILL):
            self.outcome.failed.append(f"{output.name}: {one.log[-2000:]}")
        if one.status:
            self.outcome.kills += 1
            self.outcome.during_save += bool(leftovers(self.root))
            self.outcome.before[one.operations[-1].split()[0] if one.operations else "start"] += 1

    def _ended(self, output: Path, where: str = "") -> None:
        self.outcome.runs += 1
        different = [f"{found} (killed before {where})" for found in differences(self.whole, output)]
        different += [f"{output.name} leaves {path}" for path in leftovers(self.root)]
        self.outcome.identical += not different
        self.outcome.failed += different
        if not different:
            shutil.rmtree(output)
        if self.outcome.runs % 20 == 0:
            print(
                f"{self.name}: {self.outcome.runs} runs, {self.outcome.kills} kills",
                file=sys.stderr,
                flush=True,
            )


def done(one: Attempt) -> Attempt:
    """An attempt that came to its end; a RuntimeError with its output otherwise."""
    if one.status:
        raise RuntimeError(one.log)
    return one


def leftovers(root: Path) -> list[Path]:
    """What is half-written, anywhere in a folder."""
    return [path for path in root.rglob(".*") if LEFTOVER.fullmatch(path.name)]


def differences(whole: Path, output: Path) -> Iterator[str]:
    """Names of what an output holds otherwise than that of the undisturbed command."""
    expected, found = files_of(whole), files_of(output)
    if found != expected:
        yield f"{output.name}: its files are not the same: {sorted(expected ^ found)}"
    for name in sorted(expected & found):
        if name != "report.json" and (output / name).read_bytes() != (whole / name).read_bytes():
            yield f"{output.name}: {name} differs"
    if "report.json" in expected & found:
        reports = [json.loads((folder / "report.json").read_text()) for folder in (whole, output)]
        if reports[0]["test"] != reports[1]["test"]:
            yield f"{output.name}: the test metrics differ"


def files_of(folder: Path) -> set[str]:
    """Files by their names in a folder, but for the events, of which each session has its own."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("events.")}


def main() -> None:
    """The command: prints the outcome of each case as JSON in the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument(
        "--runs", type=int, default=0, help="runs of each case that are killed at random moments"
    )
    parser.add_argument("--kills", type=int, default=3, help="SIGKILLs in each of them, if it lasts so long")
    parser.add_argument("--points", type=int, help="operations before which a run is killed; 0: all")
    parser.add_argument("--limits", type=int, default=0, help="runs within limits of files, and of memory")
    parser.add_argument("--steps", type=int, default=3, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare()
    outcomes = {}
    for name in options.cases:
        case = Case(name, options.folder.resolve(), options.steps, options.seed)
        case.at_random_moments(options.runs, options.kills)
        if options.points is not None:
            case.before_operations(options.points)
        case.within_limits(options.limits)
        outcomes[name] = vars(case.outcome)
    print(json.dumps(outcomes))


def prepare() -> None:
    """Import what the commands would import one by one, and hand them a few images held in memory."""
    for name in ("datasets", "torch.utils.tensorboard", "torchvision", "tyro", "pipeline.commands.encode"):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    values = torch.randint(256, (IMAGES, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(IMAGES) % 2
    data = ImageData(
        tensor_split(values[:160], labels[:160]),
        tensor_split(values[160:], labels[160:]),
        shape=(1, 8, 8),
        classes=("a", "b"),
        columns=Columns(image="image", label="label", caption=None),
        found=IMAGES,
    )
    for module in (training, encode):
        assert module.open_images is open_images, "else the commands would read the digits"
        module.open_images = lambda *_, **__: data
    gc.freeze()  # else every fork would copy all that is imported, to look for garbage in it


if __name__ == "__main__":
    main()
