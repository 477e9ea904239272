"""The transformer prior: the shared suite, its positions, and transformers' own generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.sampling import as_llama
from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from stage2_prior import TransformerPrior, TransformerPriorConfig
from stage2_prior.transformer.rotary import GridRotaryEmbedding
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    random_condition,
    random_symbols,
    randomized,
)


class TestTransformerPrior(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> TransformerPrior:
        return small(grid, classes)


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> TransformerPrior:
    sizes = {"depth": 2, "width": 24, "heads": 2, **changes}
    return TransformerPrior(TransformerPriorConfig(grid=grid, classes=classes, **sizes))


def test_greedy_sampling_is_transformers_generation() -> None:
    """In transformers' Llama, ``generate`` from the start vector gives the same codes."""
    grid = Grid(1, 4, 5, 11)
    model = randomized(small(grid))
    ours = grid.flatten(model.sample(1, sampling=Sampling(temperature=0)))
    start = model.start(model.class_index(None, 1))[:, None]
    theirs = as_llama(model).generate(inputs_embeds=start, max_new_tokens=grid.size, do_sample=False)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "grid", [Grid(1, 3, 4, 2), Grid(2, 2, 3, 2), Grid(1, 1, 5, 2), Grid(3, 4, 4, 2)], ids=str
)
def test_attention_sees_differences_of_coordinates_alone(grid: Grid) -> None:
    """A rotated query meets a rotated key by their offset in row, column and channel, wherever they are."""
    rotary = GridRotaryEmbedding(grid, 12)
    positions = torch.arange(grid.size)[None]
    cos, sin = rotary(torch.zeros(1, dtype=torch.float64), positions)
    query, key = torch.randn(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-x[6:], x[:6]])
        return x * cos[0] + half * sin[0]

    scores = rotated(query) @ rotated(key).T
    by_offset: dict[tuple[int, ...], float] = {}
    for i in range(grid.size):
        for j in range(grid.size):
            offset = tuple(a - b for a, b in zip(grid.site(i), grid.site(j), strict=True))
            assert scores[i, j].item() == pytest.approx(
                by_offset.setdefault(offset, scores[i, j].item()), abs=1e-9
            )
    assert len({round(score, 9) for score in by_offset.values()}) == len(by_offset)


def test_half_precision_keeps_its_positions() -> None:
    """A model cast to bfloat16 rotates by exact angles, not by rounded ones."""
    rotary = GridRotaryEmbedding(Grid(1, 16, 16, 2), 8)
    before = rotary.angles.clone()
    assert torch.equal(rotary.to(torch.bfloat16).angles, before)


def test_refusals() -> None:
    """Widths that heads do not divide, and impossible dropout."""
    with pytest.raises(InputError, match="no multiple of 2 × 5 heads"):
        TransformerPriorConfig(width=64, heads=5)
    with pytest.raises(InputError, match="dropout"):
        TransformerPriorConfig(dropout=1.0)


# ---------------------------------------------------------------------------- the cached decoder


def teacher_forced(model: TransformerPrior, symbols: torch.Tensor, *condition: Any) -> torch.Tensor:
    """Logits of all sites in raster order, ``(B, N, K)``."""
    with torch.no_grad():
        return model.grid.flatten(model(symbols, *condition))


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 1, "heads": 1},
        {"heads": 3, "mlp_width": 7},
        {"heads": 12, "mlp_width": 100},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_every_architecture_is_decoded(changes: dict[str, Any]) -> None:
    """Whatever the heads and the widths, cached logits are the teacher-forced ones; none of them changes later."""
    grid = Grid(1, 3, 5, 7)
    model, symbols = randomized(small(grid, **changes)), random_symbols(grid, 3)
    assert (decoded_logits(model.decoder(3), symbols) - teacher_forced(model, symbols)).abs().max() < 1e-10


def test_decoder_needs_not_be_asked() -> None:
    """Symbols that are given unseen count in later ones all the same; asking for logits twice changes nothing."""
    grid = Grid(1, 3, 4, 5)
    model = randomized(small(grid))
    symbols = random_symbols(grid, 2)
    expected, decoder = teacher_forced(model, symbols), model.decoder(2)
    for index, column in enumerate(grid.flatten(symbols).unbind(1)):
        for _ in range(index % 3):  # not at all, once, twice
            assert (decoder.logits()[:, 0] - expected[:, index]).abs().max() < 1e-10
        decoder.advance(column[:, None])


