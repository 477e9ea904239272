"""What the last bits of a model's probabilities depend on: a file names it, and another machine says what differs."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from rasterwise.measure.machine import cpu_family

SEPARATOR = ";"


@dataclass(frozen=True)
class Environment:
    """Where a file was compressed.

    Attributes:
        rasterwise: Its version.
        torch: Its version, without the build.
        constriction: The first two numbers of its version.
        processor: The kind of processor, or the GPU's name.
        threads: That torch computed with.
    """

    rasterwise: str
    torch: str
    constriction: str
    processor: str
    threads: int

    @classmethod
    def parsed(cls, text: str, threads: int) -> Environment:
        """The inverse of ``text``; ValueError where it is none."""
        first, second, third, *rest = text.split(SEPARATOR)
        return cls(first, second, third, SEPARATOR.join(rest), threads)

    @property
    def text(self) -> str:
        """All but the threads, for a header."""
        return SEPARATOR.join((self.rasterwise, self.torch, self.constriction, self.processor))

    def differences(self, here: Environment) -> str:
        """What is another here, in words; empty where nothing is."""
        pairs = [(one.name, getattr(self, one.name), getattr(here, one.name)) for one in fields(self)]
        return ", ".join(f"{name} {there}, here {own}" for name, there, own in pairs if there != own)


def environment_here(device: torch.device) -> Environment:
    """This process's, for a model on a device."""
    return Environment(
        _own_version(),
        torch.__version__.partition("+")[0],
        ".".join(version("constriction").split(".")[:2]),
        _processor(device),
        torch.get_num_threads() if device.type == "cpu" else 1,
    )


def _own_version() -> str:
    try:
        return version("rasterwise")
    except PackageNotFoundError:  # a checkout that is on the path
        return "checkout"


@cache
def _processor(device: torch.device) -> str:
    """Matrix products are computed by kernels that the libraries choose by these."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = f"{torch.backends.cpu.get_cpu_capability()} {cpu_family() or platform.machine()}"
    return found[:60]


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """As many threads of torch inside the block, as many as before it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
