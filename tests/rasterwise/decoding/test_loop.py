"""What is recorded once and replayed draws what is drawn step by step; the stand-in for a CUDA graph is strict."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.cuda_graph import CannotRecordError, recorder_for
from rasterwise.decoding.decoder import Decoder, Stretch
from rasterwise.decoding.loop import walk, walk_to_the_end
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import CLASSES, randomized
from tests.recording import Recorder, replaying

GRID = Grid(2, 5, 3, 7)


class Adder(Decoder):
    """A symbol is the sum, modulo K, of all before it and of the row that a mistaken one takes from the host."""

    def __init__(self, stretches: list[Stretch], mistaken: bool = False) -> None:
        super().__init__(GRID, 2)
        self.stretches, self.mistaken = stretches, mistaken
        self.sums = torch.ones(2, dtype=torch.int64)
        self.row = torch.zeros(1, dtype=torch.int64)
        self.rows = torch.eye(GRID.levels).log()

    def for_replay(self) -> list[Stretch]:
        return self.stretches

    def _logits(self) -> Tensor:
        row = self.index // 6 if self.mistaken else self.row
        return self.rows[(self.sums + row) % GRID.levels]

    def _push(self, symbols: Tensor) -> None:
        self.sums.add_(symbols)
        if self.index % 6 == 5:
            self.row.add_(1)


def drawn(decoder: Decoder, recorder: Recorder | None = None) -> tuple[Tensor, list[int]]:
    sequence = torch.full((decoder.batch_size, GRID.size), -1)
    plan = SamplingPlan.of(GRID, decoder.batch_size, generator=torch.Generator().manual_seed(0))
    return sequence, list(walk(decoder, plan, sequence, recorder))


@pytest.mark.parametrize(
    ("stretches", "replays", "counts"),
    [
        ([Stretch(6, 5)], [4], [6, 12, 18, 24, 30]),
        ([Stretch(6, 1), Stretch(6, 4)], [3], [6, 12, 18, 24, 30]),
        ([Stretch(12, 2), *[Stretch(6, 1)] * 1], [1], [12, 24, 30]),
        ([Stretch(6, 2), Stretch(6, 3), Stretch(6, 0)], [1, 2], [6, 12, 18, 24, 30]),
        ([Stretch(1, 1)] * 30, [], list(range(1, 31))),
    ],
    ids=str,
)
def test_every_stretch_is_recorded_once(
    stretches: list[Stretch], replays: list[int], counts: list[int]
) -> None:
    """Its first period is done as it is, the others are replays; the count goes on with them."""
    plain, steps = drawn(Adder(stretches))
    assert steps == list(range(1, 31))
    decoder, recorder = Adder(stretches), Recorder()
    replayed, steps = drawn(decoder, recorder)
    assert torch.equal(replayed, plain)
    assert [recording.replays for recording in recorder.recordings] == replays
    assert steps == counts
    assert decoder.index == GRID.size


def test_a_number_of_the_hosts_is_not_replayed() -> None:
    """The stand-in tells a walk that would go wrong on a GPU: its recording keeps the row that it was made in."""
    stretches = [Stretch(6, 5)]
    plain, _ = drawn(Adder(stretches, mistaken=True))
    replayed, _ = drawn(Adder(stretches, mistaken=True), Recorder())
    assert torch.equal(replayed[:, :12], plain[:, :12])
    assert not torch.equal(replayed[:, 12:18], plain[:, 12:18])


def test_where_recording_fails_the_walk_begins_anew() -> None:
    """With a warning, and another decoder, to the symbols of the plain walk."""
    plan = SamplingPlan.of(GRID, 2, generator=torch.Generator().manual_seed(0))
    counts: list[int] = []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise CannotRecordError("no graphs here")

    model = SimpleNamespace(sampling_decoder=lambda plan, recorded: Adder([Stretch(6, 5)]))
    with pytest.warns(UserWarning, match="no graphs here"):
        sequence = walk_to_the_end(model, plan, refuse, counts.append)  # type: ignore[arg-type]
    assert torch.equal(sequence, drawn(Adder([]))[0])
    assert counts == [6, *range(1, 31)]


def test_recording_does_nothing_until_it_is_replayed() -> None:
    """As the capture of a CUDA graph: old contents stay, new tensors hold garbage, replays work in place."""
    kept, seen = torch.arange(6.0), []

    def work() -> None:
        seen.append(kept[2:] * 2)
        kept[:4] += seen[0]
        torch.add(kept[4:], 1, out=kept[4:])

    replay = Recorder()(work)
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
    with pytest.raises(AssertionError, match="in a recording"):
        Recorder()(lambda: work(torch.arange(3.0)))


def test_the_naive_decoder_is_never_recorded() -> None:
    """Nothing of it repeats on the same tensors."""
    from pixel_baselines.pixelcnn.model import PixelCNN
    from pixel_baselines.pixelcnn.network import PixelCNNConfig

    model = randomized(PixelCNN(PixelCNNConfig(grid=GRID, classes=CLASSES, width=8, blocks=1)))
    naive = model.naive_decoder(2, Condition(torch.tensor([0, 1])))
    recorder = Recorder()
    drawn(naive, recorder)
    assert not recorder.recordings
    with replaying() as recorder:
        model.sample(2, replay=False)
        assert not recorder.recordings
        model.sample(2)
        assert len(recorder.recordings) == 1


def test_nothing_is_recorded_but_on_cuda() -> None:
    assert recorder_for(torch.device("cpu")) is None
