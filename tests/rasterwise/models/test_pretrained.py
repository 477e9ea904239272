"""Model folders: what opens, and what is refused by name."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest
import torch

from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from rasterwise.errors import InputError
from rasterwise.files import MANIFEST_NAME, load_tensors, save_tensors
from rasterwise.models.pretrained import CONFIG_NAME, WEIGHTS_NAME, read_fingerprint
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig

SMALL = VQVAEConfig(
    factor=2,
    quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4),
    autoencoder=ConvolutionalConfig(width=16, blocks=1),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = VQVAE(SMALL)
    model(torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8))
    return model.save_pretrained(tmp_path / "model", card="Trained on nothing.")


def test_a_model_comes_back(saved: Path) -> None:
    """The same weights, configuration and fingerprint; a card for people."""
    model, again = VQVAE.from_pretrained(saved), VQVAE.from_pretrained(saved)
    assert not model.training
    assert model.config == SMALL
    assert model.fingerprint == again.fingerprint
    card = (saved / "README.md").read_text()
    assert "Trained on nothing." in card
    assert "Open it with `from rasterwise import VQVAE` and `VQVAE.from_pretrained(FOLDER)`" in card
    assert {path.name for path in saved.iterdir()} == {CONFIG_NAME, WEIGHTS_NAME, MANIFEST_NAME, "README.md"}
    assert read_fingerprint(saved) == model.fingerprint


def test_a_run_folder_opens_by_its_model(saved: Path, tmp_path: Path) -> None:
    """The folder of a training run is as good as the model folder in it."""
    assert VQVAE.from_pretrained(tmp_path).fingerprint == VQVAE.from_pretrained(saved).fingerprint


def test_one_weight_changes_the_fingerprint(saved: Path) -> None:
    """And so does the configuration."""
    model = VQVAE.from_pretrained(saved)
    before = model.fingerprint
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    assert model.fingerprint != before
    levels = {PixelTokenizer(PixelTokenizerConfig(levels=levels)).fingerprint for levels in (2, 4)}
    assert len(levels) == 2


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    """A folder that lacks a file, with a manifest or without."""
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        VQVAE.from_pretrained(saved)
    (saved / MANIFEST_NAME).unlink()
    with pytest.raises(InputError, match=f"holds no {name}"):
        VQVAE.from_pretrained(saved)


def test_every_flipped_bit_is_found(saved: Path) -> None:
    """60 random ones in whatever is read of the folder: the file is named. The card may be edited."""
    rng = random.Random(0)
    for name in (CONFIG_NAME, WEIGHTS_NAME, MANIFEST_NAME):
        whole = (saved / name).read_bytes()
        for _ in range(20):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            (saved / name).write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name} is damaged"):
                VQVAE.from_pretrained(saved)
        (saved / name).write_bytes(whole)
    (saved / "README.md").write_text("My model.")
    VQVAE.from_pretrained(saved)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    """One NaN, or one infinity, in any tensor of numbers: it is named. The file itself is whole."""
    (saved / MANIFEST_NAME).unlink()
    weights = load_tensors(saved / WEIGHTS_NAME)
    for name in [name for name, tensor in weights.items() if tensor.is_floating_point()][::5]:
        for value in (torch.nan, -torch.inf):
            spoilt = weights[name].clone()
            spoilt.view(-1)[-1] = value
            save_tensors({**weights, name: spoilt}, saved / WEIGHTS_NAME)
            with pytest.raises(InputError, match=rf"has 1 of .* numbers in {name} that are infinite or NaN"):
                VQVAE.from_pretrained(saved)
    save_tensors(weights, saved / WEIGHTS_NAME)
    VQVAE.from_pretrained(saved)


def test_what_is_not_finite_until_it_is_fitted_opens(tmp_path: Path) -> None:
    """A palette without colours comes back without; one with half of its colours is refused."""
    palette = PaletteTokenizer(PaletteConfig(colours=4))
    folder = palette.save_pretrained(tmp_path / "palette")
    assert not PaletteTokenizer.from_pretrained(folder).fitted
    palette.palette[:2] = 0
    palette.save_pretrained(folder)
    with pytest.raises(InputError, match="has 6 of 12 numbers in palette that are infinite or NaN"):
        PaletteTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": None}, "has kind = null, expected a string"),
        ({"kind": ["vqvae"]}, "has kind = .*, expected a string"),
        ({"config": [1, 2]}, "has config = .*, expected an object"),
        ({"config": {"factor": "2"}}, "does not fit VQVAEConfig.*factor"),
        ({"trained_on": "digits"}, "has trained_on = .*, expected an object"),
    ],
)
def test_a_configuration_of_the_wrong_shape_is_named(
    saved: Path, change: dict[str, object], said: str
) -> None:
    """In a folder without a manifest, as earlier versions saved them."""
    (saved / MANIFEST_NAME).unlink()
    content = json.loads((saved / CONFIG_NAME).read_text())
    (saved / CONFIG_NAME).write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=said):
        VQVAE.from_pretrained(saved)
    del content[next(iter(change))]
    if "trained_on" not in change:
        (saved / CONFIG_NAME).write_text(json.dumps(content))
        with pytest.raises(InputError, match="has no"):
            VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_file_cut_short_is_named(saved: Path, name: str, share: float) -> None:
    """A download or copy that broke off, of a folder without a manifest."""
    (saved / MANIFEST_NAME).unlink()
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=name):
        VQVAE.from_pretrained(saved)


def test_another_kind_is_refused(saved: Path) -> None:
    """A VQ-VAE is no pixel tokenizer."""
    with pytest.raises(InputError, match="holds a 'vqvae', expected a 'pixels'"):
        PixelTokenizer.from_pretrained(saved)


def test_weights_of_another_size_are_refused(saved: Path) -> None:
    """A configuration that was edited by hand, and the manifest deleted, as the line about that says."""
    (saved / MANIFEST_NAME).unlink()
    content = json.loads((saved / CONFIG_NAME).read_text())
    content["config"]["quantizer"]["code_width"] = 8
    (saved / CONFIG_NAME).write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not fit"):
        VQVAE.from_pretrained(saved)


def test_nothing_is_unpickled(saved: Path, tmp_path: Path) -> None:
    """A pickle in place of the weights is refused, and what it would run is not run."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(trap), "w"))  # type: ignore[return-value]

    (saved / WEIGHTS_NAME).write_bytes(pickle.dumps(Trap()))
    for _ in range(2):  # found by the manifest, and then without one
        with pytest.raises(InputError, match="damaged"):
            VQVAE.from_pretrained(saved)
        (saved / MANIFEST_NAME).unlink(missing_ok=True)
    assert not trap.exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Saving never replaces what is no model."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no model"):
        PixelTokenizer().save_pretrained(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is absent, and a Hub id that cannot be had."""
    with pytest.raises(InputError, match="is no folder"):
        VQVAE.from_pretrained(tmp_path / "absent")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="neither a folder here nor a model that the Hub gave"):
        VQVAE.from_pretrained("nobody/nothing")


def test_push_to_hub_uploads_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Hub gets is the model folder."""
    calls: dict[str, object] = {}

    class Hub:
        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
            calls.update(repo_id=repo_id, private=private, exist_ok=exist_ok)
            return f"hub/{repo_id}"

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            calls["files"] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert PixelTokenizer().push_to_hub("me/pixels", private=True) == "hub/me/pixels"
    assert calls["private"] is True
    assert calls["files"] == ["README.md", "config.json", "manifest.json", "model.safetensors"]
