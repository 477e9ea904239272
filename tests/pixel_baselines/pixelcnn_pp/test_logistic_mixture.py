"""The mixture is a proper distribution over whole sites, and its channel-wise conditionals are exact."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pixel_baselines.pixelcnn_pp.logistic_mixture import LogisticMixture, MixtureDecoder, every_level_log_prob
from rasterwise.errors import InputError
from rasterwise.symbols.likelihoods import discretized_logistic_log_prob

SCALES = (0.3, 3.0, 30.0, 1000.0)
"""Standard deviations of random parameters; the last are far outside of what a network gives."""


def random_raw(
    mixture: LogisticMixture, sites: int, scale: float, dtype: torch.dtype = torch.float64
) -> Tensor:
    return torch.randn(sites, mixture.parameter_count, dtype=torch.float64).mul(scale).to(dtype)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("levels", [2, 5, 256, 1024])
def test_every_conditional_is_normalised(levels: int, channels: int, scale: float) -> None:
    """Each channel's K log-probabilities sum to 1, whatever the parameters and the earlier channels."""
    mixture = LogisticMixture(channels, levels, 4)
    symbols = torch.randint(levels, (20, channels))
    logits = mixture.logits(random_raw(mixture, 20, scale), mixture.values(symbols, torch.float64))
    assert logits.shape == (20, channels, levels)
    assert logits.isfinite().all()
    assert (logits.exp().sum(-1) - 1).abs().max() < 1e-9


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_sites_are_normalised(channels: int, scale: float) -> None:
    """The direct log-probabilities of all K^C sites sum to 1."""
    mixture = LogisticMixture(channels, 6, 3)
    sites = torch.tensor(list(itertools.product(range(6), repeat=channels)))
    raw = random_raw(mixture, 1, scale).expand(len(sites), -1)
    assert mixture.log_prob(raw, sites).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_direct_and_conditional_agree(channels: int, levels: int) -> None:
    """log p(r, g, b) is log p(r) + log p(g | r) + log p(b | r, g), to 1e-10."""
    mixture = LogisticMixture(channels, levels, 5)
    raw, symbols = random_raw(mixture, 200, 2.0), torch.randint(levels, (200, channels))
    logits = mixture.logits(raw, mixture.values(symbols, torch.float64))
    chained = logits.gather(-1, symbols[..., None])[..., 0].sum(-1)
    assert (mixture.log_prob(raw, symbols) - chained).abs().max() < 1e-10


def test_conditionals_are_those_of_the_summed_joint() -> None:
    """p(g | r) and p(b | r, g) come out of the table of all sites by summing and dividing."""
    mixture, levels = LogisticMixture(3, 7, 3), 7
    raw = random_raw(mixture, 1, 2.0)
    sites = torch.tensor(list(itertools.product(range(levels), repeat=3)))
    joint = mixture.log_prob(raw.expand(len(sites), -1), sites).exp().view(levels, levels, levels)
    for r, g in itertools.product(range(levels), repeat=2):
        values = mixture.values(torch.tensor([[r, g, 0]]), torch.float64)
        of_r, of_g, of_b = mixture.logits(raw, values)[0].exp()
        assert torch.allclose(of_r, joint.sum((1, 2)), rtol=0, atol=1e-12)
        assert torch.allclose(of_g, joint[r].sum(1) / joint[r].sum(), rtol=1e-9, atol=0)
        assert torch.allclose(of_b, joint[r, g] / joint[r, g].sum(), rtol=1e-9, atol=0)


