"""Both caches give the attention of the equation, whatever their memory held before."""

from __future__ import annotations

import pytest
import torch

from rasterwise.decoding import kv_cache as attention_cache
from rasterwise.decoding.decoder import Stretch
from rasterwise.decoding.kv_cache import AttentionCache, BucketedCache
from tests.recording import Recorder

DEPTH, ROWS, SITES, WIDTH = 2, 3, 10, 4


def random_sites() -> tuple[torch.Tensor, torch.Tensor]:
    """Queries ``(N, depth, R, 1, h)``, and keys and values ``(N, depth, 2, R, h)``."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(SITES, DEPTH, ROWS, 1, WIDTH, dtype=torch.float64, generator=generator)
    return queries, torch.randn(SITES, DEPTH, 2, ROWS, WIDTH, dtype=torch.float64, generator=generator)


def expected_mix(queries: torch.Tensor, entries: torch.Tensor, site: int, layer: int) -> torch.Tensor:
    keys, values = entries[: site + 1, layer].unbind(1)
    weights = torch.einsum("rh,nrh->rn", queries[site, layer, :, 0], keys).softmax(-1)
    return torch.einsum("rn,nrh->rh", weights, values)


@pytest.mark.parametrize("bucket", [0, 1, 4, 5, 64])  # 0: the growing cache
def test_attention_is_that_of_the_sites_so_far(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cache, "BUCKET", bucket)
    memory = torch.full((DEPTH, 2, ROWS, SITES, WIDTH), torch.nan, dtype=torch.float64)
    cache = BucketedCache(memory) if bucket else AttentionCache(memory)
    queries, entries = random_sites()
    mixed = torch.empty(ROWS, 1, WIDTH, dtype=torch.float64)
    for site in range(SITES):
        cache.go_to(site)
        assert cache.row_of(torch.arange(SITES)).item() == site
        for layer in range(DEPTH):
            cache.attend(layer, queries[site, layer], entries[site, layer], mixed)
            torch.testing.assert_close(mixed[:, 0], expected_mix(queries, entries, site, layer))


def test_a_site_of_a_bucket_stands_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one site does, recorded, is what the next ones of its bucket do."""
    monkeypatch.setattr(attention_cache, "BUCKET", 4)
    cache = BucketedCache(torch.empty(DEPTH, 2, ROWS, SITES, WIDTH, dtype=torch.float64))
    assert cache.stretches == [Stretch(1, 4), Stretch(1, 4), Stretch(1, 2)]
    queries, entries = random_sites()
    query, entry = torch.empty_like(queries[0]), torch.empty_like(entries[0])
    mixed = torch.empty(DEPTH, ROWS, 1, WIDTH, dtype=torch.float64)

    def enter(site: int) -> None:
        cache.go_to(site)
        for layer in range(DEPTH):
            cache.attend(layer, query[layer], entry[layer], mixed[layer])

    for start, (_, sites) in zip((0, 4, 8), cache.stretches, strict=True):
        replay = Recorder()(lambda start=start: enter(start))
        for site in range(start, start + sites):
            query.copy_(queries[site])
            entry.copy_(entries[site])
            replay()
            for layer in range(DEPTH):
                expected = expected_mix(queries, entries, site, layer)
                torch.testing.assert_close(mixed[layer, :, 0], expected)
