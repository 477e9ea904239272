"""Both caches give the attention of the equation, whatever their memory held before."""

from __future__ import annotations

import pytest
import torch

from rasterwise.decoding import kv_cache
from rasterwise.decoding.decoder import CaptureRegion
from rasterwise.decoding.kv_cache import BucketedKVCache, KVCache
from tests.capturing import CpuCapture

DEPTH, ROWS, POSITIONS, WIDTH = 2, 3, 10, 4


def random_positions() -> tuple[torch.Tensor, torch.Tensor]:
    """Queries ``(N, depth, R, 1, h)``, and keys and values ``(N, depth, 2, R, h)``."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(POSITIONS, DEPTH, ROWS, 1, WIDTH, dtype=torch.float64, generator=generator)
    return queries, torch.randn(POSITIONS, DEPTH, 2, ROWS, WIDTH, dtype=torch.float64, generator=generator)


def joined(query: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
    return torch.cat([query, entry.transpose(0, 1)], 1)


def expected_mix(queries: torch.Tensor, entries: torch.Tensor, position: int, layer: int) -> torch.Tensor:
    keys, values = entries[: position + 1, layer].unbind(1)
    weights = torch.einsum("rh,nrh->rn", queries[position, layer, :, 0], keys).softmax(-1)
    return torch.einsum("rn,nrh->rh", weights, values)


@pytest.mark.parametrize("bucket", [0, 1, 4, 5, 64])  # 0: the growing cache
def test_attention_is_that_of_the_positions_so_far(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "BUCKET", bucket)
    memory = torch.full((DEPTH, 2, ROWS, POSITIONS, WIDTH), torch.nan, dtype=torch.float64)
    cache = BucketedKVCache(memory) if bucket else KVCache(memory)
    queries, entries = random_positions()
    for position in range(POSITIONS):
        cache.go_to(position)
        assert cache.row_of(torch.arange(POSITIONS)).item() == position
        for layer in range(DEPTH):
            mixed = cache.attend(layer, joined(queries[position, layer], entries[position, layer]))
            torch.testing.assert_close(mixed[:, 0], expected_mix(queries, entries, position, layer))


def test_a_position_of_a_bucket_stands_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one position does, captured, is what the next ones of its bucket do."""
    monkeypatch.setattr(kv_cache, "BUCKET", 4)
    cache = BucketedKVCache(torch.empty(DEPTH, 2, ROWS, POSITIONS, WIDTH, dtype=torch.float64))
    assert cache.regions == [CaptureRegion(1, 4), CaptureRegion(1, 4), CaptureRegion(1, 2)]
    queries, entries = random_positions()
    query, entry = torch.empty_like(queries[0]), torch.empty_like(entries[0])
    mixed = torch.empty(DEPTH, ROWS, 1, WIDTH, dtype=torch.float64)

    def enter(position: int) -> None:
        cache.go_to(position)
        for layer in range(DEPTH):
            mixed[layer].copy_(cache.attend(layer, joined(query[layer], entry[layer])))

    for start, (_, repeats) in zip((0, 4, 8), cache.regions, strict=True):
        replay = CpuCapture()(lambda start=start: enter(start))
        for position in range(start, start + repeats):
            query.copy_(queries[position])
            entry.copy_(entries[position])
            replay()
            for layer in range(DEPTH):
                expected = expected_mix(queries, entries, position, layer)
                torch.testing.assert_close(mixed[layer, :, 0], expected)
