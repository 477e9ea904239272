"""A line of the table is all that the project has to know of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline import ImagePipeline
from pipeline.cli import main as rasterwise
from pixel_baselines.models import MODELS
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition


@dataclass(frozen=True, kw_only=True)
class IndependentConfig(AutoregressiveConfig):
    """Configuration of ``Independent``.

    Attributes:
        spread: Of the logits at first.
    """

    spread: float = 1.0


class Independent(AutoregressiveModel):
    """Every symbol has a distribution of its own; decoding is naive."""

    kind = "independent"
    config_class = IndependentConfig

    def __init__(self, config: IndependentConfig) -> None:
        super().__init__(config)
        self.table = nn.Parameter(config.spread * torch.randn(*config.grid.shape, config.grid.levels))

    def embed(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        return self.table.expand(len(inputs), -1, -1, -1, -1)


def test_a_new_model_is_one_line_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command trains it with its own flags, every other command opens it, and a recipe says that it has none."""
    monkeypatch.setitem(MODELS, Independent.kind, Independent)
    run = tmp_path / "run"
    short = ["--steps=3", "--batch-size=8", "--evaluate-every=3", "--levels=2", "--spread=0.5"]
    assert rasterwise(["train", "pixel", "--model=independent", f"--output={run}", *short]) == 0
    assert json.loads((run / "run.json").read_text())["config"]["model"]["spread"] == 0.5
    assert rasterwise(["evaluate", "--source", str(run)]) == 0
    assert rasterwise(["sample", "--pipeline", str(run), "--n=2", f"--output={tmp_path / 'x.png'}"]) == 0
    assert isinstance(ImagePipeline.from_pretrained(run).model, Independent)
    capsys.readouterr()
    assert rasterwise(["train", "pixel", "--model=independent", "--recipe=rgb-32-cpu"]) == 2
    assert "--model is 'independent', expected one of pixelcnn" in capsys.readouterr().err
