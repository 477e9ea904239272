"""ImageGPT passes the shared suite, and is OpenAI's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import ImageGPTConfig as TheirConfig
from transformers import ImageGPTForCausalImageModeling

from pixel_baselines.image_gpt.model import ImageGPT
from pixel_baselines.image_gpt.network import ImageGPTConfig
from rasterwise.errors import InputError
from rasterwise.files import load_tensors, read_json, save_tensors, write_json
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import (
    CLASSES,
    AutoregressiveSuite,
    decoded_logits,
    random_condition,
    random_symbols,
    randomized,
)


class TestImageGPT(AutoregressiveSuite):
    grids: ClassVar[list[Grid]] = [*AutoregressiveSuite.grids, Grid(1, 2, 3, 600)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> ImageGPT:
        return small(grid, classes)


def small(grid: Grid, classes: tuple[str, ...] = (), **changes: Any) -> ImageGPT:
    return ImageGPT(ImageGPTConfig(grid=grid, classes=classes, depth=2, width=24, heads=3, **changes))


@pytest.mark.parametrize("bucket", [1, 5, 64])
def test_decoder_in_buckets_is_naive(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made ready for a capture, where a position reads its whole bucket, logits are the teacher-forced ones."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", bucket)
    grid = Grid(3, 3, 4, 8)
    model, symbols = randomized(small(grid)), random_symbols(grid, 3)
    with torch.no_grad():
        expected = grid.flatten(model(symbols))
    decoder = model.decoder(3)
    assert sum(region.repeats for region in decoder.capture_regions()) == grid.size
    assert (decoded_logits(decoder, symbols) - expected).abs().max() < 1e-10


def test_dropout_is_for_training_alone() -> None:
    """In evaluation mode a model with dropout is the model without; in training it is not."""
    grid = Grid(1, 3, 4, 5)
    model, plain = small(grid, dropout=0.5), small(grid)
    plain.load_state_dict(model.state_dict())
    symbols = random_symbols(grid, 2)
    assert torch.equal(model.eval()(symbols), plain(symbols))
    assert not torch.allclose(model.train()(symbols), plain(symbols))


def test_autocast_scores_in_float32() -> None:
    """Under bfloat16 autocast log-probabilities are float32, near those without it, and have gradients."""
    grid = Grid(1, 4, 4, 16)
    model, symbols = small(grid), random_symbols(grid, 3)
    with torch.autocast("cpu", torch.bfloat16):
        nats = model.log_prob(symbols)
    assert nats.dtype == torch.float32
    assert torch.allclose(nats, model.log_prob(symbols), rtol=0.01)
    nats.sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


@pytest.mark.parametrize(
    "wrong", [{"width": 25}, {"heads": 0}, {"depth": 0}, {"dropout": 1.0}, {"mlp_width": -1}], ids=str
)
def test_refuses_a_configuration(wrong: dict[str, Any]) -> None:
    """A configuration that no model can have is refused by the field's name."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        ImageGPTConfig(**{"depth": 2, "width": 24, "heads": 3, **wrong})


# ---------------------------------------------------------------------------- features


def test_features_are_of_their_own_image() -> None:
    """An image's features are the same alone and in a batch; one vector a layer and one more."""
    grid = Grid(1, 3, 4, 5)
    model = randomized(small(grid, CLASSES))
    symbols, condition = random_symbols(grid, 4), random_condition(4)
    with torch.no_grad():
        together = model.layer_features(symbols, condition)
        others_changed = model.layer_features(torch.cat([symbols[:1], (symbols[1:] + 1) % 5]), condition)
        alone = model.layer_features(symbols[:1], condition[:1])
    assert [tuple(layer.shape) for layer in together] == [(4, 24)] * 3
    for layer, other, single in zip(together, others_changed, alone, strict=True):
        assert torch.equal(layer[0], other[0])
        assert not torch.allclose(layer[1:], other[1:])
        assert (layer[:1] - single).abs().max() < 1e-12


def test_features_are_theirs(tmp_path: Path) -> None:
    """The features are the means of transformers' hidden states after the normalisation that follows them."""
    theirs = their_model()
    symbols = random_symbols(Grid(1, 4, 4, 11), 3)
    model = ImageGPT.from_openai(saved(theirs, tmp_path))
    with torch.no_grad():
        hidden = theirs.transformer(their_input(symbols), output_hidden_states=True).hidden_states
        features = model.layer_features(symbols)
        for layer, block in enumerate(theirs.transformer.h):
            assert (features[layer] - block.ln_1(hidden[layer]).mean(1)).abs().max() < 1e-5
    assert (features[-1] - hidden[-1].mean(1)).abs().max() < 1e-5
    assert len(features) == len(hidden)


# ---------------------------------------------------------------------------- OpenAI's weights


