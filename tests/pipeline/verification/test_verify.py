"""Sound models pass every check, and every planted fault is found by the check that it belongs to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.cli import main as rasterwise
from pipeline.verification.verify import Verification, verify
from rasterwise import (
    VQVAE,
    ConvolutionalConfig,
    Decoder,
    Grid,
    PixelCNN,
    PixelCNNConfig,
    PixelTokenizer,
    PixelTokenizerConfig,
    Sampling,
    VectorQuantizerConfig,
    VQVAEConfig,
)
from rasterwise.decoding.decoder import GuidedDecoder
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.symbols.condition import Condition
from stage2_prior.models import TEXT_MODELS
from tests.autoregressive_suite import randomized

GRID = Grid(3, 3, 3, 4)
CONFIG = PixelCNNConfig(grid=GRID, classes=("a", "b"), width=12, output_width=12, blocks=1, input_kernel=3)
TOKENIZER = PixelTokenizer(PixelTokenizerConfig(levels=4))


class Sound(PixelCNN):
    """A PixelCNN, decoded in raster order alone."""

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> Any:
        return None


def found_in(model_class: type[PixelCNN], *arguments: Any) -> Verification:
    """The verification of a model with random weights."""
    return verify(randomized(model_class(CONFIG)).float(), *arguments)


class ShiftedMask(Sound):
    """Its first convolution sees the symbol that it predicts."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        assert self.input.mask is not None
        self.input.mask[:, :, -1, self.input.left] = 1


class StaleCache(Sound):
    """Its decoder keeps the rows above where they are."""

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        decoder: Any = super().decoder(batch_size, condition)
        decoder._end_row = lambda: None
        return decoder


class SwappedChannels(Sound):
    """It reads BGR and predicts RGB."""

    def embed(self, symbols: Tensor) -> Tensor:
        return super().embed(symbols).flip(1)


class GuidanceOffByOne(Sound):
    """Its scale counts from the conditional model."""

    def sampling_decoder(self, plan: SamplingPlan, captured: bool = False) -> Decoder:
        decoder = super().sampling_decoder(plan, captured)
        if isinstance(decoder, GuidedDecoder):
            decoder.scale += 1
        return decoder


