"""What is captured once and replayed draws what is drawn step by step; the stand-in for a CUDA graph is strict."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.cuda_graph import CannotCaptureError, capture_on
from rasterwise.decoding.decoder import CaptureRegion, Decoder, NaiveDecoder
from rasterwise.decoding.loop import decode
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import NonFiniteError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import raster_order, wavefront_order
from tests.autoregressive_suite import CLASSES, randomized
from tests.capturing import CpuCapture, capturing
from tests.rasterwise.decoding.test_decoder import Scripted

GRID = Grid(2, 5, 3, 7)


class Adder(Decoder):
    """A symbol is the sum, modulo K, of all before it and of the row that a mistaken one takes from the host."""

    def __init__(self, regions: list[CaptureRegion], mistaken: bool = False) -> None:
        super().__init__(GRID, 2, raster_order(GRID))
        self.regions, self.mistaken = regions, mistaken
        self.sums = torch.ones(2, dtype=torch.int64)
        self.row = torch.zeros(1, dtype=torch.int64)
        self.rows = torch.eye(GRID.levels).log()

    def capture_regions(self) -> list[CaptureRegion]:
        return self.regions

    def _logits(self) -> Tensor:
        row = self.index // 6 if self.mistaken else self.row
        return self.rows[(self.sums + row) % GRID.levels][:, None]

    def _advance(self, symbols: Tensor) -> None:
        self.sums.add_(symbols[:, 0])
        if self.index % 6 == 5:
            self.row.add_(1)


def drawn(decoder: Decoder, capture: CpuCapture | None = None) -> tuple[Tensor, list[int]]:
    sequence = torch.full((decoder.batch_size, GRID.size), -1)
    plan = SamplingPlan.of(GRID, decoder.batch_size, generator=torch.Generator().manual_seed(0))
    return sequence, list(decode(lambda captured: decoder, plan, sequence, capture))


@pytest.mark.parametrize(
    ("regions", "replays", "counts"),
    [
        ([CaptureRegion(6, 5)], [4], [6, 12, 18, 24, 30]),
        ([CaptureRegion(6, 1), CaptureRegion(6, 4)], [3], [6, 12, 18, 24, 30]),
        ([CaptureRegion(12, 2), CaptureRegion(6, 1)], [1], [12, 24, 30]),
        ([CaptureRegion(6, 2), CaptureRegion(6, 3), CaptureRegion(6, 0)], [1, 2], [6, 12, 18, 24, 30]),
        ([CaptureRegion(1, 1)] * 30, [], list(range(1, 31))),
    ],
    ids=str,
)
def test_every_region_is_captured_once(
    regions: list[CaptureRegion], replays: list[int], counts: list[int]
) -> None:
    """Its first period is done as it is, the others are replays; the count goes on with them."""
    plain, steps = drawn(Adder(regions))
    assert steps == list(range(1, 31))
    decoder, capture = Adder(regions), CpuCapture()
    replayed, steps = drawn(decoder, capture)
    assert torch.equal(replayed, plain)
    assert [work.replays for work in capture.captured] == replays
    assert steps == counts
    assert decoder.index == GRID.size


def test_a_number_of_the_hosts_is_not_replayed() -> None:
    """The stand-in finds decoding that would go wrong on a GPU: a capture keeps the row that it was made in."""
    regions = [CaptureRegion(6, 5)]
    plain, _ = drawn(Adder(regions, mistaken=True))
    replayed, _ = drawn(Adder(regions, mistaken=True), CpuCapture())
    assert torch.equal(replayed[:, :12], plain[:, :12])
    assert not torch.equal(replayed[:, 12:18], plain[:, 12:18])


def test_where_nothing_can_be_captured_decoding_begins_anew() -> None:
    """With a warning, and another decoder, to the symbols of plain decoding."""
    plan = SamplingPlan.of(GRID, 2, generator=torch.Generator().manual_seed(0))
    sequence, asked = torch.full((2, GRID.size), -1), []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise CannotCaptureError("no graphs here")

    def make_decoder(captured: bool) -> Decoder:
        asked.append(captured)
        return Adder([CaptureRegion(6, 5)])

    with pytest.warns(UserWarning, match="no graphs here"):
        counts = list(decode(make_decoder, plan, sequence, refuse))
    assert torch.equal(sequence, drawn(Adder([]))[0])
    assert counts == [6, *range(1, 31)]
    assert asked == [True, False]


def test_a_step_of_several_positions_draws_what_the_plan_says() -> None:
    """Symbol i is drawn from logits i with noise i, whatever the order; known symbols stay; the count adds up."""
    grid = Grid(3, 5, 2, 4)
    known = torch.zeros(3, *grid.shape, dtype=torch.int64)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[1, 2:4] = True
    for sampling in (Sampling(0.7, top_p=0.9), Sampling(noise="gumbel")):
        generator = torch.Generator().manual_seed(1)
        plan = SamplingPlan.of(grid, 3, sampling=sampling, known=known, mask=mask, generator=generator)
        decoder, sequence = Scripted(grid, 3, wavefront_order(grid, 1)), torch.full((3, grid.size), -1)
        counts = list(decode(lambda captured, decoder=decoder: decoder, plan, sequence))
        assert torch.equal(sequence, plan.draw(decoder.table, slice(None)))
        assert counts == torch.tensor([len(positions) for positions in decoder.steps]).cumsum(0).tolist()


def test_captured_steps_may_have_several_positions() -> None:
    """Every period draws the positions of its own steps, in any order."""
    grid = Grid(1, 4, 6, 5)
    order = torch.randperm(grid.size, generator=torch.Generator().manual_seed(0))
    steps = list(order.split([2, 3, 1] * 4))

    class Fixed(Scripted):
        """Reads its positions from a tensor, as a decoder has to that is captured."""

        def capture_regions(self) -> list[CaptureRegion]:
            self.cursor = torch.zeros(1, dtype=torch.int64)
            return [CaptureRegion(3, 4)]

        def _logits(self) -> Tensor:
            count = len(self.steps[self.index])
            positions = order.index_select(0, self.cursor + torch.arange(count))
            return self.table.index_select(1, positions)

        def _advance(self, symbols: Tensor) -> None:
            self.cursor.add_(symbols.shape[1])

    plan = SamplingPlan.of(grid, 2, generator=torch.Generator().manual_seed(1))
    decoder, sequence, capture = Fixed(grid, 2, steps), torch.full((2, grid.size), -1), CpuCapture()
    assert list(decode(lambda captured: decoder, plan, sequence, capture)) == [6, 12, 18, 24]
    assert torch.equal(sequence, plan.draw(decoder.table, slice(None)))
    assert [work.replays for work in capture.captured] == [3]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(noise="gumbel")], ids=str)
@pytest.mark.parametrize("captured", [False, True])
def test_logits_that_are_not_finite_end_it(broken: float, sampling: Sampling, captured: bool) -> None:
    """In one line, however a symbol is drawn, and whichever symbol it is; the decoder never gets one that is none."""
    plan = SamplingPlan.of(GRID, 2, sampling=sampling, generator=torch.Generator().manual_seed(0))
    for position in (0, 17, GRID.size - 1):
        decoder = Scripted(GRID, 2, raster_order(GRID))
        decoder.table[1, position, 3] = broken
        sequence = torch.full((2, GRID.size), -1)
        with pytest.raises(NonFiniteError, match="logits are NaN or infinite"):
            list(decode(lambda captured, d=decoder: d, plan, sequence, CpuCapture() if captured else None))
        assert (sequence >= GRID.levels).nonzero().tolist() == [[1, position]]
        assert len(decoder.given) == GRID.size


def test_masked_logits_are_finite_enough() -> None:
    """−inf for all symbols but one draws that one."""
    plan = SamplingPlan.of(GRID, 2, generator=torch.Generator().manual_seed(0))
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(noise="gumbel"), Sampling(0.5, 2, 0.9)):
        plan = SamplingPlan.of(GRID, 2, sampling=sampling, generator=torch.Generator().manual_seed(0))
        decoder, sequence = Scripted(GRID, 2, raster_order(GRID)), torch.full((2, GRID.size), -1)
        decoder.table[:, :, :5] = -torch.inf
        decoder.table[:, :, 6:] = -torch.inf
        list(decode(lambda captured, d=decoder: d, plan, sequence))
        assert (sequence == 5).all()


def test_a_capture_does_nothing_until_it_is_replayed() -> None:
    """As the capture of a CUDA graph: old contents stay, new tensors hold garbage, replays work in place."""
    kept, seen = torch.arange(6.0), []

    def work() -> None:
        seen.append(kept[2:] * 2)
        kept[:4] += seen[0]
        torch.add(kept[4:], 1, out=kept[4:])

    replay = CpuCapture()(work)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert seen[0].tolist() != [4, 6, 8, 10]
    replay()
    assert seen[0].tolist() == [4, 6, 8, 10]
    assert kept.tolist() == [4, 7, 10, 13, 5, 6]
    replay()
    assert seen[0].tolist() == [20, 26, 10, 12]


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 1).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: x.add_(torch.tensor([1.0, 2.0, 3.0])),
        lambda x: x.index_put_((x > 1,), x.sum()),
    ],
    ids=["item", "branch", "nonzero", "mask", "host tensor", "mask put"],
)
def test_what_waits_for_the_device_is_refused(work) -> None:
    with pytest.raises(AssertionError, match="in a capture"):
        CpuCapture()(lambda: work(torch.arange(3.0)))


def test_the_naive_decoder_is_never_captured() -> None:
    """Nothing of it repeats on the same tensors."""
    from pixel_baselines.pixelcnn.model import PixelCNN
    from pixel_baselines.pixelcnn.network import PixelCNNConfig

    model = randomized(PixelCNN(PixelCNNConfig(grid=GRID, classes=CLASSES, width=8, blocks=1)))
    capture = CpuCapture()
    drawn(NaiveDecoder(model, 2, Condition(torch.tensor([0, 1]))), capture)
    assert not capture.captured
    with capturing() as capture:
        model.sample(2, capture=False)
        assert not capture.captured
        model.sample(2)
        assert len(capture.captured) == 1


def test_nothing_is_captured_but_on_cuda() -> None:
    """On a CPU a graph would save nothing."""
    assert capture_on(torch.device("cpu")) is None
