"""PixelCNN++ passes the shared suite, scores cheaply what it distributes exactly, and starts from data once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from pixel_baselines.pixelcnn_pp.cached_layers import RowConv, RowUpsample, SiteConv, SiteUpsample
from pixel_baselines.pixelcnn_pp.model import PixelCNNPP
from pixel_baselines.pixelcnn_pp.network import PixelCNNPPConfig
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    random_condition,
    random_symbols,
    randomized,
)


class TestPixelCNNPP(AutoregressiveSuite):
    grids = (*AutoregressiveSuite.grids, Grid(3, 4, 3, 256))

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> PixelCNNPP:
        return PixelCNNPP(PixelCNNPPConfig(grid=grid, classes=classes, width=6, blocks=1, components=3))

    def test_log_prob_is_that_of_the_logits(self, grid: Grid) -> None:
        """The mixture scored directly and the categorical distributions channel by channel are one."""
        model = randomized(self.build(grid, CLASSES))
        symbols, condition = random_symbols(grid, 3), random_condition(3)
        with torch.no_grad():
            generic = super(PixelCNNPP, model).log_prob(symbols, condition)
            assert torch.allclose(model.log_prob(symbols, condition), generic, rtol=0, atol=1e-10)

    def test_any_number_of_resolutions(self) -> None:
        """One to three resolutions, several blocks, odd and one-site-wide grids: cached is teacher-forced."""
        for grid, resolutions, blocks in [
            (Grid(1, 9, 6, 4), 3, 2),
            (Grid(1, 6, 9, 4), 2, 1),
            (Grid(2, 4, 4, 3), 1, 2),
            (Grid(1, 1, 7, 4), 3, 1),
            (Grid(1, 7, 1, 4), 3, 1),
            (Grid(3, 1, 1, 4), 3, 1),
        ]:
            config = PixelCNNPPConfig(
                grid=grid, classes=CLASSES, width=4, blocks=blocks, components=2, resolutions=resolutions
            )
            model = randomized(PixelCNNPP(config))
            symbols, condition = random_symbols(grid, 2), random_condition(2)
            with torch.no_grad():
                expected = grid.flatten(model(symbols, condition))
            found = decoded_logits(model.decoder(2, condition), symbols)
            assert (found - expected).abs().max() < 1e-10


class TestPixelCNNPPOverCodes(AutoregressiveSuite):
    """Learned vectors instead of intensities, and more levels than a pixel has."""

    grids = (Grid(1, 5, 3, 600), Grid(2, 3, 4, 300))
    tiny_grids = (Grid(1, 2, 2, 5), Grid(3, 1, 2, 3))

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> PixelCNNPP:
        return PixelCNNPP(
            PixelCNNPPConfig(
                grid=grid,
                classes=classes,
                width=6,
                blocks=1,
                components=2,
                embedding="learned",
                embedding_width=3,
            )
        )


class TestPixelCNNPPOfDifferences(AutoregressiveSuite):
    """Means relative to neighbouring pixels."""

    grids = (*AutoregressiveSuite.grids, Grid(3, 4, 3, 256))

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> PixelCNNPP:
        return PixelCNNPP(
            PixelCNNPPConfig(grid=grid, classes=classes, width=6, blocks=1, components=4, relative_means=True)
        )

    def test_log_prob_is_that_of_the_logits(self, grid: Grid) -> None:
        """The mixture scored directly and the categorical distributions channel by channel are one."""
        model = randomized(self.build(grid))
        symbols = random_symbols(grid, 3)
        with torch.no_grad():
            generic = super(PixelCNNPP, model).log_prob(symbols)
            assert torch.allclose(model.log_prob(symbols), generic, rtol=0, atol=1e-10)

    @pytest.mark.parametrize(("component", "row", "column"), [(0, 3, 3), (1, 2, 4), (2, None, None)])
    def test_what_means_are_relative_to(self, component: int, row: int | None, column: int | None) -> None:
        """A network that says 0 expects the pixel on the left, above, or the plane through both, channel by channel."""
        model = self.build(GRID).double().eval()
        symbols = random_symbols(GRID, 2).clamp(60, 120)
        with torch.no_grad():
            model.last.gain.zero_()
            model.last.bias.zero_()
            weights, _, scales, _ = model.last.bias.view(-1, 4).split((1, 3, 3, 3))
            weights[0, component] = 1e6
            scales.fill_(-7.0)
            expected = model(symbols).argmax(-1)[:, :, 3, 4]
        if row is None:
            plane = symbols[:, :, 3, 3] + symbols[:, :, 2, 4] - symbols[:, :, 2, 3]
            assert torch.equal(expected, plane)
        else:
            assert torch.equal(expected, symbols[:, :, row, column])


GRID = Grid(3, 7, 6, 256)


def small(**changes: object) -> PixelCNNPP:
    return PixelCNNPP(PixelCNNPPConfig(**{"grid": GRID, "width": 8, "blocks": 1, **changes}))  # type: ignore[arg-type]


def test_network_output_ignores_the_sites_own_channels() -> None:
    """The likelihood's parameters of a site have no gradient to any of its own channels."""
    model = randomized(small())
    inputs = model.embed(random_symbols(GRID, 1)).requires_grad_()
    raw = model.mixture_parameters(inputs)
    (gradient,) = torch.autograd.grad(raw[0, 3, 4].sum(), inputs)
    assert not gradient[0, :, 3, 4:].any()
    assert not gradient[0, :, 4:].any()
    assert gradient[0, :, 3, :4].abs().min() > 0