def test_is_the_papers_mixture() -> None:
    """For moderate parameters it is Σ π Π (σ(b) − σ(a)) with the paper's means, written out anew."""
    mixture, levels = LogisticMixture(3, 16, 3), 16
    raw, symbols = random_raw(mixture, 50, 0.5), torch.randint(16, (50, 3))
    weights, means, log_scales, coefficients = raw.view(50, 10, 3).split((1, 3, 3, 3), 1)
    r, g, b = (symbols.double() / 7.5 - 1)[..., None].unbind(1)
    c = coefficients.tanh()
    centres = (means[:, 0], means[:, 1] + c[:, 0] * r, means[:, 2] + c[:, 1] * r + c[:, 2] * g)
    total = weights[:, 0].softmax(-1)
    for channel, (x, centre) in enumerate(zip((r, g, b), centres, strict=True)):
        symbol, scale = symbols[:, channel, None], log_scales[:, channel].exp()
        upper = torch.sigmoid((x + 1 / 15 - centre) / scale).masked_fill(symbol == levels - 1, 1)
        lower = torch.sigmoid((x - 1 / 15 - centre) / scale).masked_fill(symbol == 0, 0)
        total = total * (upper - lower)
    assert torch.allclose(mixture.log_prob(raw, symbols), total.sum(-1).log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_inside_autocast(dtype: torch.dtype) -> None:
    """Parameters in half precision give the nats of the same parameters in float32, bit for bit."""
    mixture = LogisticMixture(3, 16, 2)
    raw = torch.randn(2, 3, 4, mixture.parameter_count).to(dtype)
    symbols = torch.randint(16, (2, 3, 4, 3))
    with torch.autocast("cpu", dtype=dtype):
        nats = mixture.log_prob(raw, symbols)
    assert nats.dtype == torch.float32
    assert torch.equal(nats, mixture.log_prob(raw.float(), symbols))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite(dtype: torch.dtype, scale: float) -> None:
    """Also for extreme parameters and the first and last levels, of the direct and the conditional way."""
    mixture = LogisticMixture(3, 256, 4)
    symbols = torch.randint(256, (64, 3))
    symbols[:16], symbols[16:32] = 0, 255
    raw = random_raw(mixture, 64, scale, dtype).requires_grad_()
    direct = mixture.log_prob(raw, symbols)
    conditional = mixture.logits(raw, mixture.values(symbols, dtype)).gather(-1, symbols[..., None])
    for nats in (direct, conditional):
        (gradient,) = torch.autograd.grad(nats.sum(), raw)
        assert nats.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_every_level_is_each_level(levels: int) -> None:
    """All levels at once are what one at a time gives, for extreme parameters too."""
    mean = torch.tensor([-50.0, -1.0, 0.0, 0.3, 1.0, 50.0], dtype=torch.float64)[:, None]
    log_scale = torch.tensor([-1000.0, -7.0, 0.0, 7.0, 1000.0], dtype=torch.float64).expand(6, -1)
    mean = mean.expand_as(log_scale)
    symbols = torch.arange(levels).expand(6, 5, -1)
    each = discretized_logistic_log_prob(mean[..., None], log_scale[..., None], symbols, levels)
    assert torch.allclose(every_level_log_prob(mean, log_scale, levels), each, rtol=1e-12, atol=1e-12)


def test_channels_may_be_given_unseen() -> None:
    """Advancing without asking for logits ends at the same distribution."""
    mixture = LogisticMixture(3, 256, 4)
    raw, symbols = random_raw(mixture, 10, 2.0), torch.randint(256, (10, 3))
    values = mixture.values(symbols, torch.float64)
    decoder = MixtureDecoder(mixture, raw)
    decoder.advance(values[:, 0])
    decoder.advance(values[:, 1])
    assert torch.allclose(decoder.logits(), mixture.logits(raw, values)[:, 2], rtol=0, atol=1e-10)


def test_a_batch_is_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounding the memory changes no result and no shape."""
    mixture = LogisticMixture(3, 16, 2)
    raw = random_raw(mixture, 24, 1.0).view(2, 3, 4, -1)
    values = mixture.values(torch.randint(16, (2, 3, 4, 3)), torch.float64)
    whole = mixture.logits(raw, values)
    monkeypatch.setattr("pixel_baselines.pixelcnn_pp.logistic_mixture.ELEMENTS_AT_ONCE", 5 * 32)
    assert torch.allclose(mixture.logits(raw, values), whole, rtol=0, atol=1e-14)
    assert whole.shape == (2, 3, 4, 3, 16)


@pytest.mark.parametrize("levels", [2, 3, 255, 256, 4096])
def test_symbols_survive_their_values(levels: int) -> None:
    """Symbols to float32 values and back are the same symbols."""
    mixture = LogisticMixture(1, levels, 1)
    symbols = torch.arange(levels)
    assert torch.equal(mixture.symbols(mixture.values(symbols)), symbols)


@pytest.mark.parametrize("levels", [2, 256, 4096])
def test_one_level_can_take_it_all(levels: int) -> None:
    """The floor under the scale leaves more than 0.8 of the mass to a level in the middle or at an end."""
    mixture = LogisticMixture(1, levels, 1)
    for symbol in (0, levels // 2, levels - 1):
        mean = float(mixture.values(torch.tensor(symbol))) * (1 if levels > 2 else 2)
        nats = mixture.log_prob(torch.tensor([0.0, mean, -1e4]), torch.tensor([symbol]))
        assert nats.exp() > 0.8


def test_needs_a_component() -> None:
    with pytest.raises(InputError, match="components is 0"):
        LogisticMixture(1, 2, 0)
