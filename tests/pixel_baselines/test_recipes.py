"""Recipes: each one is a whole configuration of the model and the data that it is named for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.cli import main as rasterwise
from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from pixel_baselines.models import MODELS
from pixel_baselines.recipes import RECIPES
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig

SHAPES = {"mnist-dynamic": (1, 28, 28), "mnist-256": (1, 28, 28), "rgb-32": (3, 32, 32)}
LOSSLESS = {"mnist-lossless": (1, 28, 28), "emoji-lossless": (3, 32, 32), "photos-lossless": (3, 64, 64)}
CASES = [(recipe, model) for recipe, models in RECIPES.items() for model in models]


def test_recipes_are_of_the_same_models() -> None:
    """Three kinds of data, two sizes of machine. A new model needs no recipe; compression has one model."""
    compared = {f"{data}-{size}" for data in SHAPES for size in ("cpu", "gpu")}
    assert set(RECIPES) == compared | {f"{data}-cpu" for data in LOSSLESS}
    (models,) = {frozenset(RECIPES[name]) for name in compared}
    assert models <= set(MODELS)
    assert all(set(RECIPES[f"{data}-cpu"]) == {"pixelcnn-pp"} for data in LOSSLESS)


@pytest.mark.parametrize(("name", "model"), CASES)
def test_recipe(name: str, model: str) -> None:
    """It builds the model for the symbols that its tokenizer gives, and says the command that runs it."""
    options = RECIPES[name][model]()
    shape = (SHAPES | LOSSLESS)[name.rpartition("-")[0]]
    if options.palette:
        tokenizer = PaletteTokenizer(PaletteConfig(colours=options.palette, channels=shape[0]))
    else:
        tokenizer = PixelTokenizer(PixelTokenizerConfig(options.levels, options.dynamic))
    assert options.model.grid == tokenizer.grid(*shape)
    assert bool(options.palette) == (model == "image-gpt" and shape[0] == 3)
    layers = "depth" if hasattr(options.model, "depth") else "blocks"
    MODELS[model](dataclasses.replace(options.model, **{layers: 1}))  # one layer of each: some are large
    said = RECIPES[name][model].__doc__ or ""
    assert f"``rasterwise train pixel --recipe {name} --model {model} --dataset DATA``" in said


def test_a_recipe_is_where_flags_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not given is the recipe's; what is given changes it."""
    recipe = RECIPES["mnist-dynamic-cpu"]["gated-pixelcnn"]()
    run = tmp_path / "run"
    command = [
        "train",
        "pixel",
        "--recipe",
        "mnist-dynamic-cpu",
        "--model=gated-pixelcnn",
        "--dataset=digits",
    ]
    small = ["--width=4", "--depth=1", "--steps=2", "--evaluate-every=2", "--precision=fp32", "--no-compile"]
    assert rasterwise([*command, *small, f"--output={run}", "--json"]) == 0
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
    assert (config["levels"], config["dynamic"], config["model"]["width"]) == (2, True, 4)
    assert config["model"]["output_width"] == recipe.model.output_width
    assert config["training"]["learning_rate"] == recipe.training.learning_rate
    assert config["model"]["grid"]["height"] == 8, "the data's own grid, not the recipe's"


def test_no_such_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names those there are."""
    assert rasterwise(["train", "pixel", "--recipe", "mnist"]) == 2
    assert "--recipe is 'mnist', expected one of mnist-dynamic-cpu" in capsys.readouterr().err
    assert rasterwise(["train", "pixel", "--recipe", "rgb-32-cpu", "--model", "gan"]) == 2
    assert "--model is 'gan', expected one of pixelcnn" in capsys.readouterr().err
