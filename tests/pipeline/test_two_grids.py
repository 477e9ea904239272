"""VQ-VAE-2 from images to samples, by the commands."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline import ImagePipeline
from pipeline.cli import main as rasterwise
from rasterwise.codes.dataset import open_codes
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.two_grids import separated
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage2_prior import HierarchicalPrior, HierarchicalPriorConfig
from tests.conftest import TINY_PRIOR, TINY_VQVAE, Chain

TINY_TOP = ["--tokenizer=vqvae-2", "--top-width=16", "--top-blocks=1"]
TINY_HIERARCHY = [*TINY_PRIOR, "--top-depth=1", "--encoder-depth=1"]
JOINT = Grid(1, 10, 2, 16)  # of digits of 8×8 at factor 2: a top grid of 2×2, and a bottom grid of 4×4


@pytest.fixture(scope="module")
def two_grids(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Both stages on digits, twelve steps each."""
    root = tmp_path_factory.mktemp("two-grids")
    made = Chain(root / "vqvae", root / "codes", root / "prior")
    assert rasterwise(["train", "vqvae", f"--output={made.vqvae}", *TINY_VQVAE, *TINY_TOP]) == 0
    assert rasterwise(["encode", f"--tokenizer={made.vqvae}", f"--output={made.codes}"]) == 0
    prior = ["train", "prior", f"--codes={made.codes}", f"--output={made.prior}", *TINY_HIERARCHY]
    assert rasterwise(prior) == 0
    return made


def test_codes_of_two_grids_get_a_prior_of_two(two_grids: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --model; its likelihood is the sum of both grids', and reports have both codebooks."""
    assert open_codes(two_grids.codes).key.grid == JOINT
    assert (
        json.loads((two_grids.prior / "run.json").read_text())["command"]
        == "train prior --model hierarchical"
    )
    report = json.loads((two_grids.prior / "report.json").read_text())["test"]
    assert report["top_nll_nats"] + report["bottom_nll_nats"] == pytest.approx(report["nll_nats"])
    tokenizer = json.loads((two_grids.vqvae / "report.json").read_text())["test"]
    assert {"top_codebook_usage", "bottom_codebook_perplexity"} <= tokenizer.keys()
    assert (
        rasterwise(["encode", f"--tokenizer={two_grids.vqvae}", f"--output={two_grids.codes}", "--json"]) == 0
    )
    encoded, histograms = json.loads(capsys.readouterr().out), []
    for name, codes in (
        separated(next(open_codes(two_grids.codes).train.ordered(4096)).values)._asdict().items()
    ):
        histograms.append(torch.bincount(codes.flatten(), minlength=16))
        assert encoded[f"{name}_codes_used"] == int((histograms[-1] > 0).sum())
    assert encoded["codes_used"] == sum(int((counts > 0).sum()) for counts in histograms)


def test_images_are_drawn_through_both_priors(two_grids: Chain, tmp_path: Path) -> None:
    """By the command and in Python; the samples' likelihood is the chain's, and all that verify checks holds."""
    image = tmp_path / "samples.png"
    assert rasterwise(["sample", f"--pipeline={two_grids.prior}", "--n=4", f"--output={image}"]) == 0
    assert image.exists()
    pipeline = ImagePipeline.from_pretrained(two_grids.prior)
    assert isinstance(pipeline.model, HierarchicalPrior)
    drawn = pipeline.sample_symbols(3, seed=1).symbols
    again = pipeline.sample_symbols(3, seed=1, parallel=True).symbols
    assert torch.equal(drawn, again)
    with torch.no_grad():
        top, bottom = pipeline.model.grid_log_probs(drawn)
        torch.testing.assert_close(top + bottom, pipeline.model.log_prob(drawn))
    assert pipeline.decode(drawn, "tensor").shape == (3, 1, 8, 8)
    assert pipeline.log_prob(pipeline.decode(drawn, "tensor")).shape == (3,)
    assert rasterwise(["verify", str(two_grids.prior)]) == 0


def test_images_are_completed(two_grids: Chain) -> None:
    """Top codes whose 4×4 pixels are kept stay, and bottom codes whose 2×2 pixels are."""
    pipeline = ImagePipeline.from_pretrained(two_grids.prior)
    images = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    keep = torch.zeros(8, 8, dtype=torch.bool)
    keep[:6] = True
    completed = pipeline.complete(images, keep, seed=0, output="tensor")
    assert torch.equal(completed[..., :6, :], images[..., :6, :])
    mask = pipeline.tokenizer.known_sites(keep.expand(1, 1, 8, 8))
    top, bottom = separated(mask)
    assert top[0, 0].tolist() == [[True] * 2, [False] * 2]
    assert bottom[0, 0].tolist() == [[True] * 4] * 3 + [[False] * 4]


def test_a_run_that_was_stopped_goes_on_to_the_same_end(two_grids: Chain, tmp_path: Path) -> None:
    """--resume alone finds which prior it is, and that it was trained on two grids."""
    run = tmp_path / "run"
    shutil.copytree(two_grids.prior, run)
    (run / "report.json").unlink()
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    assert rasterwise(["train", "prior", f"--resume={run}"]) == 0
    for name in ("model/model.safetensors", "checkpoints/step-00000012/state.safetensors"):
        assert (run / name).read_bytes() == (two_grids.prior / name).read_bytes()


def test_refusals(two_grids: Chain, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prior of two grids for codes of one, by the command; one of another grid or vocabulary, in Python."""
    output = tmp_path / "run"
    for words, said in (
        ([f"--codes={chain.codes}", "--model=hierarchical"], "holds codes of one grid"),
        ([f"--codes={two_grids.codes}", "--model=cubes"], "expected one of transformer, hierarchical"),
        ([f"--codes={tmp_path / 'absent'}"], "absent"),
    ):
        assert rasterwise(["train", "prior", *words, f"--output={output}"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not output.exists()
    tokenizer = VQVAE(
        VQVAEConfig(
            factor=2,
            grids=2,
            top_width=16,
            quantizer=VectorQuantizerConfig(codebook_size=16, code_width=8),
            autoencoder=ConvolutionalConfig(width=16, blocks=1),
        )
    )
    tokenizer(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8))
    config = HierarchicalPriorConfig(grid=JOINT, depth=1, top_depth=1, encoder_depth=1, width=16, heads=2)
    ImagePipeline(tokenizer.eval(), HierarchicalPrior(config).eval())
    for grid, said in (
        (Grid(1, 10, 2, 8), "gives grids of 1×10×2 of 16 levels, the model was built for 1×10×2 of 8 levels"),
        (Grid(2, 10, 2, 16), "the model was built for 2×10×2"),
    ):
        with pytest.raises(InputError, match=said):
            ImagePipeline(tokenizer, HierarchicalPrior(dataclasses.replace(config, grid=grid)).eval())
    other = dataclasses.replace(config, tokenizer="0" * 64)
    with pytest.raises(InputError, match="use the tokenizer that its codes came from"):
        ImagePipeline(tokenizer, HierarchicalPrior(other).eval())


def test_the_joint_grid_is_any_models(two_grids: Chain, tmp_path: Path) -> None:
    """A transformer prior reads top and bottom codes as one sequence, where --model asks for it."""
    run = tmp_path / "run"
    words = ["--model=transformer", f"--codes={two_grids.codes}", f"--output={run}", *TINY_PRIOR]
    assert rasterwise(["train", "prior", *words]) == 0
    assert ImagePipeline.from_pretrained(run).sample(2, seed=0, output="tensor").shape == (2, 1, 8, 8)
