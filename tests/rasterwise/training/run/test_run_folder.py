"""Run folders: who may write where."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from rasterwise.data.sources.state import FileState, Origin
from rasterwise.errors import InputError
from rasterwise.training.config import TrainingConfig
from rasterwise.training.run.run_folder import RunFolder, read_options, refuse_contradiction
from tests.rasterwise.files.test_whole import killed


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


def begun(
    path: Path, command: str, options: Options, *, force: bool = False, data: Origin | None = None
) -> RunFolder:
    """A folder that a run has claimed, and in which it has begun."""
    run = RunFolder.claim(path, command, options, force=force, data=data)
    run.begin()
    return run


def test_the_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    """What tells two runs apart is named; --json and --output do not."""
    folder = tmp_path / "run"
    begun(folder, "train vqvae", Options())
    (folder / "metrics.jsonl").write_text("{}")
    begun(folder, "train vqvae", Options(json=True))
    assert (folder / "metrics.jsonl").exists()
    other = replace(Options(), training=TrainingConfig(steps=7))
    with pytest.raises(InputError, match=r"holds a run with training\.steps = 2000, not 7"):
        begun(folder, "train vqvae", other)
    with pytest.raises(InputError, match="holds a run of 'train vqvae'"):
        begun(folder, "train prior", Options())
    begun(folder, "train prior", other, force=True)
    assert {path.name for path in folder.iterdir()} == {"run.json", ".lock"}


def test_how_the_data_are_read_may_change(tmp_path: Path) -> None:
    """A broken image stopped the run: it goes on with --skip-broken, typed again or resumed; not with other data."""
    started = Options(tmp_path / "run")
    begun(started.output, "train vqvae", started)
    resumed = read_options(started.output, "train vqvae", Options)
    for data in (Data(skip_broken=True), Data(workers=3)):
        refuse_contradiction(resumed, replace(resumed, data=data))
        begun(started.output, "train vqvae", replace(started, data=data))
        assert read_options(started.output, "train vqvae", Options).data == data
    other = replace(resumed, data=Data(dataset="faces"))
    with pytest.raises(InputError, match="--dataset is faces"):
        refuse_contradiction(resumed, other)
    with pytest.raises(InputError, match=r"data\.dataset = digits"):
        begun(started.output, "train vqvae", other)


def test_a_run_is_resumed_with_the_data_that_it_had(tmp_path: Path) -> None:
    """They may have moved, not changed; a refusal leaves the folder as it was."""
    started, files = Options(tmp_path / "run"), {"a.png": FileState(5, 100), "b.png": FileState(6, 100)}
    origin = Origin("/old", (Path("/old"),), files)
    begun(started.output, "train vqvae", started, data=origin)
    moved = replace(started, data=Data(dataset="/new"))
    refuse_contradiction(started, moved)
    begun(started.output, "train vqvae", moved, data=replace(origin, dataset="/new"))
    before = {path.name: path.read_bytes() for path in started.output.iterdir()}
    others = {"added c.png": {**files, "c.png": FileState(1, 1)}, "gone b.png": {"a.png": files["a.png"]}}
    for message, found in others.items():
        with pytest.raises(
            InputError, match=rf"the data of the run in .*run \(/old\) have changed: {message}"
        ):
            begun(started.output, "train vqvae", started, data=replace(origin, files=found))
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
    begun(started.output, "train vqvae", started)
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    del content["config"]["training"]["patience"], content["checksum"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"training\.patience = 0, not 3"):
        begun(started.output, "train vqvae", replace(started, training=TrainingConfig(patience=3)))
    begun(started.output, "train vqvae", started)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Not even --force deletes what is no run; a file is no folder."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no run"):
        begun(tmp_path, "train vqvae", Options(), force=True)
    with pytest.raises(InputError, match="is a file"):
        begun(tmp_path / "thesis.txt", "train vqvae", Options())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_finished_run_has_a_report(tmp_path: Path) -> None:
    """None before, the report after."""
    run = begun(tmp_path / "run", "train vqvae", Options())
    assert run.report is None
    run.finish({"steps": 3})
    assert begun(tmp_path / "run", "train vqvae", Options()).report == {"steps": 3}


def test_a_killed_start_is_no_obstacle(tmp_path: Path) -> None:
    """A folder made, but no run.json in it yet; a --force that was killed while it deleted; a checkpoint half-way."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run.json.pending-123").write_text('{"comm')
    begun(folder, "train vqvae", Options())
    (tmp_path / ".run.pending-123").mkdir()
    (tmp_path / ".run.pending-123" / "model").mkdir()
    (tmp_path / ".other.pending-123").mkdir()  # of another folder, whose process may be alive
    (folder / "checkpoints" / ".step-00000002.pending-123").mkdir(parents=True)
    (folder / ".model.replaced-123").mkdir()  # moved out of the way by a process killed before it went on
    begun(folder, "train vqvae", Options())
    assert {path.name for path in folder.iterdir()} == {"run.json", ".lock", "checkpoints", "model"}
    assert not list((folder / "checkpoints").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".other.pending-123"}


