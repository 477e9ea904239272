"""Facts of the machine: those that every figure stands beside."""

from __future__ import annotations

import json

import torch

from rasterwise.measure.machine import INSTRUCTION_SETS, device_name, machine_facts


def test_facts_go_into_json() -> None:
    facts = machine_facts(torch.device("cpu"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu"
    assert facts["torch"] == torch.__version__
    assert facts["memory_bytes"] > 2**28
    assert facts["cpu_cores_usable"] >= 1
    assert len(facts["cpu_family_and_model"]) == 2
    assert set(facts["cpu_instruction_sets"]) <= INSTRUCTION_SETS


def test_a_cpu_is_named_by_the_threads_that_torch_uses() -> None:
    """Which are fewer than its cores where torch was told so."""
    before = torch.get_num_threads()
    try:
        for threads, name in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
            torch.set_num_threads(threads)
            assert device_name(torch.device("cpu")) == name
    finally:
        torch.set_num_threads(before)
