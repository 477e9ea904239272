"""PixelCNN passes the shared suite, and its blind spot is exactly the one that its docstring predicts."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.pixelcnn.model import PixelCNN
from pixel_baselines.pixelcnn.network import PixelCNNConfig
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import AutoregressiveSuite, random_symbols, randomized


class TestPixelCNN(AutoregressiveSuite):
    blind_spot = True

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> PixelCNN:
        return PixelCNN(
            PixelCNNConfig(grid=grid, classes=classes, width=12, blocks=2, input_kernel=5, output_width=24)
        )


class TestPixelCNNOverCodes(AutoregressiveSuite):
    """Learned vectors, levels beyond 256, several codes a site, and a kernel that keeps two rows."""

    blind_spot = True
    grids: ClassVar = [Grid(1, 4, 5, 300), Grid(2, 4, 3, 12)]
    tiny_grids: ClassVar = [Grid(1, 3, 2, 3), Grid(2, 2, 2, 2)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> PixelCNN:
        return PixelCNN(
            PixelCNNConfig(
                grid=grid,
                classes=classes,
                width=16,
                blocks=2,
                input_kernel=3,
                kernel=5,
                output_width=24,
                embedding="learned",
                embedding_width=5,
            )
        )


@pytest.fixture
def _never_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softplus for ReLU, so that a path through the network is a gradient, whatever the weights."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))


def seen_pixels(model: PixelCNN, row: int, column: int) -> Tensor:
    """bool ``(H, W)``: the pixels whose symbols the logits of a site have a gradient to."""
    inputs = model.embed(random_symbols(model.grid, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.logits_from(inputs)[:, :, row, column].square().sum(), inputs)
    return (gradient != 0).any(0).any(0)


@pytest.mark.usefixtures("_never_flat")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("input_kernel", "kernel", "blocks"), [(3, 3, 1), (3, 3, 3), (5, 3, 2), (5, 5, 1)])
def test_blind_spot_is_the_predicted_one(channels: int, input_kernel: int, kernel: int, blocks: int) -> None:
    """Every site sees the receptive field of the docstring, whole, and nothing of the rest."""
    grid = Grid(channels, 7, 9, 4)
    model = randomized(
        PixelCNN(
            PixelCNNConfig(
                grid=grid, width=12, blocks=blocks, input_kernel=input_kernel, kernel=kernel, output_width=6
            )
        ),
        0.1,
    )
    p, q, n = input_kernel // 2, kernel // 2, blocks
    cut_off = 0
    for row, column in [(6, 4), (6, 0), (5, 8), (3, 2), (0, 5), (1, 3)]:
        predicted = torch.zeros(7, 9, dtype=torch.bool)
        for other_row in range(row + 1):
            r = row - other_row
            right = p + q * min(r - 1, n) if r else 0
            for other in range(9):
                within = column - (p + q * n) <= other <= column + right
                predicted[other_row, other] = r <= p + q * n and within
        predicted[row, column] = channels > 1  # its own earlier colours
        assert torch.equal(seen_pixels(model, row, column), predicted), (row, column)
        earlier = torch.arange(63).view(7, 9) < row * 9 + column
        cut_off += int((earlier & ~predicted).sum())
    assert cut_off > 0


@pytest.mark.usefixtures("_never_flat")
def test_depth_does_not_cure_the_blind_spot() -> None:
    """With 12 blocks, far more than the grid needs, the row above is still hidden to the right of p columns."""
    grid = Grid(1, 4, 9, 2)
    model = randomized(PixelCNN(PixelCNNConfig(grid=grid, width=8, blocks=12, input_kernel=5)), 0.05)
    seen = seen_pixels(model, 3, 4)
    assert seen[2].tolist() == [True] * 7 + [False] * 2
    assert seen[1].tolist() == [True] * 8 + [False]
    assert seen[0].all()


def test_decoder_memory_grows_with_rows_not_with_the_area() -> None:
    """A grid three times as high needs no larger buffers."""

    def elements(height: int) -> int:
        decoder = PixelCNN(PixelCNNConfig(grid=Grid(3, height, 5, 4), width=12, blocks=2)).decoder(2)
        return sum(value.numel() for value in vars(decoder).values() if isinstance(value, Tensor))

    assert elements(12) == elements(4)


def test_logits_are_not_overwritten() -> None:
    """What ``logits`` gave stays as it was when the decoder goes on."""
    model = PixelCNN(PixelCNNConfig(grid=Grid(1, 2, 2, 4), width=4, blocks=1))
    decoder = model.decoder(1)
    first = decoder.logits()
    kept = first.clone()
    decoder.advance(torch.tensor([[3]]))
    decoder.logits()
    assert torch.equal(first, kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 7}, "width is 7, expected an even number"),
        ({"width": 4}, "at least twice the 3"),
        ({"blocks": 0}, "blocks is 0"),
        ({"kernel": 4}, "kernel is 4, expected an odd"),
        ({"input_kernel": 1}, "input_kernel is 1, expected an odd"),
        ({"output_width": 2}, "output_width is 2"),
        ({"embedding": "one-hot"}, "'one-hot', expected 'scale' or 'learned'"),
        ({"embedding_width": 0}, "embedding_width is 0"),
    ],
)
def test_refuses_a_configuration(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PixelCNNConfig(**{"grid": Grid(3, 4, 4, 256), **changes})


def test_refuses_a_spatial_condition() -> None:
    model = PixelCNN(PixelCNNConfig(grid=Grid(1, 2, 2, 4), width=4, blocks=1))
    with pytest.raises(InputError, match="pixelcnn, which takes none"):
        model.log_prob(random_symbols(model.grid, 1), Condition(spatial=torch.zeros(1, 1, 2, 2)))
