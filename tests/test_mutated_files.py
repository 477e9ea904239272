"""Every file of a run, a model, a tokenizer and codes, damaged at random: refused in one line, or the right result.

``pytest -m long tests/test_mutated_files.py`` tries ten times as often.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pipeline.image_pipeline import ImagePipeline
from pipeline.models import open_model, open_tokenizer
from rasterwise.codes.dataset import open_codes
from rasterwise.codes.shards import CODES_NAME
from rasterwise.errors import InputError
from rasterwise.files import MANIFEST_NAME
from rasterwise.training.checkpoints import Checkpoints
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.run.metrics_log import METRICS_NAME, read_metrics
from rasterwise.training.run.run_folder import RunFolder, read_options
from rasterwise.training.step import TrainingStep
from stage2_prior import TransformerPrior
from stage2_prior.train import COMMAND, TrainPrior
from tests.conftest import Chain
from tests.mutations import ROOT_MARK, damage, empty, files_of, flip, retype, swap, truncate

SUBJECTS = ("model", "tokenizer", "codes", "run")
TRIES, LONG_TRIES = 32, 300
Found = dict[str, Any]


def model_in(folder: Path) -> Found:
    """All that a model folder says."""
    model = open_model(folder)
    return {"fingerprint": model.fingerprint, "config": model.config, "trained_on": model.trained_on}


def tokenizer_in(folder: Path) -> Found:
    """All that a tokenizer's folder says."""
    tokenizer = open_tokenizer(folder)
    return {"fingerprint": tokenizer.fingerprint, "trained_on": tokenizer.trained_on}


def codes_in(folder: Path) -> Found:
    """All that a folder of codes says, its tokenizer as training takes it."""
    codes = open_codes(folder)
    parts = [batch for split in (codes.train, codes.test) for batch in split.ordered(500)]
    return {
        "key": codes.key,
        "symbols": digest({str(index): batch.values for index, batch in enumerate(parts)}),
        "labels": digest({str(index): batch.labels for index, batch in enumerate(parts)}),
        "tokenizer": tokenizer_in(folder / "tokenizer")["fingerprint"],
    }


def run_in(folder: Path) -> Found:
    """All that a run says: what it goes on with, its report, its metrics, and the pipeline that it is."""
    options = read_options(folder, COMMAND, TrainPrior)
    run, lines = RunFolder.claim(folder, COMMAND, options), list[str]()
    accelerator = Accelerator(cpu=True)
    step = TrainingStep(LikelihoodObjective(TransformerPrior(options.model)), options.training, accelerator)
    checkpoints = Checkpoints(folder / "checkpoints", step.modules, step.optimizers, accelerator)
    start = checkpoints.load(lines.append)
    state = {f"{name}/{key}": t for name, m in step.modules.items() for key, t in m.state_dict().items()}
    pipeline = ImagePipeline.from_pretrained(folder)
    return {
        "options": str(options).replace(str(folder), "run"),
        "report": run.report,
        "checkpoint": (start, digest(state)),
        "passed_over": len(lines),
        "metrics": [(line.step, line.split, line.metrics) for line in read_metrics(folder / METRICS_NAME)],
        "model": pipeline.model.fingerprint,
        "best": open_model(folder / "model-best").fingerprint,
        "tokenizer": pipeline.tokenizer.fingerprint,
    }


def digest(tensors: dict[str, torch.Tensor | None]) -> str:
    made = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        made.update(name.encode())
        if tensor is not None:
            made.update(tensor.detach().contiguous().numpy().tobytes())
    return made.hexdigest()


OPEN: dict[str, Callable[[Path], Found]] = {
    "model": model_in,
    "tokenizer": tokenizer_in,
    "codes": codes_in,
    "run": run_in,
}