class LogProbDivided(Sound):
    """Its log_prob is that of a symbol."""

    def log_prob(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        return super().log_prob(symbols, condition) / self.grid.size


class HotSamples(Sound):
    """It samples at another temperature than asked for."""

    def sample(self, n: int, condition: Condition | None = None, **options: Any) -> Tensor:
        return super().sample(n, condition, **options | {"sampling": Sampling(temperature=0.7)})


class AlwaysDropout(Sound):
    """Its dropout stays in evaluation."""

    def embed(self, symbols: Tensor) -> Tensor:
        return nn.functional.dropout(super().embed(symbols), 0.2, training=True)


class OverTheBatch(Sound):
    """It normalises over the batch."""

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        logits = super().logits_from(inputs, condition)
        return logits - logits.mean(0, keepdim=True)


class DroppedLabel(Sound):
    """It takes a label, and reads none."""

    def class_index(self, condition: Condition | None, batch_size: int) -> Tensor:
        return super().class_index(None, batch_size)


class UnsavedBuffer(Sound):
    """A part of it is no part of its state dict."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        return super().logits_from(inputs, condition) * self.scale


class Forgets(Sound):
    """Its decoder starts from noise, so that no second one computes the same."""

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        decoder: Any = super().decoder(batch_size, condition)
        decoder.inputs.normal_()
        return decoder


class Raises(Sound):
    """Its decoder cannot be made."""

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        raise RuntimeError("no decoder here")


class BackwardsTokenizer(PixelTokenizer):
    """It encodes RGB and decodes BGR."""

    def decode(self, symbols: Tensor) -> Tensor:
        return super().decode(symbols).flip(1)


def test_a_sound_model_passes() -> None:
    """Also in raster order and in wavefronts; what cannot be asked of it is skipped, not failed."""
    verification = found_in(PixelCNN, TOKENIZER)
    assert verification.passed, str(verification)
    assert {check.verdict for check in verification.checks} == {"passes", "noted", "skipped"}


@pytest.mark.parametrize(
    ("planted", "failed"),
    [
        (ShiftedMask, "causality"),
        (SwappedChannels, "causality by exchange"),
        (StaleCache, "cached = naive"),
        (Raises, "cached = naive"),
        (Forgets, "codec round trip"),
        (GuidanceOffByOne, "guidance"),
        (LogProbDivided, "normalisation"),
        (HotSamples, "samples against log_prob"),
        (AlwaysDropout, "repeatability"),
        (OverTheBatch, "batch invariance"),
        (DroppedLabel, "condition counts"),
        (UnsavedBuffer, "save and open"),
    ],
)
def test_a_planted_fault_is_found(planted: type[PixelCNN], failed: str) -> None:
    """By the check that it belongs to, which says what usually causes it."""
    verification = found_in(planted)
    assert failed in verification.failed, str(verification)
    assert all(check.cause for check in verification.checks if check.verdict == "fails")


def _other(**changes: Any) -> PixelCNNConfig:
    return dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("config", "tokenizer", "failed"),
    [
        (_other(tokenizer="0" * 64), TOKENIZER, "tokenizer: fingerprint"),
        (CONFIG, PixelTokenizer(PixelTokenizerConfig(levels=8)), "tokenizer: grid and vocabulary"),
        (CONFIG, BackwardsTokenizer(PixelTokenizerConfig(levels=4)), "tokenizer: round trip"),
    ],
    ids=["another tokenizer", "another vocabulary", "swapped channels"],
)
def test_a_wrong_tokenizer_is_found(config: PixelCNNConfig, tokenizer: PixelTokenizer, failed: str) -> None:
    """Each by its own check."""
    assert verify(randomized(Sound(config)).float(), tokenizer).failed == (failed,)


def test_a_codebook_with_a_code_twice_is_found() -> None:
    """Two codes of one vector cannot be told apart; dead codes and what bfloat16 changes are noted."""
    quantizer = VectorQuantizerConfig(codebook_size=4, code_width=4)
    tokenizer = VQVAE(
        VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1), quantizer=quantizer)
    )
    tokenizer.train()(torch.randint(256, (8, 1, 6, 6), dtype=torch.uint8))  # fits the codebook
    tokenizer.eval()
    model = Sound(dataclasses.replace(CONFIG, grid=tokenizer.grid(1, 6, 6)))
    verdicts = {check.name: check.verdict for check in verify(randomized(model).float(), tokenizer).checks}
    assert verdicts["tokenizer: round trip"] == "passes"
    assert verdicts["tokenizer: dead codes"] == verdicts["tokenizer: bf16 code flips"] == "noted"
    codebook: Any = next(b for name, b in tokenizer.named_buffers() if name.endswith("embed"))
    codebook[..., 1, :] = codebook[..., 0, :]
    assert "tokenizer: round trip" in verify(randomized(model).float(), tokenizer).failed


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[type[PixelCNN]], Path]:
    def save(model_class: type[PixelCNN]) -> Path:
        return randomized(model_class(CONFIG)).float().save_pretrained(tmp_path / "model")

    return save


def test_the_command(saved: Callable[[type[PixelCNN]], Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A table and status 0 for a sound model; JSON and status 1 for one of the user's own that has a fault."""
    folder = saved(PixelCNN)
    assert rasterwise(["verify", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("property ")
    assert shown.rstrip().endswith("none")
    module = f"{__name__}:LogProbDivided"
    assert rasterwise(["verify", str(folder), "--module", module, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == ["normalisation", "codec round trip"]
    assert len(report["checks"]) > 10


@pytest.mark.parametrize("module", ["absent.module:Class", "json:JSONDecoder", "json", ":x"])
def test_no_model_class(
    module: str, saved: Callable[[type[PixelCNN]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2."""
    assert rasterwise(["verify", str(saved(PixelCNN)), "--module", module]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_models_of_text_and_images_pass(kind: str) -> None:
    """With their texts; and where no grid is likely enough for its samples to be counted."""
    sizes: dict[str, Any] = {"depth": 1, "width": 16, "heads": 2, "text_tokens": 5, "text_length": 4}
    torch.manual_seed(0)
    model = TEXT_MODELS[kind](TEXT_MODELS[kind].config_class(grid=Grid(1, 2, 3, 4), **sizes)).eval()
    verification = verify(model)
    assert verification.passed, str(verification)
    assert {"padding invariance", "guidance"} <= {check.name for check in verification.checks}
