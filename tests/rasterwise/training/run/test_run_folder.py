"""Run folders: who may write where."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rasterwise.data.sources.state import FileState, Origin
from rasterwise.errors import InputError
from rasterwise.training.config import TrainingConfig
from rasterwise.training.run.run_folder import RunFolder, read_options, refuse_contradiction


@dataclass(frozen=True)
class Data:
    dataset: str = "digits"
    workers: int | None = None
    skip_broken: bool = False


@dataclass(frozen=True)
class Options:
    output: Path = Path("x")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: Data = field(default_factory=Data)
    resume: Path | None = None
    dry_run: bool = False
    force: bool = False
    json: bool = False


def test_the_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    """What tells two runs apart is named; --json and --output do not."""
    folder = tmp_path / "run"
    RunFolder.claim(folder, "train vqvae", Options())
    (folder / "metrics.jsonl").write_text("{}")
    RunFolder.claim(folder, "train vqvae", Options(json=True))
    assert (folder / "metrics.jsonl").exists()
    other = replace(Options(), training=TrainingConfig(steps=7))
    with pytest.raises(InputError, match=r"holds a run with training\.steps = 2000, not 7"):
        RunFolder.claim(folder, "train vqvae", other)
    with pytest.raises(InputError, match="holds a run of 'train vqvae'"):
        RunFolder.claim(folder, "train prior", Options())
    RunFolder.claim(folder, "train prior", other, force=True)
    assert {path.name for path in folder.iterdir()} == {"run.json", ".lock"}


def test_how_the_data_are_read_may_change(tmp_path: Path) -> None:
    """A broken image stopped the run: it goes on with --skip-broken, typed again or resumed; not with other data."""
    started = Options(tmp_path / "run")
    RunFolder.claim(started.output, "train vqvae", started)
    resumed = read_options(started.output, "train vqvae", Options)
    for data in (Data(skip_broken=True), Data(workers=3)):
        refuse_contradiction(resumed, replace(resumed, data=data))
        RunFolder.claim(started.output, "train vqvae", replace(started, data=data))
        assert read_options(started.output, "train vqvae", Options).data == data
    other = replace(resumed, data=Data(dataset="faces"))
    with pytest.raises(InputError, match="--dataset is faces"):
        refuse_contradiction(resumed, other)
    with pytest.raises(InputError, match=r"data\.dataset = digits"):
        RunFolder.claim(started.output, "train vqvae", other)


def test_a_run_is_resumed_with_the_data_that_it_had(tmp_path: Path) -> None:
    """They may have moved, not changed; a refusal leaves the folder as it was."""
    started, files = Options(tmp_path / "run"), {"a.png": FileState(5, 100), "b.png": FileState(6, 100)}
    origin = Origin("/old", (Path("/old"),), files)
    RunFolder.claim(started.output, "train vqvae", started, data=origin)
    moved = replace(started, data=Data(dataset="/new"))
    refuse_contradiction(started, moved)
    RunFolder.claim(started.output, "train vqvae", moved, data=replace(origin, dataset="/new"))
    before = {path.name: path.read_bytes() for path in started.output.iterdir()}
    others = {"added c.png": {**files, "c.png": FileState(1, 1)}, "gone b.png": {"a.png": files["a.png"]}}
    for message, found in others.items():
        with pytest.raises(
            InputError, match=rf"the data of the run in .*run \(/old\) have changed: {message}"
        ):
            RunFolder.claim(started.output, "train vqvae", started, data=replace(origin, files=found))
    assert {path.name: path.read_bytes() for path in started.output.iterdir()} == before


def test_an_output_in_the_folder_of_the_data_is_refused(tmp_path: Path) -> None:
    """Nothing is written."""
    origin = Origin(str(tmp_path), (tmp_path,))
    with pytest.raises(InputError, match="lies in the folder of the dataset"):
        RunFolder.claim(tmp_path / "run", "train vqvae", Options(tmp_path / "run"), data=origin)
    assert not list(tmp_path.iterdir())


def test_a_run_that_an_earlier_version_started_goes_on(tmp_path: Path) -> None:
    """Options that it did not have are at their defaults; a value of its own is refused."""
    started = Options(tmp_path / "run")
    RunFolder.claim(started.output, "train vqvae", started)
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    del content["config"]["training"]["patience"], content["checksum"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"training\.patience = 0, not 3"):
        RunFolder.claim(started.output, "train vqvae", replace(started, training=TrainingConfig(patience=3)))
    RunFolder.claim(started.output, "train vqvae", started)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Not even --force deletes what is no run; a file is no folder."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.claim(tmp_path, "train vqvae", Options(), force=True)
    with pytest.raises(InputError, match="is a file"):
        RunFolder.claim(tmp_path / "thesis.txt", "train vqvae", Options())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_finished_run_has_a_report(tmp_path: Path) -> None:
    """None before, the report after."""
    run = RunFolder.claim(tmp_path / "run", "train vqvae", Options())
    assert run.report is None
    run.finish({"steps": 3})
    assert RunFolder.claim(tmp_path / "run", "train vqvae", Options()).report == {"steps": 3}


def test_a_killed_start_is_no_obstacle(tmp_path: Path) -> None:
    """A folder made, but no run.json in it yet; a --force that was killed while it deleted; a checkpoint half-way."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run.json.pending-123").write_text('{"comm')
    RunFolder.claim(folder, "train vqvae", Options())
    (tmp_path / ".run.pending-123").mkdir()
    (tmp_path / ".run.pending-123" / "model").mkdir()
    (tmp_path / ".other.pending-123").mkdir()  # of another folder, whose process may be alive
    (folder / "checkpoints" / ".step-00000002.pending-123").mkdir(parents=True)
    (folder / ".model.replaced-123").mkdir()  # moved out of the way by a process killed before it went on
    RunFolder.claim(folder, "train vqvae", Options())
    assert {path.name for path in folder.iterdir()} == {"run.json", ".lock", "checkpoints", "model"}
    assert not list((folder / "checkpoints").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".other.pending-123"}


