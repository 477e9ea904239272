"""Model folders: what opens, and what is refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.models.pretrained import CONFIG_NAME, WEIGHTS_NAME
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from stage1_vqvae import VQVAE, VectorQuantizerConfig, VQVAEConfig

SMALL = VQVAEConfig(
    factor=2, quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4), width=16, blocks=1
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
    assert "Trained on nothing." in (saved / "README.md").read_text()
    assert {path.name for path in saved.iterdir()} == {CONFIG_NAME, WEIGHTS_NAME, "README.md"}


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
    """A folder that lacks a file."""
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}"):
        VQVAE.from_pretrained(saved)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_file_cut_short_is_named(saved: Path, name: str, share: float) -> None:
    """A download or copy that broke off."""
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=name):
        VQVAE.from_pretrained(saved)


def test_another_kind_is_refused(saved: Path) -> None:
    """A VQ-VAE is no pixel tokenizer."""
    with pytest.raises(InputError, match="holds a 'vqvae', expected a 'pixels'"):
        PixelTokenizer.from_pretrained(saved)


def test_weights_of_another_size_are_refused(saved: Path) -> None:
    """A configuration that was edited by hand."""
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
    with pytest.raises(InputError, match="damaged"):
        VQVAE.from_pretrained(saved)
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
    assert calls["files"] == ["README.md", "config.json", "model.safetensors"]