@pytest.fixture(scope="module")
def folders(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four folders, whole."""
    root = tmp_path_factory.mktemp("whole")
    sources = {
        "model": chain.prior / "model",
        "tokenizer": chain.vqvae / "model",
        "codes": chain.codes,
        "run": chain.prior,
    }
    for name, source in sources.items():
        shutil.copytree(source, root / name)
        (root / name / ROOT_MARK).touch()
    return {name: root / name for name in sources}


@pytest.fixture(scope="module")
def whole(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Found]]:
    """What opening gives: the right result, and for the run that of the checkpoint before its newest one too."""
    found = {name: [OPEN[name](folder)] for name, folder in folders.items()}
    older = tmp_path_factory.mktemp("older") / "run"
    shutil.copytree(folders["run"], older)
    max((older / "checkpoints").glob("step-*/state.safetensors")).write_bytes(b"")
    found["run"].append(run_in(older))
    assert found["run"][1]["passed_over"] == 1
    return found


def as_it_was(found: Found, results: list[Found]) -> bool:
    """Whether a result is a right one; a log of metrics may have lost its end, which nothing else knows of."""
    for right in results:
        same = {name for name in right if found[name] == right[name]}
        metrics = found.get("metrics", [])
        if same | {"metrics"} >= set(right) and metrics == right.get("metrics", [])[: len(metrics)]:
            return True
    return False


def attempt(seed: int, folders: dict[str, Path], whole: dict[str, list[Found]], work: Path) -> str:
    """Damage one file of one folder, and open it.

    Returns:
        "refused" or "right".

    Raises:
        AssertionError: Wrong data. Any other exception is a defect too.
    """
    rng, name = random.Random(seed), SUBJECTS[seed % len(SUBJECTS)]
    folder = work / name
    shutil.copytree(folders[name], folder)
    done = damage(folder, rng, (flip, flip, truncate, empty, swap, retype))
    try:
        found = OPEN[name](folder)
    except InputError as error:
        found, line = None, str(error)
    finally:
        shutil.rmtree(folder)
    if found is None:
        assert "\n" not in line, done
        return "refused"
    assert as_it_was(found, whole[name]), f"seed {seed}, {name}: {done}"
    return "right"


def attempt_earlier(seed: int, folders: dict[str, Path], work: Path) -> None:
    """The same of a folder without checksums: what its JSON holds is of the wrong shape, or its files are cut short."""
    rng, name = random.Random(seed), SUBJECTS[seed % len(SUBJECTS)]
    folder = work / name
    shutil.copytree(folders[name], folder)
    forget_checksums(folder)
    damage(folder, rng, (truncate, empty, retype))
    try:
        OPEN[name](folder)
    except InputError:
        pass
    finally:
        shutil.rmtree(folder)


def forget_checksums(folder: Path) -> None:
    """Make a folder what an earlier version wrote: only checkpoints have manifests."""
    for path in files_of(folder):
        if path.name == MANIFEST_NAME and path.parent.parent.name != "checkpoints":
            path.unlink()
        elif path.suffix in (".json", ".jsonl") and path.parent.parent.name != "checkpoints":
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            kept = [
                {k: v for k, v in json.loads(line).items() if k not in ("checksum", "fingerprint")}
                for line in lines
            ]
            path.write_text("".join(json.dumps(content) + "\n" for content in kept))


@pytest.mark.parametrize("seed", range(TRIES))
def test_a_damaged_file_is_refused_or_harmless(
    seed: int, folders: dict[str, Path], whole: dict[str, list[Found]], tmp_path: Path
) -> None:
    """A byte changed, cut short, emptied, exchanged with another, a JSON value of another type."""
    attempt(seed, folders, whole, tmp_path)


@pytest.mark.parametrize("seed", range(TRIES // 2))
def test_a_damaged_file_of_an_earlier_version_ends_in_no_traceback(
    seed: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Folders without manifests and checksums open, or are refused in one line."""
    attempt_earlier(seed, folders, tmp_path)


def test_folders_of_an_earlier_version_are_as_good(
    folders: dict[str, Path], whole: dict[str, list[Found]], tmp_path: Path
) -> None:
    """Undamaged, they give what they gave."""
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / name)
        forget_checksums(tmp_path / name)
        assert as_it_was(OPEN[name](tmp_path / name), whole[name][:1]), name
        assert name != "codes" or not json.loads((tmp_path / name / CODES_NAME).read_text()).get("checksum")


@pytest.mark.long
def test_many_damaged_files_are_refused_or_harmless(
    folders: dict[str, Path], whole: dict[str, list[Found]], tmp_path: Path
) -> None:
    """As above, more often; how many of the tries were refused is printed (``-s``)."""
    outcomes = [
        attempt(seed, folders, whole, tmp_path / str(seed)) for seed in range(TRIES, TRIES + LONG_TRIES)
    ]
    print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})
    for seed in range(TRIES, TRIES + LONG_TRIES):
        attempt_earlier(seed, folders, tmp_path / str(seed))