def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    """A second process is refused while the first one lives, and not any more once it was killed."""
    code = (
        "import sys, time; from tests.rasterwise.training.run.test_run_folder import *;"
        f"run = begun(Path({str(tmp_path / 'run')!r}), 'train vqvae', Options()); print('taken', flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(InputError, match="another process is writing"):
            begun(tmp_path / "run", "train vqvae", Options(), force=True)
        other.kill()
    begun(tmp_path / "run", "train vqvae", Options())


def test_a_run_gives_back_its_configuration(tmp_path: Path) -> None:
    """Read from run.json alone; what differs from it is named by its flag, --json may differ."""
    started = Options(tmp_path / "run", TrainingConfig(steps=7, compile=True))
    begun(started.output, "train vqvae", started)
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
        begun(tmp_path, "train vqvae", Options())


def test_a_report_is_what_was_written(tmp_path: Path) -> None:
    """Numbers that JSON lacks come back; a changed digit is found."""
    run = begun(tmp_path, "train vqvae", Options())
    run.finish({"test": {"psnr_db": float("inf"), "mse": 0.5}})
    assert run.report == {"test": {"psnr_db": float("inf"), "mse": 0.5}}
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        _ = run.report


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_does_not_begin_changes_nothing(force: bool, tmp_path: Path) -> None:
    """A new folder is gone again; a run that --force would have deleted is whole, its report too."""
    with RunFolder.claim(tmp_path / "new", "train vqvae", Options(), force=force):
        assert names(tmp_path / "new") == {".lock"}
    assert names(tmp_path) == set()
    begun(tmp_path / "run", "train vqvae", Options()).finish({"steps": 3})
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with RunFolder.claim(
        tmp_path / "run", "train prior" if force else "train vqvae", Options(), force=force
    ) as run:
        assert (run.report is None) == force
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("link", [True, False])
def test_force_empties_a_link_and_the_working_directory(
    link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder itself cannot be deleted there."""
    begun(tmp_path / "run", "train vqvae", Options())
    (tmp_path / "run" / "model").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    folder = tmp_path / "link" if link else Path()
    begun(folder, "train prior", Options(), force=True)
    assert names(tmp_path / "run") == {"run.json", ".lock"}
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_kill_at_any_point_of_the_start_is_no_obstacle(tmp_path: Path) -> None:
    """After the lock is made, say: the same command begins, and nothing half-written is left."""
    for at in itertools.count():
        folder = tmp_path / str(at) / "run"
        died = killed(at, lambda folder=folder: begun(folder, "train vqvae", Options()))  # type: ignore[misc]
        begun(folder, "train vqvae", Options())
        assert names(folder) == {"run.json", ".lock"}, at
        assert names(folder.parent) == {"run"}, at
        if not died:
            break
    assert at > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_kill_at_any_point_of_force_is_no_obstacle(tmp_path: Path) -> None:
    """The same command deletes what is left; what is left never counts as a run that has ended."""
    states = set()
    for at in itertools.count():
        folder = tmp_path / str(at) / "run"
        begun(folder, "train vqvae", Options()).finish({"steps": 3})
        (folder / "model").mkdir()
        died = killed(at, lambda folder=folder: begun(folder, "train prior", Options(), force=True))  # type: ignore[misc]
        left = names(folder)
        states.add(("run.json" in left, "report.json" in left, "model" in left))
        begun(folder, "train prior", Options(), force=True)
        assert names(folder) == {"run.json", ".lock"}, at
        if not died:
            break
    assert states == {(True, True, True), (True, False, True), (True, False, False), (False, False, False)}


def test_a_folder_that_is_removed_ends_the_run(tmp_path: Path) -> None:
    """Removed, or made anew by another run: nothing more is written there."""
    run = begun(tmp_path / "run", "train vqvae", Options())
    run.log(1, "train", {"nll_nats": 1.0})
    shutil.rmtree(tmp_path / "run")
    for _ in range(2):
        for write in (
            lambda: run.log(2, "train", {"nll_nats": 1.0}),
            lambda: run.image(2, "samples", Image.new("L", (2, 2))),
            run.sync_metrics,
            lambda: run.finish({}),
        ):
            with pytest.raises(InputError, match="was removed or replaced while it was being written"):
                write()
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / ".lock").touch()
    assert names(tmp_path / "run") == {".lock"}


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    """Scalars and images; those that a resumed run writes again once."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = begun(tmp_path / "run", "train vqvae", Options())
    for step in (1, 2, 3):
        run.log(step, "train", {"nll_nats": step / 4})
    run.image(3, "samples", Image.new("L", (2, 2)))
    run.rewind(2)
    run.log(3, "train", {"nll_nats": 5.0})
    run.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/nll_nats")] == [
        (1, 0.25),
        (2, 0.5),
        (3, 5.0),
    ]
    assert events.Tags()["images"] in (["samples"], [])  # the purge takes the image of step 3 too
