"""The search in a codebook, and its moving averages where a batch has fewer latents than there are codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantizers import codebook
from stage1_vqvae.quantizers.codebook import MovingAverageCodebook, nearest_codes


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def book(size: int, width: int = 4, *, normalised: bool = False) -> MovingAverageCodebook:
    return MovingAverageCodebook(size, width, decay=0.9, dead_code_threshold=1.0, normalised=normalised)


def by_brute_force(latents: Tensor, codes: Tensor) -> Tensor:
    return (latents.double()[:, None] - codes.double()[None]).square().sum(2).argmin(1)


@pytest.mark.parametrize("scale", [1.0, 3e-5, 1e-8, 1e6])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_the_nearest_code_at_every_scale(scale: float, offset: float) -> None:
    """That of brute force in float64: also at 3e-5, where squared distances are 1e-9, and far from the origin."""
    latents, codes = (scale * (normal(count, 8, seed=count) + offset) for count in (500, 64))
    assert torch.equal(nearest_codes(latents, codes), by_brute_force(latents, codes))


def test_the_search_in_parts_is_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few distances are held at once, and whatever the shape of the latents."""
    latents, codes = normal(3, 5, 7, 4), normal(11, 4, seed=1)
    whole = nearest_codes(latents, codes)
    assert whole.shape == (3, 5, 7)
    monkeypatch.setattr(codebook, "DISTANCES_AT_ONCE", 25)
    assert torch.equal(nearest_codes(latents, codes), whole)


def test_a_codebook_starts_and_learns_alike_at_every_scale() -> None:
    """Latents of scale 3e-5 give the codebook of those of scale 1, smaller by that power of two, bit for bit."""
    found = []
    for scale in (1.0, 2.0**-15):
        torch.manual_seed(4)
        one = book(12)
        latents = scale * normal(200, 4)
        one.start(latents)
        for _ in range(3):
            one.learn(latents, nearest_codes(latents, one.vectors), more_to_come=False)
        found.append(one.vectors / scale)
    assert torch.equal(*found)


@pytest.mark.parametrize("normalised", [False, True])
def test_a_start_with_fewer_latents_than_codes(normalised: bool) -> None:
    """Every latent becomes a code, the other codes are renewed by the next batches, and all are different at last."""
    found = book(64, normalised=normalised)
    latents = found.transform_input(normal(20, 4))
    found.start(latents)
    assert torch.isfinite(found.vectors).all()
    assert len(nearest_codes(latents, found.vectors).unique()) == 20
    for seed in range(1, 8):
        latents = found.transform_input(normal(20, 4, seed=seed))
        found.learn(latents, nearest_codes(latents, found.vectors), more_to_come=False)
    assert len(found.vectors.unique(dim=0)) == 64
    if normalised:
        torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(64))


def test_more_codes_than_latents_are_not_renewed_all_the_time() -> None:
    """A code that is used as often as the others stays, though no code is used once a batch."""
    torch.manual_seed(0)
    found = book(64)
    found.start(normal(64, 4))
    before = found.vectors.clone()
    for part in range(100):  # each code is used every fourth batch
        codes = torch.arange(64)[part % 4 :: 4]
        found.learn(before[codes], codes, more_to_come=False)
    torch.testing.assert_close(found.vectors, before, rtol=0, atol=1e-3)


def test_a_code_without_use_is_renewed() -> None:
    """One of few that nothing is near becomes a latent of the batch."""
    found = book(4)
    latents = normal(100, 4)
    found.start(latents)
    found.embed[0, 2] = 1000.0
    found.embed_avg[0, 2] = 1000.0 * found.cluster_size[0, 2]
    for _ in range(60):
        found.learn(latents, nearest_codes(latents, found.vectors), more_to_come=False)
    assert found.vectors.abs().max() < 10
    assert len(nearest_codes(latents, found.vectors).unique()) == 4