def their_model(**options: Any) -> ImageGPTForCausalImageModeling:
    """A small one whose weights are large enough for every option, and the norm's eps, to count."""
    sizes = {"vocab_size": 12, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 4}
    config = TheirConfig(**{**sizes, "layer_norm_epsilon": 0.05, "attn_implementation": "eager", **options})
    torch.manual_seed(0)
    model = ImageGPTForCausalImageModeling(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def their_input(symbols: torch.Tensor) -> torch.Tensor:
    """The start token, which is their last, and then the symbols but for the last."""
    start = torch.full((len(symbols), 1), 11)
    return torch.cat([start, symbols.flatten(1)[:, :-1]], 1)


def saved(model: ImageGPTForCausalImageModeling, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_inner": 40},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
    ],
    ids=str,
)
def test_openai_weights_give_the_same_logits(options: dict[str, Any], tmp_path: Path) -> None:
    """Logits are transformers' at every site, in one pass and cached."""
    theirs = their_model(**options)
    model = ImageGPT.from_openai(saved(theirs, tmp_path))
    symbols = random_symbols(model.grid, 3)
    with torch.no_grad():
        expected = theirs(their_input(symbols)).logits
        assert (model.grid.flatten(model(symbols)) - expected).abs().max() < 1e-5
    assert (decoded_logits(model.decoder(3), symbols) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("layer_norm_epsilon", 1e-5),
        ("n_head", 2),
    ],
)
def test_openai_options_count(name: str, other: object, tmp_path: Path) -> None:
    """Each option changes the logits of the same weights, so that the test above would see it ignored."""
    folder = saved(their_model(), tmp_path)
    model = ImageGPT.from_openai(folder)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), name: other})
    changed = ImageGPT.from_openai(folder)
    symbols = random_symbols(model.grid, 2)
    assert (model(symbols) - changed(symbols)).abs().max() > 1e-3


def test_openai_weights_in_several_files(tmp_path: Path) -> None:
    """Weights split over several safetensors files are put together."""
    theirs = their_model()
    theirs.save_pretrained(tmp_path / "split", max_shard_size="20KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    split, whole = (
        ImageGPT.from_openai(tmp_path / "split"),
        ImageGPT.from_openai(saved(theirs, tmp_path / "whole")),
    )
    assert split.fingerprint == whole.fingerprint


def test_openai_weights_of_old_files(tmp_path: Path) -> None:
    """Files written by old versions also hold each layer's causal mask, which is no weight."""
    folder = saved(their_model(), tmp_path)
    expected, path = ImageGPT.from_openai(folder).fingerprint, folder / "model.safetensors"
    masks = {"attn.bias": torch.ones(1, 1, 16, 16).tril(), "attn.masked_bias": torch.tensor(-1e4)}
    old = {
        f"transformer.h.{layer}.{name}": mask.clone() for layer in range(3) for name, mask in masks.items()
    }
    save_tensors({**load_tensors(path), **old}, path)
    assert ImageGPT.from_openai(folder).fingerprint == expected


def test_openai_grid(tmp_path: Path) -> None:
    """Positions that are no square need their grid said, and a grid of another size is refused."""
    folder = saved(their_model(n_positions=12), tmp_path)
    with pytest.raises(InputError, match="12 positions, which are no square"):
        ImageGPT.from_openai(folder)
    assert ImageGPT.from_openai(folder, grid=Grid(1, 3, 4, 11)).grid == Grid(1, 3, 4, 11)
    for wrong in (Grid(1, 4, 4, 11), Grid(1, 3, 4, 12)):
        with pytest.raises(InputError, match="12 sites of 11 levels"):
            ImageGPT.from_openai(folder, grid=wrong)


def test_openai_refuses_pickles(tmp_path: Path) -> None:
    """A folder whose weights are a pickle alone is refused, and the message names the mend."""
    folder = saved(their_model(), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only a pytorch_model\.bin.*save_pretrained"):
        ImageGPT.from_openai(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match="no weights"):
        ImageGPT.from_openai(folder)


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("model_type", "gpt2", "'gpt2', expected an 'imagegpt'"),
        ("activation_function", "relu", "activation_function 'relu', expected 'quick_gelu'"),
        ("add_cross_attention", True, "add_cross_attention"),
        ("n_embd", 20, "does not fit"),
        ("n_layer", 4, "does not fit"),
        ("n_layer", "3", "does not fit ImageGPTConfig"),
        ("n_positions", [16], "has n_positions = .*, expected a whole number"),
        ("vocab_size", None, "has vocab_size = null, expected a whole number"),
        ("resid_pdrop", "0", "does not fit ImageGPTConfig"),
    ],
)
def test_openai_refuses_other_models(name: str, other: object, message: str, tmp_path: Path) -> None:
    """Another model, an option that this one lacks, and weights that are not the configuration's."""
    folder = saved(their_model(), tmp_path)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), name: other})
    with pytest.raises(InputError, match=message):
        ImageGPT.from_openai(folder)
