"""Linear layers of few rows, as decoding has them: the weight is laid out once, when decoding begins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedLinear:
    """y = x Wᵀ + b, alone or with what follows it in the same operation.

    A decoder multiplies a few rows, one for each image, with the same matrices at every position. A general matrix
    product copies a matrix into blocks that fit the processor, which pays for many rows alone. On CPUs oneDNN keeps
    them in such blocks instead. One row reads a plain matrix at the speed of memory, if its shorter side comes first.
    On other devices, in float64 and in versions of torch without these operators, all rows are multiplied so.

    Args:
        weight: ``(outputs, inputs)``; copied, so that training the model meanwhile changes nothing.
        bias: ``(outputs,)``, or None.
        rows: How many rows are expected. Others are right as well, but may take longer.

    Example:
        >>> import torch
        >>> from rasterwise.decoding.packed_linear import PackedLinear
        >>> linear = PackedLinear(torch.eye(2, 3), rows=1)
        >>> linear(torch.tensor([[1.0, 2.0, 3.0]])), linear.added(torch.ones(1, 3), torch.ones(1, 2))
        (tensor([[1., 2.]]), tensor([[2., 2.]]))
    """

    @torch.no_grad()
    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, rows: int) -> None:
        self.bias = None if bias is None else bias.detach().clone()
        self.packs = rows > 1 and can_pack(weight)
        if self.packs:
            self.weight = _mkldnn("_reorder_linear_weight")(weight.detach().contiguous(), rows)
            self.unary, self.binary = (
                _mkldnn("_linear_pointwise").default,
                _mkldnn("_linear_pointwise").binary,
            )
        else:
            wide = weight.shape[0] > weight.shape[1]
            layout = weight.detach().T if wide else weight.detach()
            self.weight = layout.clone(memory_format=torch.contiguous_format)
            self.weight = self.weight if wide else self.weight.T

    def __call__(self, x: Tensor) -> Tensor:
        """``(rows, inputs)`` to ``(rows, outputs)``."""
        if self.packs:
            return self.unary(x, self.weight, self.bias, "none", [], "")
        return self._plain(x)

    def into(self, x: Tensor, out: Tensor) -> Tensor:
        """y in memory that is there, ``(rows, outputs)``; for a weight that is neither packed nor has a bias."""
        return torch.mm(x, self.weight, out=out)

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of y."""
        if self.packs:
            return self.unary(x, self.weight, self.bias, "swish", [], "")
        return F.silu(self._plain(x), inplace=True)

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """y plus another ``(rows, outputs)``, which may be overwritten."""
        if self.packs:
            return self.binary(x, other, self.weight, self.bias, "add")
        sum_ = other.addmm_(x, self.weight)
        return sum_ if self.bias is None else sum_.add_(self.bias)

    def multiplied(self, x: Tensor, other: Tensor) -> Tensor:
        """y times another ``(rows, outputs)``, number by number."""
        if self.packs:
            return self.binary(x, other, self.weight, self.bias, "mul")
        return self._plain(x).mul_(other)

    def _plain(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN takes the weight in blocks, and has products of its type on this processor."""
    return (
        weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and (
            weight.dtype == torch.float32
            or (weight.dtype == torch.bfloat16 and bool(_mkldnn("_is_mkldnn_bf16_supported")()))
        )
    )


def _mkldnn(name: str) -> Any:
    return getattr(torch.ops.mkldnn, name)
