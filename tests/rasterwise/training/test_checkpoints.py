"""Checkpoints: whole or passed over by name, the last ones and the best kept, and none that can run code."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from rasterwise.errors import InputError
from rasterwise.files import write_manifest
from rasterwise.training.checkpoints import CONTENT, Best, Checkpoints, Start
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig

FILES = ("manifest.json", "state.safetensors", "step.json")


@dataclass
class Trained:
    """A layer and its optimizer, of which a run has checkpoints."""

    layer: nn.Module
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints

    def step(self, number: int, best: Best | None = None) -> None:
        """One step, which depends on the random state, and a checkpoint."""
        self.layer(torch.randn(4, 3)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.checkpoints.save(number, best)

    def load(self) -> tuple[int, list[str]]:
        """The step that the newest whole checkpoint is of, and the lines shown."""
        lines: list[str] = []
        return self.checkpoints.load(lines.append).step, lines


def trained(folder: Path, steps: int = 0, keep_last: int = 2) -> Trained:
    """A run with a checkpoint at every step so far."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    checkpoints = Checkpoints(
        folder, {"layer": layer}, {"optimizer": optimizer}, Accelerator(cpu=True), keep_last
    )
    made = Trained(layer, optimizer, checkpoints)
    for number in range(1, steps + 1):
        made.step(number)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back(tmp_path: Path) -> None:
    """Weights, optimizer, random state and the best step: three more steps are the same."""
    whole = trained(tmp_path / "whole", 2)
    whole.step(3, Best(1, 0.5))
    resumed = trained(tmp_path / "whole")
    torch.manual_seed(99)
    assert resumed.checkpoints.load(print) == Start(3, Best(1, 0.5))
    state = torch.get_rng_state()
    for number in (4, 5, 6):
        resumed.step(number)
    torch.set_rng_state(state)
    for number in (4, 5, 6):
        whole.step(number)
    assert torch.equal(whole.layer.weight, resumed.layer.weight)  # type: ignore[arg-type]


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    """However many are asked for; nothing is left of the others."""
    run = trained(tmp_path / "run", 2, keep_last=1)
    assert names(tmp_path / "run") == ["step-00000002"]
    for number in (3, 4, 5):
        run.step(number, Best(2, 0.5))
    assert names(tmp_path / "run") == ["step-00000002", "step-00000005"]
    run.step(6, Best(6, 0.4))
    assert names(tmp_path / "run") == ["step-00000006"]
    assert names(tmp_path / "run" / "step-00000006") == list(FILES)
    trained(tmp_path / "three", 5, keep_last=3)
    assert names(tmp_path / "three") == ["step-00000003", "step-00000004", "step-00000005"]


def test_a_kill_after_the_last_save_leaves_no_old_checkpoint(tmp_path: Path) -> None:
    """What it kept from being deleted goes when the run is resumed, though nothing is left to save."""
    trained(tmp_path, 3, keep_last=3)
    assert trained(tmp_path, keep_last=1).load() == (3, [])
    assert names(tmp_path) == ["step-00000003"]


def test_every_flipped_byte_is_found_and_named(tmp_path: Path) -> None:
    """200 random ones, over all files: the checkpoint is passed over for the one before, and the file is named."""
    rng = random.Random(0)
    run = trained(tmp_path, 2)
    newest = tmp_path / "step-00000002"
    seen = set()
    for _ in range(200):
        name = rng.choice(FILES)
        content = (newest / name).read_bytes()
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        (newest / name).write_bytes(damaged)
        step, lines = run.load()
        assert step == 1
        assert lines == [f"checkpoint {newest} is passed over: {name} is damaged"]
        (newest / name).write_bytes(content)
        seen.add(name)
    assert seen == set(FILES)
    assert run.load() == (2, [])


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_or_cut_short_is_named(name: str, tmp_path: Path) -> None:
    """A file of the newest checkpoint; once no other is whole, that is an error with all the reasons."""
    run = trained(tmp_path, 2)
    path = tmp_path / "step-00000002" / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{name} is damaged" in run.load()[1][0]
    path.unlink()
    assert f"{name} is missing" in run.load()[1][0]
    (tmp_path / "step-00000001" / name).unlink()
    with pytest.raises(
        InputError, match=rf"no checkpoint in .* is whole \(step-00000002: {name}.*step-00000001: {name}"
    ):
        run.load()


