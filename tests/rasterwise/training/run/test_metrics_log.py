"""The log of a run: every line that is read is one that was written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rasterwise.errors import InputError
from rasterwise.training.run.metrics_log import append_metrics, read_metrics, rewind_metrics


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        append_metrics(path, step, "train", {"nll_nats": 1 / step})
        append_metrics(path, step, "test", {"nll_nats": 2 / step, "psnr_db": math.inf})
    return path


def test_lines_come_back(log: Path) -> None:
    """Standard JSON in the file, the numbers themselves when read."""
    for line in log.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    found = [(logged.step, logged.split, logged.metrics) for logged in read_metrics(log)]
    assert found[:2] == [
        (10, "train", {"nll_nats": 0.1}),
        (10, "test", {"nll_nats": 0.2, "psnr_db": math.inf}),
    ]
    assert [step for step, *_ in found] == [10, 10, 20, 20, 30, 30]


def test_what_comes_after_a_step_is_taken_out(log: Path) -> None:
    """The lines that stay are the same bytes; one cut short by a kill goes too; no log is no error."""
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"step": 5, "spl\xff')
    assert len(read_metrics(log)) == 6
    rewind_metrics(log, 20)
    assert log.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])
    rewind_metrics(log.with_name("absent"), 20)


def test_every_flipped_bit_is_found(log: Path) -> None:
    """One bit of each byte in turn: the line is named, or says the same; the end of the last one may be lost."""
    whole, expected, refused = log.read_bytes(), [logged.metrics for logged in read_metrics(log)], 0
    for index in range(len(whole)):
        log.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << index % 7]) + whole[index + 1 :])
        try:
            found = [logged.metrics for logged in read_metrics(log)]
        except InputError as error:
            refused += f"{log}, line " in str(error)
        else:
            assert found == expected or (index == len(whole) - 1 and found == expected[:-1])
    assert refused > 0.9 * len(whole)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "is a list"),
        ('{"step": "1", "split": "test"}', 'has step = "1", expected a whole number'),
        ('{"step": true, "split": "test"}', "has step = true, expected a whole number"),
        ('{"step": 1, "split": null}', "has split = null, expected a string"),
        ('{"step": 1}', "has no 'split'"),
        ('{"step": 1, "split": "test", "mse": "low"}', "has mse = 'low', expected a number"),
        ('{"step": 1, "step": 2, "split": "test"}', ".*'step' comes twice"),
        ('{"step": 1, "split": "test", "mse": NaN}', ".*NaN is no JSON"),
    ],
)
def test_a_line_of_the_wrong_shape_is_named(line: str, said: str, tmp_path: Path) -> None:
    """Of an earlier version's log, whose lines have no checksums; in the middle of it."""
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "split": "test", "mse": 1}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError, match=rf"line 2, {said}.*delete that line"):
        read_metrics(path)
    path.write_text(f"{good}\n{good}\n")
    assert [logged.metrics for logged in read_metrics(path)] == [{"mse": 1}] * 2
    with pytest.raises(InputError, match=r"holds no absent\.jsonl"):
        read_metrics(tmp_path / "absent.jsonl")