def test_starts_once_from_the_first_training_batch(tmp_path) -> None:
    """The first training pass standardises the activations; no later one, nor a loaded model's, starts again."""
    model = small(dropout=0.0).eval()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = random_symbols(GRID, 8), random_symbols(GRID, 8, seed=1)
    model.log_prob(first)
    assert all(torch.equal(fresh[name], value) for name, value in model.state_dict().items())
    assert not model.initialised

    model.train().log_prob(first)
    started = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.initialised
    assert not torch.equal(started["level.descending.0.down.conv_in.gain"], torch.ones(8))
    with torch.no_grad():
        raw = model.mixture_parameters(model.embed(first)).flatten(0, 2)
    assert raw.mean(0).abs().max() < 1e-3
    assert (raw.std(0) - 1).abs().max() < 1e-2

    model.log_prob(second)
    assert all(torch.equal(started[name], value) for name, value in model.state_dict().items())
    loaded = PixelCNNPP.from_pretrained(model.save_pretrained(tmp_path / "model")).train()
    loaded.log_prob(second)
    assert all(torch.equal(started[name], value) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("shape", [(4, 4), (1, 4), (4, 1)])
def test_the_first_steps_are_tame_where_channels_are_constant(shape: tuple[int, int]) -> None:
    """The first row has nothing above it: where it is all there is, at 1×1, the downward stream is constant."""
    grid = Grid(1, *shape, 4)
    model = PixelCNNPP(PixelCNNPPConfig(grid=grid, width=8, blocks=1, resolutions=3, dropout=0.0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    symbols = torch.randint(4, (8, *grid.shape))
    losses = []
    for _ in range(3):
        loss = -model.log_prob(symbols).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm < 1e4
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert max(losses) < 3 * grid.size * math.log(4)


def test_cached_after_the_start() -> None:
    """The decoder reads gains and biases as training left them."""
    model = small().train()
    model.log_prob(random_symbols(GRID, 4))
    model.double().eval()
    symbols = random_symbols(GRID, 2, seed=1)
    with torch.no_grad():
        expected = GRID.flatten(model(symbols))
    assert (decoded_logits(model.decoder(2), symbols) - expected).abs().max() < 1e-10


def test_trains() -> None:
    """Every weight gets a finite gradient, and a batch is learned."""
    model = small(classes=CLASSES, embedding="learned", embedding_width=4, dropout=0.0).train()
    symbols, condition = random_symbols(GRID, 4) // 8, random_condition(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = -model.log_prob(symbols, condition).mean() / GRID.size
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_bfloat16_autocast_scores_in_float32() -> None:
    """Under autocast the network runs in bfloat16; the likelihood does not."""
    model = small().eval()
    symbols = random_symbols(GRID, 2)
    with torch.no_grad():
        exact = model.log_prob(symbols)
        with torch.autocast("cpu", torch.bfloat16):
            raw, scored, logits = (
                model.mixture_parameters(model.embed(symbols)),
                model.log_prob(symbols),
                model(symbols),
            )
    assert raw.dtype == torch.bfloat16
    assert scored.dtype == logits.dtype == torch.float32
    assert torch.allclose(scored, exact, rtol=0.02)
    assert (logits.exp().sum(-1) - 1).abs().max() < 1e-4


def test_decoder_computes_each_activation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding completes each site of each down-right layer once, and each row of each downward layer once."""
    counts: Counter[int] = Counter()

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(layer: object, *arguments: object) -> object:
            counts[id(layer)] += 1
            return method(layer, *arguments)

        return call

    for owner, name in (
        (SiteConv, "step"),
        (SiteUpsample, "step"),
        (RowConv, "output"),
        (RowUpsample, "output"),
    ):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    decoder = small(resolutions=2).eval().decoder(1)
    decoded_logits(decoder, random_symbols(GRID, 1))
    level = decoder.level
    assert level.lower is not None
    rows, columns = GRID.height, GRID.width
    low_rows, low_columns = -(-rows // 2), -(-columns // 2)
    for stream, height, width in ((level, rows, columns), (level.lower, low_rows, low_columns)):
        for block in (*stream.descending, *stream.ascending):
            assert counts[id(block.right_in)] == counts[id(block.right_out)] == height * width
            assert counts[id(block.down_in)] == counts[id(block.down_out)] == height
    assert counts[id(level.downsample_right)] == counts[id(level.upsample_right)] == low_rows * low_columns
    assert counts[id(level.downsample_down)] == low_rows
    assert counts[id(level.upsample_down)] == rows


def test_decoder_keeps_rows_not_areas() -> None:
    """What a decoder holds does not grow with the height of the grid."""

    def held(height: int) -> int:
        grid = Grid(1, height, 8, 4)
        decoder = PixelCNNPP(PixelCNNPPConfig(grid=grid, width=4, blocks=1, components=2)).eval().decoder(2)
        decoder.steps = []  # the positions are as many as the symbols, in every decoder
        storages: dict[int, int] = {}
        todo: list[object] = [decoder]
        visited: set[int] = set()
        while todo:
            thing = todo.pop()
            if id(thing) in visited:
                continue
            visited.add(id(thing))
            if isinstance(thing, torch.Tensor):
                storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
            elif isinstance(thing, (list, tuple)):
                todo.extend(thing)
            elif type(thing).__module__.startswith("pixel_baselines"):
                todo.extend(vars(thing).values())
        return sum(storages.values())

    assert held(64) == held(8) > 10_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"blocks": 0}, "blocks is 0"),
        ({"resolutions": 4}, "resolutions is 4"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"embedding": "onehot"}, "embedding is 'onehot'"),
        ({"components": 0}, "components is 0"),
    ],
)
def test_refuses_a_configuration(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**changes)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_starts_on_the_smallest_grids(side: int) -> None:
    """Where a resolution has one site, channels see nothing and are constant: loss and gradients stay moderate."""
    torch.manual_seed(0)
    grid = Grid(1, side, side, 256)
    model = PixelCNNPP(PixelCNNPPConfig(grid=grid, width=16, blocks=2, resolutions=3, dropout=0)).train()
    loss = -model.log_prob(random_symbols(grid, 4)).mean() / grid.size
    loss.backward()
    assert loss < 10
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.abs().max() < 1e4 for gradient in gradients)