def test_a_damaged_checkpoint_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    """Going on from the one before, the damaged one that is newer goes first."""
    trained(tmp_path, 5)
    (tmp_path / "step-00000005" / "state.safetensors").write_bytes(b"")
    run = trained(tmp_path, keep_last=1)
    assert run.load()[0] == 4
    run.checkpoints.save(4, None)
    assert names(tmp_path) == ["step-00000004"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """One line instead of torch's traceback."""
    trained(tmp_path, 1)
    other = nn.Linear(3, 5)
    checkpoints = Checkpoints(
        tmp_path,
        {"layer": other},
        {"optimizer": torch.optim.AdamW(other.parameters())},
        Accelerator(cpu=True),
    )
    with pytest.raises(InputError, match=r"step-00000001 does not fit the run's model: .*size mismatch"):
        checkpoints.load(print)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Names of the files that Python opens, and of what it unpickles, from here on."""
    seen: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            seen.append(f"open {arguments[0]}")
        elif watching and event == "pickle.find_class":
            seen.append(f"pickle {arguments}")

    sys.addaudithook(watch)
    yield seen
    watching = False  # an audit hook cannot be taken out again


@pytest.mark.parametrize(
    "where", ["step-00000002/optimizer.bin", "step-00000001/x.pt", "state.pkl", "sub/a.pth"]
)
def test_a_planted_pickle_is_refused_and_not_read(where: str, tmp_path: Path, opened: list[str]) -> None:
    """In any of the checkpoints or beside them; named, and nothing of it is run."""
    run = trained(tmp_path / "run", 2)
    planted = tmp_path / "run" / where
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    opened.clear()
    with pytest.raises(InputError, match=rf"{where.split('/')[0]}.* is no part of a checkpoint"):
        run.load()
    assert not opened
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_under_the_name_of_the_state_is_refused(tmp_path: Path, opened: list[str]) -> None:
    """Also where the manifest was made to fit it."""
    run = trained(tmp_path / "run", 1)
    path = tmp_path / "run" / "step-00000001"
    for content in (pickle.dumps(Trap(tmp_path / "sprung")), _torch_file(tmp_path)):
        (path / "state.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"state\.safetensors is damaged"):
            run.load()
        write_manifest(path, CONTENT)
        with pytest.raises(InputError, match="is damaged or cut short"):
            run.load()
    assert not [line for line in opened if line.startswith("pickle") and "Trap" in line]
    assert not (tmp_path / "sprung").exists()


def _torch_file(folder: Path) -> bytes:
    torch.save({"trap": Trap(folder / "sprung")}, folder / "trap.pt")
    return (folder / "trap.pt").read_bytes()


def test_a_model_opens_without_a_look_at_the_pickles_beside_it(tmp_path: Path, opened: list[str]) -> None:
    """A model folder with every file that other libraries would load: only ours are read."""
    VQVAE(
        VQVAEConfig(
            factor=2,
            quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4),
            autoencoder=ConvolutionalConfig(width=16, blocks=1),
        )
    ).save_pretrained(tmp_path / "model")
    for name in ("pytorch_model.bin", "model.pt", "model.pkl", "training_args.bin", "state.pth"):
        shutil.copy(_planted(tmp_path), tmp_path / "model" / name)
    opened.clear()
    VQVAE.from_pretrained(tmp_path / "model")
    inside = {Path(line.removeprefix("open ")).name for line in opened if str(tmp_path) in line}
    assert inside <= {"config.json", "model.safetensors", "manifest.json"}
    assert not [line for line in opened if line.startswith("pickle")]
    assert not (tmp_path / "sprung").exists()


def _planted(folder: Path) -> Path:
    path = folder / "trap.bin"
    path.write_bytes(pickle.dumps(Trap(folder / "sprung")))
    return path


def test_step_json_holds_no_learning_rate(tmp_path: Path) -> None:
    """It is a function of the step: of the schedule of the run that goes on."""
    trained(tmp_path, 1)
    content = json.loads((tmp_path / "step-00000001" / "step.json").read_text())
    assert "lr" not in content["optimizer_groups"][0]