@pytest.mark.parametrize("bucket", [1, 5, 64])
def test_decoder_in_buckets_is_naive(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made ready for a capture, where a position reads its whole bucket, logits are the teacher-forced ones."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", bucket)
    grid = Grid(3, 3, 4, 8)
    model, symbols = randomized(small(grid)), random_symbols(grid, 3)
    expected = teacher_forced(model, symbols)
    decoder = model.decoder(3)
    assert sum(region.repeats for region in decoder.capture_regions()) == grid.size
    assert (decoded_logits(decoder, symbols) - expected).abs().max() < 1e-10


def test_decoders_of_one_model_are_apart() -> None:
    """Two decoders that alternate, with other symbols, labels and batch sizes, do not meet."""
    grid = Grid(1, 3, 4, 5)
    model = randomized(small(grid, CLASSES))
    decoders = []
    for batch_size, condition in ((2, None), (3, random_condition(3))):
        symbols = random_symbols(grid, batch_size, seed=batch_size)
        expected = teacher_forced(model, symbols, condition)
        decoders.append((model.decoder(batch_size, condition), grid.flatten(symbols), expected))
    for index in range(grid.size):
        for decoder, symbols, expected in decoders:
            assert (decoder.logits()[:, 0] - expected[:, index]).abs().max() < 1e-10
            decoder.advance(symbols[:, index, None])


def test_a_decoder_keeps_the_weights_that_it_began_with() -> None:
    """Training the model meanwhile leaves a decoder as it was."""
    grid = Grid(1, 3, 4, 5)
    model, symbols = randomized(small(grid)), random_symbols(grid, 2)
    expected, decoder = teacher_forced(model, symbols), model.decoder(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(1)
    assert not torch.allclose(teacher_forced(model, symbols), expected)
    assert (decoded_logits(decoder, symbols) - expected).abs().max() < 1e-10


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)])
def test_low_precision_stays_near_the_exact(dtype: torch.dtype, factor: float) -> None:
    """Rounding takes cached logits about as far from the float64 ones as it takes the teacher-forced ones."""
    grid = Grid(1, 8, 8, 32)
    model, symbols = randomized(small(grid, width=48, depth=4), 0.05).to(dtype), random_symbols(grid, 4)
    rounded = teacher_forced(model, symbols).double()
    cached = decoded_logits(model.decoder(4), symbols)
    assert cached.dtype == dtype
    exact = teacher_forced(model.double(), symbols)
    allowed = factor * (rounded - exact).square().mean().sqrt()
    assert 0 < (cached.double() - exact).square().mean().sqrt() < allowed


def buffers_of(holder: Any) -> Iterator[tuple[int, int]]:
    """The address of every tensor that an object holds, and the bytes that are kept for it."""
    for value in vars(holder).values() if hasattr(holder, "__dict__") else holder:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            yield storage.data_ptr(), storage.nbytes()
        elif isinstance(value, list | tuple | KVCache):
            yield from buffers_of(value)


def test_memory_does_not_grow() -> None:
    """All that a decoder keeps is there before its first symbol, and stays where it is; the cache is exact."""
    grid = Grid(1, 4, 4, 5)
    model = small(grid)
    decoder = model.decoder(3)
    before = set(buffers_of(decoder))
    for column in grid.flatten(random_symbols(grid, 3)).unbind(1):
        decoder.logits()
        decoder.advance(column[:, None])
        assert set(buffers_of(decoder)) == before
    (cache_bytes,) = {size for _, size in buffers_of([decoder.cache.keys, decoder.cache.values])}
    assert cache_bytes == 4 * 2 * 2 * 3 * grid.size * 24  # float32: depth · 2 · B · N · D numbers


class CountedOperations(TorchDispatchMode):
    """Counts the operations inside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.counts[str(function)] += 1
        return result


def test_every_site_costs_the_same_operations() -> None:
    """Positions do the same few operations from the first to the last."""
    grid = Grid(1, 4, 4, 101)
    decoder = small(grid).decoder(3)
    sites = []
    for column in grid.flatten(random_symbols(grid, 3)).unbind(1):
        with CountedOperations() as counted:
            decoder.logits()
            decoder.advance(column[:, None])
        sites.append(counted.counts)
    assert all(site == sites[0] for site in sites)
    products = ("mkldnn._linear_pointwise", "aten.mm.", "aten.addmm")
    assert sum(count for name, count in sites[0].items() if name.startswith(products)) == 2 * 5 + 1
