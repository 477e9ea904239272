"""``rasterwise evaluate``: what it refuses before it reads an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main as rasterwise
from rasterwise import PixelTokenizer
from stage1_vqvae import VQVAE, ConvolutionalConfig, VQVAEConfig


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("vqvae", ["--inception=./absent.safetensors"], "holds no absent.safetensors"),
        ("vqvae", ["--inception=./absent.pth"], "are no .safetensors file; convert them"),
        ("vqvae", ["--inception=./x.safetensors", "--distance-images=0"], "name one, and --distance-images"),
        ("pixels", ["--inception=./x.safetensors"], "measures reconstructions of a learned tokenizer"),
        ("vqvae", ["--steps=2"], "holds a tokenizer alone"),
    ],
)
def test_what_is_refused(
    kind: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and status 2; the data, which are not there either, are not looked at."""
    small = ConvolutionalConfig(width=16, blocks=1)
    tokenizer = VQVAE(VQVAEConfig(autoencoder=small)) if kind == "vqvae" else PixelTokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert rasterwise(["evaluate", f"--source={tmp_path}", "--dataset=./absent", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
