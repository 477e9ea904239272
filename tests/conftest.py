"""What all tests share: the shared suite's grids, and one tiny chain of both stages, trained once."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from pipeline.cli import main as rasterwise
from tests.autoregressive_suite import AutoregressiveSuite

TINY_VQVAE = [
    "--factor=2", "--codebook-size=16", "--code-width=8", "--width=16", "--blocks=1",
    "--steps=12", "--batch-size=64", "--evaluate-every=6",
]  # fmt: skip
TINY_PRIOR = ["--depth=1", "--width=32", "--heads=2", "--steps=12", "--batch-size=64", "--evaluate-every=6"]


def numbered_png(number: int) -> bytes:
    """A 2×2 grey PNG file that shows a number in its upper row."""
    file = io.BytesIO()
    Image.fromarray(np.array([divmod(number, 256)[::-1], (0, 255)], dtype=np.uint8)).save(file, format="PNG")
    return file.getvalue()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the shared suite on every grid that a model's test class names."""
    if metafunc.cls is not None and issubclass(metafunc.cls, AutoregressiveSuite):
        for name in ("grid", "tiny_grid", "tall_grid", "small_grid"):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, getattr(metafunc.cls, f"{name}s"), ids=str)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@dataclass(frozen=True)
class Chain:
    """Folders of a tiny VQ-VAE, its codes and a prior on them, made by the commands."""

    vqvae: Path
    codes: Path
    prior: Path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Both stages on digits, twelve steps each: enough to open, encode, sample and refuse with.

    The first worker that asks for it trains it, and each works on a copy of its own.
    """
    root = tmp_path_factory.mktemp("chain")
    made = Chain(root / "vqvae", root / "codes", root / "prior")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        train_chain(made)
        return made
    shared = tmp_path_factory.getbasetemp().parent / "shared-chain"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            train_chain(made)
            shutil.copytree(root, shared)
            return made
    shutil.copytree(shared, root, dirs_exist_ok=True)
    return made


def train_chain(chain: Chain) -> None:
    """By the commands, as a user would."""
    assert rasterwise(["train", "vqvae", f"--output={chain.vqvae}", *TINY_VQVAE]) == 0
    assert rasterwise(["encode", f"--tokenizer={chain.vqvae}", f"--output={chain.codes}"]) == 0
    prior = ["train", "prior", f"--codes={chain.codes}", f"--output={chain.prior}", *TINY_PRIOR]
    assert rasterwise(prior) == 0


@dataclass(frozen=True)
class Folders:
    """Makes folders of small images to train on."""

    root: Path

    def images(self, name: str, count: int = 12, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Path:
        """A folder of PNGs of one size, different from each other."""
        folder = self.root / name
        folder.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for number in range(count):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(
                folder / f"{number:03d}.png"
            )
        return folder

    def classes(self, name: str = "animals", count: int = 10) -> Path:
        """Two class folders of images."""
        for label in ("cat", "dog"):
            dataclasses.replace(self, root=self.root / name).images(label, count)
        return self.root / name


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Folders of images under a temporary path."""
    return Folders(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own, which a test may fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs rights that this user has not")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)  # a run that failed may still hold its lock there
