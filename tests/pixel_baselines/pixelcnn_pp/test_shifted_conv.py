"""Shifted convolutions see what they may and all of it; weight normalisation starts from data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixel_baselines.pixelcnn_pp.shifted_conv import (
    DownRightShiftedConv2d,
    DownRightShiftedUpsample,
    DownShiftedConv2d,
    DownShiftedUpsample,
    WeightNormConv2d,
    data_dependent_start,
)

HEIGHT, WIDTH = 7, 5


def seen(output: Tensor, inputs: Tensor, row: int, column: int) -> set[tuple[int, int]]:
    """The input sites that an output site depends on, by gradients."""
    (gradient,) = torch.autograd.grad(output[0, :, row, column].sum(), inputs, retain_graph=True)
    return {(int(i), int(j)) for i, j in gradient[0].abs().sum(0).nonzero()}


def inside(sites: set[tuple[int, int]], height: int, width: int) -> set[tuple[int, int]]:
    return {(i, j) for i, j in sites if 0 <= i < height and 0 <= j < width}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("layer_class", "kernel", "offsets"),
    [
        (DownShiftedConv2d, (2, 3), {(i, j) for i in (-1, 0) for j in (-1, 0, 1)}),
        (DownShiftedConv2d, (1, 3), {(0, -1), (0, 0), (0, 1)}),
        (DownRightShiftedConv2d, (2, 2), {(i, j) for i in (-1, 0) for j in (-1, 0)}),
        (DownRightShiftedConv2d, (2, 1), {(-1, 0), (0, 0)}),
        (DownRightShiftedConv2d, (1, 1), {(0, 0)}),
    ],
)
def test_a_convolution_sees_its_window(
    layer_class: type[WeightNormConv2d], kernel: tuple[int, int], offsets: set[tuple[int, int]], stride: int
) -> None:
    """Exactly the window around the input site that an output stands for, in sizes that round up."""
    inputs = torch.randn(1, 2, HEIGHT, WIDTH, requires_grad=True)
    output = layer_class(2, 3, kernel, stride=stride)(inputs)
    assert output.shape == (1, 3, -(-HEIGHT // stride), -(-WIDTH // stride))
    for i in range(output.shape[2]):
        for j in range(output.shape[3]):
            window = {(stride * i + down, stride * j + right) for down, right in offsets}
            assert seen(output, inputs, i, j) == inside(window, HEIGHT, WIDTH)


@pytest.mark.parametrize(("height", "width"), [(7, 5), (6, 4), (1, 2), (1, 1)])
def test_upsampling_sees_no_later_site(height: int, width: int) -> None:
    """Row y reads low row ⌊y / 2⌋; the down-right one column ⌊x / 2⌋, the down one also x's other side."""
    low = (-(-height // 2), -(-width // 2))
    inputs = torch.randn(1, 2, *low, requires_grad=True)
    down = DownShiftedUpsample(2, 3)(inputs, height, width)
    right = DownRightShiftedUpsample(2, 3)(inputs, height, width)
    assert down.shape == right.shape == (1, 3, height, width)
    for y in range(height):
        for x in range(width):
            assert seen(right, inputs, y, x) == {(y // 2, x // 2)}
            assert seen(down, inputs, y, x) == inside({(y // 2, x // 2), (y // 2, (x + 1) // 2)}, *low)


@pytest.mark.parametrize("layer", [DownShiftedConv2d(3, 4, (2, 3)), DownRightShiftedUpsample(3, 4)])
def test_the_gain_is_the_norm(layer: WeightNormConv2d) -> None:
    """A kernel's norm is its gain whatever the length of its direction."""
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
        layer.direction.mul_(7)
        assert torch.allclose(layer.weight.flatten(1).norm(dim=1), layer.gain)


def test_start_standardises_the_outputs() -> None:
    """After a pass inside the block, the batch comes out of each layer with mean 0 and its start_scale."""
    network = nn.Sequential(
        DownShiftedConv2d(2, 8, (2, 3)), nn.ELU(), DownRightShiftedConv2d(8, 4, (2, 2), start_scale=0.1)
    )
    batch = torch.randn(16, 2, 9, 9) * 5 + 3
    with data_dependent_start(network):
        inside_block = network(batch)
    first, last = network[0](batch), network(batch)
    for output, scale in ((first, 1.0), (last, 0.1)):
        assert output.mean((0, 2, 3)).abs().max() < 1e-4
        assert torch.allclose(output.std((0, 2, 3)), torch.tensor(scale), rtol=1e-2)
    assert torch.allclose(inside_block, last, atol=1e-4)


def test_start_keeps_a_constant_channel_tame() -> None:
    """A channel that does not vary on the first batch keeps its gain, and gets the bias that makes it 0."""
    layer = DownRightShiftedConv2d(1, 4, (1, 1))
    with data_dependent_start(layer):
        layer(torch.ones(2, 1, 3, 3))
    assert torch.equal(layer.gain, torch.ones(4))
    assert layer(torch.ones(2, 1, 3, 3)).abs().max() < 1e-3


def test_outside_the_block_nothing_is_written() -> None:
    """Passes outside the block, and after it, leave the weights alone."""
    layer = DownShiftedConv2d(2, 3, (2, 3))
    with data_dependent_start(layer):
        pass
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(torch.randn(2, 2, 4, 4))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
