"""Model folders saved by an earlier version open, and give what they gave then.

``tests/fixtures`` holds one tiny folder of every model and tokenizer, written by commit da669d0, beside the
log-probabilities, samples, codes and images that it gave there. Floats are equal bit for bit on the processor
and the torch that wrote them, and to rounding elsewhere; whatever is a whole number is equal everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.models import open_model, open_tokenizer
from rasterwise import Condition, Sampling
from rasterwise.measure.machine import machine_facts

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
TENSORS = load_file(FIXTURES / "expected.safetensors")
MODELS = sorted(name.removesuffix(".log_prob") for name in TENSORS if name.endswith(".log_prob"))
TOKENIZERS = sorted(name.removesuffix(".codes") for name in TENSORS if name.endswith(".codes"))


@pytest.fixture(autouse=True)
def one_thread():  # type: ignore[no-untyped-def]
    """What the figures were computed with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_then(found: Tensor, name: str, tolerance: float) -> bool:
    expected = TENSORS[name]
    facts = machine_facts(torch.device("cpu"))
    if all(facts[key] == EXPECTED["machine"][key] for key in EXPECTED["machine"]):
        return torch.equal(found, expected)
    return torch.allclose(found, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_model_gives_what_it_gave(name: str) -> None:
    """Fingerprint, log-probabilities and samples, plain, guided and with Gumbel noise."""
    model = open_model(FIXTURES / name)
    assert model.fingerprint == EXPECTED["fingerprints"][name]
    assert model.trained_on == {"dataset": "digits"}
    symbols, condition = TENSORS[f"{name}.symbols"], Condition(torch.tensor([0, 1, -1, 1]))
    assert as_then(model.log_prob(symbols, condition), f"{name}.log_prob", 1e-5)
    for key, sampling in {
        "sample": Sampling(),
        "guided": Sampling(temperature=0.9, top_p=0.9, guidance=2.0),
    }.items():
        drawn = model.sample(
            4,
            Condition(torch.tensor([0, 1, 1, 0])),
            sampling=sampling,
            generator=torch.Generator().manual_seed(2),
        )
        assert torch.equal(drawn, TENSORS[f"{name}.{key}"]), key
    drawn = model.sample(4, sampling=Sampling(noise="gumbel"), generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, TENSORS[f"{name}.gumbel"])
    assert as_then(model.double().log_prob(symbols, condition), f"{name}.log_prob_float64", 1e-12)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_gives_what_it_gave(name: str) -> None:
    """Fingerprint, codes and decoded images."""
    tokenizer = open_tokenizer(FIXTURES / name)
    assert tokenizer.fingerprint == EXPECTED["fingerprints"][name]
    codes = tokenizer.encode(TENSORS["images"])
    assert torch.equal(codes, TENSORS[f"{name}.codes"])
    difference = tokenizer.decode(codes).int() - TENSORS[f"{name}.images"].int()
    assert difference.abs().max() <= 1  # of 255: half a level may round either way elsewhere
