"""Facts of the machine: those that every figure stands beside."""

from __future__ import annotations

import json

import torch

from rasterwise.measure.machine import machine_facts


def test_facts_go_into_json() -> None:
    facts = machine_facts(torch.device("cpu"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu"
    assert facts["torch"] == torch.__version__
    assert facts["memory_bytes"] > 2**28
    assert facts["cpu_cores_usable"] >= 1
