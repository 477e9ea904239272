"""Files and folders of tokenizers that others trained, and repositories on the Hub."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file

from rasterwise.errors import InputError
from stage1_vqvae.imported.opening import open_foreign
from tests.stage1_vqvae.imported.vqgan_reference import FAMILIES, Architecture, Weights, vqgan_weights

SMALL = Architecture()


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    """One line, with this in it."""
    with pytest.raises(InputError, match=re.escape(message)) as error:
        yield
    assert "\n" not in str(error.value)


@pytest.fixture
def weights() -> Weights:
    """Of LlamaGen."""
    return {name: value.float() for name, value in vqgan_weights(FAMILIES["llamagen"], SMALL).items()}


@pytest.fixture
def expected(weights: Weights, tmp_path: Path) -> str:
    """The fingerprint of the tokenizer with these weights."""
    save_file(weights, tmp_path / "expected.safetensors")
    fingerprint = open_foreign(tmp_path / "expected.safetensors").tokenizer.fingerprint
    (tmp_path / "expected.safetensors").unlink()
    return fingerprint


@pytest.fixture
def lightning() -> Iterator[Any]:
    """A module of the name that Lightning's checkpoints point to, with a class that may not be made."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module: Any = types.ModuleType(name)

    class ModelCheckpoint:
        def __setstate__(self, state: object) -> None:
            raise AssertionError("it was made")

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    parents = ("pytorch_lightning", "pytorch_lightning.callbacks", name)
    for parent in parents:
        sys.modules[parent] = module if parent == name else types.ModuleType(parent)
    yield module
    for parent in parents:
        del sys.modules[parent]


def test_checkpoints_of_trainings(weights: Weights, expected: str, lightning: Any, tmp_path: Path) -> None:
    """Bare, in LlamaGen's, averaged first, and in Lightning's with classes of its own, which are not loaded."""
    path, other = tmp_path / "vq.pt", {name: value + 1 for name, value in weights.items()}
    kept = lightning.ModelCheckpoint()
    kept.best = 0.5
    for content in (
        weights,
        OrderedDict(weights),
        {"model": weights},
        {"model": other, "ema": weights, "optimizer": {"state": {}}, "args": argparse.Namespace(seed=1)},
        {
            "state_dict": weights | {"loss.logvar": torch.ones(1)},
            "epoch": 3,
            "callbacks": {lightning.ModelCheckpoint: {"best_model_score": torch.ones(1)}, "kept": kept},
        },
    ):
        torch.save(content, path)
        imported = open_foreign(path)
        assert imported.tokenizer.fingerprint == expected
        assert (imported.family, imported.file) == ("LlamaGen", "vq.pt")
    torch.save({"model": weights}, path, _use_new_zipfile_serialization=False)
    assert open_foreign(path).tokenizer.fingerprint == expected


