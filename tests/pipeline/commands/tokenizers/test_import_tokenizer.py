"""``rasterwise import``: a tokenizer that others trained, and all that is done with one afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.cli import main as rasterwise
from pipeline.models import open_tokenizer
from rasterwise import ImagePipeline
from tests.conftest import Folders
from tests.stage1_vqvae.imported.test_transformers import tiny_emu3
from tests.stage1_vqvae.imported.vqgan_reference import FAMILIES, Architecture, Weights, vqgan_weights

TINY_PRIOR = ["--depth=1", "--width=32", "--heads=2", "--steps=2", "--batch-size=4", "--evaluate-every=2"]


def taming_weights() -> Weights:
    return {name: value.float() for name, value in vqgan_weights(FAMILIES["taming"], Architecture()).items()}


@pytest.mark.parametrize("family", ["taming", "emu3"])
def test_encode_train_sample_and_decode(
    family: str, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands: a prior of two steps on its codes, samples, a reconstruction, and figures of it."""
    if family == "emu3":
        tiny_emu3().save_pretrained(tmp_path / "theirs")
    else:
        (tmp_path / "theirs").mkdir()
        torch.save({"state_dict": taming_weights()}, tmp_path / "theirs" / "last.ckpt")
    ours, codes, run = tmp_path / "ours", tmp_path / "codes", tmp_path / "prior"
    assert rasterwise(["import", f"--source={tmp_path / 'theirs'}", f"--output={ours}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    tokenizer = open_tokenizer(ours)
    assert report["fingerprint"] == tokenizer.fingerprint
    assert (report["channels"], report["factor"], report["codebook_size"]) == (3, 2, 16)
    assert report["parameters"] == sum(parameter.numel() for parameter in tokenizer.parameters())
    assert report["file"] in (ours / "README.md").read_text()
    images = folders.images("images")
    data = [f"--dataset={images}", "--size=8"]
    assert rasterwise(["encode", f"--tokenizer={ours}", f"--output={codes}", *data]) == 0
    assert rasterwise(["train", "prior", f"--codes={codes}", f"--output={run}", *TINY_PRIOR]) == 0
    pipeline = ImagePipeline.from_pretrained(run)
    assert pipeline.tokenizer.fingerprint == tokenizer.fingerprint
    sampled = pipeline.sample(2, seed=0, output="tensor")
    assert sampled.shape == (2, 3, 8, 8)
    assert torch.equal(sampled, tokenizer.decode(pipeline.sample_symbols(2, seed=0).symbols))
    picture = next(images.iterdir())
    capsys.readouterr()
    for words in (
        ["reconstruct", f"--source={ours}", f"--images={picture}", f"--output={tmp_path / 'x.png'}"],
        ["evaluate", f"--source={ours}", *data, "--distance-images=0"],
        ["verify", str(run)],
    ):
        assert rasterwise(words) == 0, capsys.readouterr()


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with status 2, and nothing is written or changed."""
    theirs, output = tmp_path / "theirs.safetensors", tmp_path / "ours"
    weights = taming_weights()
    save_file(weights, theirs)

    def refused(message: str, *words: str) -> None:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert rasterwise(["import", f"--source={theirs}", f"--output={output}", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    refused("pixel-range", "--pixel-range=mean")
    refused("holds no other.pt", "--file=other.pt")
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    refused("is not empty")
    (output / "mine.txt").unlink()
    output.rmdir()
    del weights["post_quant_conv.bias"]
    save_file(weights, theirs)
    refused("is of another network: it lacks post_quant_conv.bias")
    assert not output.exists()
    theirs.write_bytes(b"")
    refused("theirs.safetensors")
    assert not output.exists()
