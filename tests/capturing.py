"""A capture with the semantics of a CUDA graph, for tests without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What waits for the device or whose result's shape hangs on values: a CUDA graph can hold none of them.
CANNOT_BE_CAPTURED = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "equal",
    "lift_fresh",
    "bincount",
)


def tensors_of(*trees: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor))


class CapturedWork(TorchDispatchMode):
    """Every operation inside, with the very tensors that it worked on.

    As after the capture of a CUDA graph, afterwards nothing has happened: tensors that were there before have
    their old contents, and those made inside hold garbage until ``replay`` computes them, at the same address.
    Numbers and views are those of the capture for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # by memory: a tensor that was there, its contents
        self.made: dict[int, Tensor] = {}
        self.replays = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        assert name not in CANNOT_BE_CAPTURED, f"{name} in a capture"
        if name in ("index", "index_put", "index_put_"):
            assert all(index.dtype != torch.bool for index in tensors_of(args[1])), (
                "a mask picks in a capture"
            )
        for tensor in tensors_of(args, kwargs):
            self._keep(tensor)
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        for tensor in tensors_of(result):
            if memory_of(tensor) not in self.before:
                self.made.setdefault(memory_of(tensor), tensor)
        return result

    def _keep(self, tensor: Tensor) -> None:
        memory = memory_of(tensor)
        if memory not in self.made and memory not in self.before:
            whole = whole_of(tensor)
            self.before[memory] = (whole, whole.clone())

    def undo(self) -> None:
        """Leave behind what a capture leaves behind."""
        for tensor, contents in self.before.values():
            tensor.copy_(contents)
        for tensor in self.made.values():
            whole_of(tensor).fill_(0xA5)

    def replay(self) -> None:
        """Do it all again, on the same memory."""
        self.replays += 1
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tensors_of(result), tensors_of(again), strict=True):
                if memory_of(old) != memory_of(new):
                    old.copy_(new)


def memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def whole_of(tensor: Tensor) -> Tensor:
    """All bytes of the memory that a tensor is a view of."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


class CpuCapture:
    """Captures as CUDA does; keeps what was captured."""

    def __init__(self) -> None:
        self.captured: list[CapturedWork] = []

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        captured = CapturedWork()
        with captured:
            work()
        captured.undo()
        self.captured.append(captured)
        return captured.replay


@contextmanager
def capturing() -> Iterator[CpuCapture]:
    """Inside, ``sample`` captures and replays as it does on a GPU."""
    capture = CpuCapture()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rasterwise.models.autoregressive.capture_on", lambda device: capture)
        yield capture


class OneDevice(TorchDispatchMode):
    """Inside, every tensor is on the meta device, which has no values: reading one raises."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tensors_of(args, kwargs, result):
            assert tensor.device.type == "meta", f"{function} on the {tensor.device.type}"
        return result


def capture_by_doing(work: Callable[[], None]) -> Callable[[], None]:
    """A capture whose replays do nothing, where values count for nothing."""
    work()
    return lambda: None