def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    """A second process is refused while the first one lives, and not any more once it was killed."""
    code = (
        "import sys, time; from tests.rasterwise.training.run.test_run_folder import *;"
        f"run = RunFolder.claim(Path({str(tmp_path / 'run')!r}), 'train vqvae', Options()); print('taken', flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(InputError, match="another process is training"):
            RunFolder.claim(tmp_path / "run", "train vqvae", Options(), force=True)
        other.kill()
    RunFolder.claim(tmp_path / "run", "train vqvae", Options())


def test_a_run_gives_back_its_configuration(tmp_path: Path) -> None:
    """Read from run.json alone; what differs from it is named by its flag, --json may differ."""
    started = Options(tmp_path / "run", TrainingConfig(steps=7, compile=True))
    RunFolder.claim(started.output, "train vqvae", started)
    options = read_options(tmp_path / "run", "train vqvae", Options)
    assert options == replace(started, resume=tmp_path / "run")
    refuse_contradiction(options, replace(options, json=True))
    for other, said in (
        (replace(options, training=TrainingConfig(steps=8, compile=True)), "--steps is 8, but the run in"),
        (replace(options, training=TrainingConfig(steps=7)), "leave --compile out"),
        (replace(options, output=tmp_path), "leave --output out"),
        (replace(options, force=True), "leave --force out"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_contradiction(options, other)
    with pytest.raises(
        InputError, match="holds a run of 'train vqvae', which 'train prior' cannot go on with"
    ):
        read_options(tmp_path / "run", "train prior", Options)
    with pytest.raises(InputError, match="holds no run to go on with"):
        read_options(tmp_path, "train vqvae", Options)
    content = (tmp_path / "run" / "run.json").read_text().replace('"steps": 7', '"steps": 0')
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        read_options(tmp_path / "run", "train vqvae", Options)
    without = {name: value for name, value in json.loads(content).items() if name != "checksum"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(without))
    with pytest.raises(InputError, match="steps is 0"):
        read_options(tmp_path / "run", "train vqvae", Options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"command": "train vqvae", "config": [1]}, "has config = .*, expected an object"),
        ({"command": 3, "config": {}}, "has command = 3, expected a string"),
        ({"config": {}}, "has no 'command'"),
        ({"command": "train vqvae", "config": {"training": "fast"}}, "training"),
        ({"command": "train vqvae", "config": {"training": {"steps": "7"}}}, "steps"),
    ],
)
def test_a_run_of_the_wrong_shape_is_named(content: dict[str, object], said: str, tmp_path: Path) -> None:
    """run.json of an earlier version, which has no checksum: read to go on with, and claimed."""
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        read_options(tmp_path, "train vqvae", Options)
    with pytest.raises(InputError, match=r"has (config|command)|no 'command'|holds a run with"):
        RunFolder.claim(tmp_path, "train vqvae", Options())


def test_a_report_is_what_was_written(tmp_path: Path) -> None:
    """Numbers that JSON lacks come back; a changed digit is found."""
    run = RunFolder.claim(tmp_path, "train vqvae", Options())
    run.finish({"test": {"psnr_db": float("inf"), "mse": 0.5}})
    assert run.report == {"test": {"psnr_db": float("inf"), "mse": 0.5}}
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        _ = run.report