class Harmful:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_more_than_weights(zipped: bool, weights: Weights, tmp_path: Path) -> None:
    """It is refused in one line, and what it would run is not run."""
    path = tmp_path / "vq.pt"
    torch.save(
        {"model": weights, "x": Harmful(tmp_path / "ran")}, path, _use_new_zipfile_serialization=zipped
    )
    with refused("vq.pt is a pickle of more than weights, and nothing in it was run ("):
        open_foreign(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_damaged_files(ending: str, weights: Weights, tmp_path: Path) -> None:
    """Empty, of text, cut short anywhere, or with a byte that is another one: one line, if it is found out."""
    path = tmp_path / f"vq.{ending}"
    if ending == "pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    whole = path.read_bytes()
    cut = [whole[: len(whole) * part // 7] for part in range(7)]
    for content in (*cut, whole[1:], b"hello", b"PK" + whole[5:]):
        path.write_bytes(content)
        with refused(f"vq.{ending}"):
            open_foreign(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"fc.weight": torch.ones(1)},
            "holds no tokenizer that is known (its first weight is 'fc.weight'); expected",
        ),
        ([torch.ones(1)], "holds no weights, expected tensors by name"),
        ({"model": {"a": 1}}, "holds no weights, expected tensors by name"),
        ({3: torch.ones(1)}, "holds no weights, expected tensors by name"),
        (torch.ones(1), "holds no weights, expected tensors by name"),
    ],
)
def test_files_of_something_else(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with refused(f"x.pt {message}"):
        open_foreign(tmp_path / "x.pt")


def test_which_file_of_a_folder(weights: Weights, expected: str, tmp_path: Path) -> None:
    """The only one, or the one that is named; safetensors before pickles."""
    folder = tmp_path / "folder"
    with refused("folder' is neither a file nor a folder"):
        open_foreign(folder)
    folder.mkdir()
    with refused("folder holds no weights, expected .safetensors or .ckpt"):
        open_foreign(folder)
    torch.save({name: value + 1 for name, value in weights.items()}, folder / "a.ckpt")
    assert open_foreign(folder).tokenizer.fingerprint != expected
    torch.save(weights, folder / "b.ckpt")
    with refused("holds 2 files of weights; name one with --file: a.ckpt, b.ckpt"):
        open_foreign(folder)
    with refused("folder holds no c.ckpt; it holds a.ckpt, b.ckpt"):
        open_foreign(folder, file="c.ckpt")
    assert open_foreign(folder, file="b.ckpt").tokenizer.fingerprint == expected
    save_file(weights, folder / "c.safetensors")
    assert open_foreign(folder).tokenizer.fingerprint == expected
    save_file(weights, folder / "d.safetensors")
    with refused("name one with --file: c.safetensors, d.safetensors"):
        open_foreign(folder)


def diffusers_folder(folder: Path, of: Architecture, **changes: object) -> Path:
    """As ``VQModel.save_pretrained`` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.float() for name, value in vqgan_weights(FAMILIES["diffusers"], of).items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "VQModel", "act_fn": "silu", "norm_num_groups": of.groups, "norm_type": "group"}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_diffusers(tmp_path: Path) -> None:
    """The configuration beside the weights says how many groups norms have; the pipeline, the range of pixels."""
    folder = diffusers_folder(tmp_path / "pipeline" / "vqvae", replace(SMALL, groups=8))
    for source, name, pixel_range in (
        (folder, None, "signed"),
        (folder, "VQDiffusionPipeline", "signed"),
        (folder, "AmusedPipeline", "unit"),
        (folder.parent, "AmusedPipeline", "unit"),
        (folder.parent, "VQDiffusionPipeline", "signed"),
    ):
        if name:
            (folder.parent / "model_index.json").write_text(json.dumps({"_class_name": name}))
        tokenizer: Any = open_foreign(source).tokenizer
        assert tokenizer.config.autoencoder.groups == 8
        assert tokenizer.config.autoencoder.pixel_range == pixel_range
    tokenizer = open_foreign(folder, pixel_range="unit").tokenizer
    assert tokenizer.config.autoencoder.pixel_range == "unit"
    for changes, message in (
        ({"norm_type": "spatial"}, "config.json has norm_type 'spatial', expected 'group'"),
        ({"act_fn": "gelu"}, "config.json has act_fn 'gelu', expected 'silu'"),
        ({"_class_name": "AutoencoderKL"}, "has _class_name 'AutoencoderKL', expected 'VQModel'"),
        ({"norm_num_groups": "8"}, "norm_num_groups"),
        ({"norm_num_groups": 7}, "groups is 7, expected a divisor of width 32"),
    ):
        with refused(message):
            open_foreign(diffusers_folder(folder, SMALL, **changes))


def test_against_diffusers_itself(tmp_path: Path) -> None:
    """Codes and images of the class in float64, where diffusers is installed."""
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is not installed: only the plain reference was compared with"
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")}
    blocks["up_block_types"] = ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")
    theirs = diffusers.VQModel(
        **blocks, block_out_channels=(32, 64), latent_channels=4, num_vq_embeddings=16, norm_num_groups=8
    )
    theirs.quantize.embedding.weight.data.normal_()
    theirs.save_pretrained(tmp_path)
    tokenizer, theirs = open_foreign(tmp_path).tokenizer.double(), theirs.double()
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        latents = theirs.encode(images.double() / 127.5 - 1).latents
        expected = theirs.quantize(latents)[2][2].view(2, 1, 4, 4)
        decoded = theirs.decode(latents).sample
    assert len(expected.unique()) > 2
    assert torch.equal(tokenizer.encode(images), expected)
    levels = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(tokenizer.decode(expected), levels)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is the Hub, with one repository; what was downloaded is in ``downloaded``."""
    root = tmp_path / "hub"

    def repository(repo_id: str) -> Path:
        if not (root / repo_id).is_dir():
            raise HfHubHTTPError(
                "404 Client Error: Repository Not Found\nIs it private?",
                response=types.SimpleNamespace(headers={}, request=None),
            )  # type: ignore[arg-type]
        return root / repo_id

    def listed(repo_id: str, *, revision: str | None = None) -> list[str]:
        files = repository(repo_id).rglob("*")
        return [file.relative_to(root / repo_id).as_posix() for file in files if file.is_file()]

    def download(repo_id: str, name: str, *, revision: str | None = None) -> str:
        copy = tmp_path / "downloaded" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copyfile(repository(repo_id) / name, copy))

    monkeypatch.setattr(huggingface_hub, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (root / "owner" / "name").mkdir(parents=True)
    return root / "owner" / "name"


def test_a_repository_on_the_hub(hub: Path, weights: Weights, expected: str, tmp_path: Path) -> None:
    """A file that is named; of a model in several files, the index and those that hold the tokenizer."""
    torch.save({"model": weights}, hub / "vq_ds16.pt")
    torch.save({}, hub / "gpt.pt")
    assert open_foreign("owner/name", file="vq_ds16.pt").tokenizer.fingerprint == expected
    with refused("owner/name holds 2 files of weights; name one with --file: gpt.pt"):
        open_foreign("owner/name")
    parts: dict[str, Weights] = {"1": {}, "2": {}, "3": {"head.weight": torch.ones(1)}}
    for number, (name, value) in enumerate(weights.items()):
        parts["12"[number % 2]][f"model.vqmodel.{name}"] = value
    for part, content in parts.items():
        save_file(content, hub / f"model-{part}.safetensors")
    index = {name: f"model-{part}.safetensors" for part, content in parts.items() for name in content}
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (hub / "config.json").write_text("{}")
    shutil.rmtree(tmp_path / "downloaded")
    assert open_foreign("owner/name").tokenizer.fingerprint == expected
    downloaded = {path.name for path in (tmp_path / "downloaded").iterdir()}
    assert downloaded == {"model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"}
    (hub / "model-3.safetensors").unlink()
    with refused("lists model-3.safetensors, which owner/name does not hold"):
        open_foreign("owner/name")


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have() -> None:
    """One line: the first of the Hub's."""
    with pytest.raises(InputError) as error:
        open_foreign("owner/absent")
    said = "'owner/absent' is neither a folder here nor what the Hub gave (404 Client Error: Repository Not Found)"
    assert str(error.value) == said
    for source in ("absent", "./absent", "/absent/x", "a/b/c"):
        with refused("is neither a file nor a folder; expected one, or a Hub id"):
            open_foreign(source)
