"""Measuring: memory is that of the work alone, and a fresh process is one."""

from __future__ import annotations

import os

import pytest
import torch

from rasterwise.measure.timing import in_fresh_process, seconds_of, with_peak_memory

CPU = torch.device("cpu")
MEGABYTE = 2**20


def test_work_is_done_once_for_each_time_taken() -> None:
    done: list[int] = []
    assert seconds_of(lambda: done.append(1), CPU) > 0
    assert with_peak_memory(lambda: done.append(1), CPU).seconds > 0
    assert len(done) == 2


def test_peak_memory_sees_what_is_freed_before_the_work_ends() -> None:
    peak = with_peak_memory(lambda: torch.ones(64 * MEGABYTE, dtype=torch.uint8).sum(), CPU)
    assert peak.peak_bytes - peak.before_bytes > 60 * MEGABYTE


def test_peak_memory_is_not_that_of_earlier_work() -> None:
    with_peak_memory(lambda: torch.ones(160 * MEGABYTE, dtype=torch.uint8).sum(), CPU)
    peak = with_peak_memory(lambda: torch.ones(MEGABYTE, dtype=torch.uint8).sum(), CPU)
    if "alone" not in peak.method:
        pytest.skip(f"this system gives only the {peak.method}, and the method says so")
    assert peak.peak_bytes - peak.before_bytes < 64 * MEGABYTE


def test_a_fresh_process_has_the_threads_asked_for() -> None:
    threads = torch.get_num_threads()
    assert in_fresh_process(threads + 1, torch.get_num_threads) == threads + 1
    assert torch.get_num_threads() == threads


def test_an_error_of_a_fresh_process_is_raised_here() -> None:
    with pytest.raises(FileNotFoundError):
        in_fresh_process(0, os.stat, "/nowhere/at/all")
