"""Batches: every item once an epoch, the same order for a seed, shared out between processes."""

from __future__ import annotations

import itertools

import torch

from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Batch, Split


def numbers(length: int = 10) -> Split:
    return tensor_split(torch.arange(length, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(length))


def drawn(batches: list[Batch]) -> list[list[int]]:
    return [batch.values.flatten().tolist() for batch in batches]


def take(count: int, batch_size: int = 4, **settings: int) -> list[list[int]]:
    return drawn(list(itertools.islice(numbers().shuffled(batch_size, **{"seed": 1, **settings}), count)))


def test_an_epoch_holds_every_item_once() -> None:
    """Also where the batch size does not divide it, and where a batch is larger than the data."""
    for batch_size in (3, 4, 25):
        stream = [n for batch in take(50, batch_size) for n in batch]
        for start in range(0, 50 * batch_size - 9, 10):
            assert sorted(stream[start : start + 10]) == list(range(10))


def test_order_depends_on_the_seed_alone_and_differs_by_epoch() -> None:
    """The same seed repeats, another differs, and so do two epochs."""
    assert take(5) == take(5)
    assert take(5) != take(5, seed=2)
    assert take(2, 10)[0] != take(2, 10)[1]


def test_a_resumed_stream_goes_on() -> None:
    """Starting at batch 7 gives what batch 7 would have been."""
    assert take(10)[7:] == take(3, start=7)


def test_processes_share_each_batch() -> None:
    """Two processes together see the batches that one process sees."""
    parts = zip(take(6, rank=0, world=2), take(6, rank=1, world=2), strict=True)
    assert [sorted(a + b) for a, b in parts] == [sorted(batch) for batch in take(6)]


def test_in_order_every_item_once() -> None:
    """Whatever the batch size and the number of processes; labels stay with their items."""
    for batch_size, world in itertools.product((1, 3, 64), (1, 2, 3)):
        batches = [
            batch for rank in range(world) for batch in numbers().ordered(batch_size, rank=rank, world=world)
        ]
        assert sorted(n for batch in drawn(batches) for n in batch) == list(range(10))
        for batch in batches:
            assert batch.labels is not None
            assert torch.equal(batch.values.flatten().long(), batch.labels)


def test_fingerprint_tells_data_apart() -> None:
    """A changed value, label, order or dtype is another split."""
    values, labels = torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(6)
    same = tensor_split(values.clone(), labels.clone()).fingerprint
    assert tensor_split(values, labels).fingerprint == same
    for changed in (
        tensor_split(values.flip(0), labels),
        tensor_split(values, labels.flip(0)),
        tensor_split(values),
        tensor_split(values.long(), labels),
        tensor_split(values.view(3, 2, 1, 1), labels),
    ):
        assert changed.fingerprint != same


def test_loading_leaves_the_random_state_alone() -> None:
    """A resumed run draws the same noise as one that was not stopped."""
    before = torch.get_rng_state()
    take(3)
    list(numbers().ordered(2))
    assert torch.equal(before, torch.get_rng_state())
