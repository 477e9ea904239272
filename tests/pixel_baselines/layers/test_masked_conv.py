"""Cropped convolutions are the masked ones, and no mask is ever written into a weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.layers.channel_masks import MaskType
from pixel_baselines.layers.masked_conv import (
    CausalConv2d,
    horizontal_conv,
    masked_conv,
    pointwise_conv,
    vertical_conv,
)
from pixel_baselines.layers.symbols import SoftmaxHead, SymbolEmbedding, as_feature_map
from rasterwise.symbols.grid import Grid


def reached(conv: CausalConv2d, inputs: int, row: int, column: int, output: int = 0) -> Tensor:
    """Which inputs ``(inputs, 7, 7)`` the output at a site has a gradient to."""
    x = torch.ones(1, inputs, 7, 7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(conv.double()(x)[0, output, row, column], x)
    return gradient[0] != 0


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_equals_the_masked_square_kernel(kernel: int, mask_type: MaskType) -> None:
    """The upper rows alone give what the whole k×k kernel under the paper's mask gives, RGB groups included."""
    reach = kernel // 2
    conv = masked_conv(3, 6, kernel, mask_type, channels=3).double()
    whole = torch.randn(6, 3, kernel, kernel, dtype=torch.float64)
    whole[:, :, : reach + 1] = conv.weight.detach()
    mask = torch.zeros_like(whole)
    mask[:, :, :reach] = 1
    mask[:, :, reach, :reach] = 1
    for output in range(6):
        for colour in range(3):
            own = output // 2  # features 0 and 1 are red's, 2 and 3 green's, 4 and 5 blue's
            mask[output, colour, reach, reach] = colour < own or (mask_type == "B" and colour == own)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    expected = F.conv2d(x, whole * mask, conv.bias, padding=reach)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_stacks_reach_their_windows_and_nothing_else(mask_type: MaskType) -> None:
    """Vertical: rows above (and the own row of type B) within the kernel. Horizontal: the row up to the site."""
    vertical = torch.zeros(7, 7, dtype=torch.bool)
    vertical[1 : 3 + (mask_type == "B"), 1:6] = True
    assert torch.equal(reached(vertical_conv(1, 2, 5, mask_type), 1, 3, 3)[0], vertical)
    horizontal = torch.zeros(7, 7, dtype=torch.bool)
    horizontal[3, 1 : 3 + (mask_type == "B")] = True
    assert torch.equal(reached(horizontal_conv(1, 2, 5, mask_type, channels=1), 1, 3, 3)[0], horizontal)
    both_gates = horizontal_conv(3, 6, 5, mask_type, channels=3, gates=2)
    for output in range(6):
        own = reached(both_gates, 3, 3, 3, output)[:, 3, 3].tolist()
        group = output % 3
        assert own == [colour < group or (mask_type == "B" and colour == group) for colour in range(3)]


def test_one_by_one_keeps_the_groups_apart() -> None:
    """Green's features see red's and their own, at their site alone."""
    seen = reached(pointwise_conv(6, 6, channels=3), 6, 2, 4, output=2)
    assert seen[:, 2, 4].tolist() == [True] * 4 + [False] * 2
    assert seen.sum() == 4


def test_the_mask_is_never_written_into_the_weight() -> None:
    """A forward and backward pass leave the weight as it was; masked taps get no gradient; the state has no mask."""
    conv = masked_conv(3, 6, 3, "A", channels=3)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 3, 4, 4)).square().sum().backward()
    assert torch.equal(conv.weight, before)
    assert conv.weight.grad is not None
    assert conv.mask is not None
    assert torch.equal(conv.weight.grad == 0, conv.mask == 0)
    assert set(conv.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("height", [1, 2])
def test_grids_smaller_than_the_kernel(height: int) -> None:
    """A grid of one row or two, and of one column, keeps its shape under every kind."""
    x = torch.randn(2, 1, height, 1)
    kinds: list[MaskType] = ["A", "B"]
    for mask_type in kinds:
        convs = [
            masked_conv(1, 4, 7, mask_type, 1),
            vertical_conv(1, 4, 7, mask_type),
            horizontal_conv(1, 4, 7, mask_type, 1),
        ]
        assert all(conv(x).shape == (2, 4, height, 1) for conv in convs)


def test_embedding() -> None:
    """Scaled symbols run evenly from -1 to 1; learned ones keep each symbol's features together."""
    grid = Grid(3, 2, 2, 5)
    scale, learned = SymbolEmbedding(grid, "scale"), SymbolEmbedding(grid, "learned", 4)
    steps = scale.table(torch.float64, torch.device("cpu"))
    torch.testing.assert_close(steps[:, 0], torch.linspace(-1, 1, 5, dtype=torch.float64))
    symbols = torch.randint(5, (2, 3, 2, 2))
    assert as_feature_map(scale(symbols, torch.float32)).shape == (2, scale.features, 2, 2)
    features = as_feature_map(learned(symbols, torch.float32))
    assert features.shape == (2, learned.features, 2, 2)
    table = learned.table(torch.float32, torch.device("cpu"))
    assert torch.equal(features[1, 4:8, 0, 1], table[symbols[1, 1, 0, 1]])


def test_head_gives_each_symbol_the_logits_of_its_group() -> None:
    """Logits of a channel depend on the features of its own group and those before it."""
    grid = Grid(3, 1, 1, 4)
    head = SoftmaxHead(6, 48, grid).double()
    x = torch.ones(1, 6, 1, 1, dtype=torch.float64, requires_grad=True)
    logits = head(x)
    assert logits.shape == (1, 3, 1, 1, 4)
    for channel in range(3):
        (gradient,) = torch.autograd.grad(logits[0, channel].sum(), x, retain_graph=True)
        assert (gradient.flatten() != 0).tolist() == [feature < 2 * (channel + 1) for feature in range(6)]
