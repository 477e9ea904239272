"""Model folders: config.json, model.safetensors and a model card, saved and opened alike by every model."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from rasterwise.configuration import identity_of
from rasterwise.errors import InputError
from rasterwise.files import (
    MANIFEST_NAME,
    from_json,
    load_tensors,
    member,
    new_folder,
    read_json,
    recover,
    save_tensors,
    verify_manifest,
    write_json,
    write_manifest,
)
from rasterwise.rooms import ROOMS


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, the mode before it afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
BPE_NAME = "tokenizer.json"
"""Of a text tokenizer that was trained."""
CONTENT = (CONFIG_NAME, WEIGHTS_NAME)
"""The files that a model is opened from, which its manifest lists. The card may be edited."""
MEND = f"restore it from a copy or save the model again; if the change is yours, delete {MANIFEST_NAME}"


class Pretrained(nn.Module):
    """A module built from a frozen dataclass alone, which can be saved to a folder and opened again.

    A subclass names its ``kind`` (the word in config.json) and its ``config_class``, and takes the
    configuration as its only constructor argument. Nothing here pickles or unpickles.

    Attributes:
        can_be_sharded: Whether a training may share its weights out over processes (FSDP).
        config: The configuration.
        trained_on: The data's configuration, as JSON; saved with the model, so that nobody restates it. It is
            no part of the fingerprint.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type]
    can_be_sharded: ClassVar[bool] = False
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.trained_on: dict[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the kind, the configuration and every weight: equal only for equal models."""
        digest = hashlib.sha256(json.dumps([self.kind, self.identity()]).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """What the fingerprint hashes of the configuration. It may never change for models that are saved already."""
        return identity_of(self.config)

    @classmethod
    def config_from_json(cls, content: dict[str, Any], where: object) -> Any:
        """The configuration in config.json; a subclass also reads what earlier versions wrote.

        Args:
            content: The configuration as JSON.
            where: Names it in an error.

        Raises:
            InputError: A field does not fit.
        """
        return from_json(cls.config_class, content, where)

    def checkpointed_layers(self) -> list[nn.Module]:
        """What gradient checkpointing computes twice: here every member of a ModuleList.

        None of them may change a state as it computes, or be part of another one.
        """
        lists = [module for module in self.modules() if isinstance(module, nn.ModuleList)]
        return [layer for layers in lists for layer in layers]

    def save_pretrained(self, folder: str | Path, *, card: str = "") -> Path:
        """Save to a folder, replacing a model that is there.

        Args:
            folder: Where to; it appears whole or not at all.
            card: Markdown below the model card's heading: what the model was trained on, its scores.
        """
        folder = Path(folder)
        recover(folder)
        if folder.exists() and not (folder / CONFIG_NAME).exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no model; save to a new folder")
        with new_folder(folder) as pending:
            content = {
                "library": "rasterwise",
                "kind": self.kind,
                "config": dataclasses.asdict(self.config),
                "trained_on": self.trained_on,
                "fingerprint": self.fingerprint,
            }
            write_json(pending / CONFIG_NAME, content)
            save_tensors(self.state_dict(), pending / WEIGHTS_NAME)
            (pending / CARD_NAME).write_text(self._card(card), encoding="utf-8")
            write_manifest(pending, CONTENT)
        return folder

    def _card(self, text: str) -> str:
        parameters = sum(parameter.numel() for parameter in self.parameters())
        name, package = type(self).__name__, type(self).__module__.partition(".")[0]
        where = "rasterwise" if package in ROOMS else package
        return (
            f"---\nlibrary_name: rasterwise\ntags:\n- rasterwise\n- {self.kind}\n---\n\n"
            f"# {self.kind}\n\n{parameters:,} parameters. Open it with "
            f"`from {where} import {name}` and `{name}.from_pretrained(FOLDER)`.\n\n{text}\n"
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Open a model in evaluation mode.

        Args:
            source: A model folder, a training run's folder (its ``model/``), or a Hub id.
            revision: Branch, tag or commit of a Hub id.

        Raises:
            InputError: The folder is absent, lacks a file, is not what was saved, holds another kind of model, or
                weights that are infinite or NaN.
        """
        folder = model_folder(source, revision)
        verify_manifest(folder, CONTENT, MEND)
        path = folder / CONFIG_NAME
        content = read_json(path)
        kind = member(content, "kind", str, path)
        if kind != cls.kind:
            raise InputError(f"{folder} holds a {kind!r}, expected a {cls.kind!r}")
        model = cls._built(cls.config_from_json(member(content, "config", dict, path), path), path)
        weights = folder / WEIGHTS_NAME
        load_weights(model, load_tensors(weights), weights, f"the {CONFIG_NAME} of its folder")
        model.trained_on = member(content, "trained_on", dict, path, {})
        return model.eval()

    @classmethod
    def _built(cls, config: Any, path: Path) -> Self:
        try:
            return cls(config)
        except InputError:
            raise
        except Exception as error:  # a library has errors of its own for a value that no check has seen
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} describes a {cls.kind} that cannot be built ({reason})") from error

    def push_to_hub(self, repo_id: str, *, private: bool = False, card: str = "") -> str:
        """Upload to the Hugging Face Hub; returns the address of the model."""
        import tempfile

        with tempfile.TemporaryDirectory() as temporary:
            return upload_folder(self.save_pretrained(Path(temporary) / "model", card=card), repo_id, private)


def load_weights(module: nn.Module, weights: dict[str, Tensor], where: object, owner: str) -> None:
    """Give a module its weights.

    Args:
        module: As it was built. Weights may be infinite or NaN only where the module is: the colours of a palette
            are NaN until they are fitted.
        weights: By the names of its state dict.
        where: What errors name.
        owner: What the weights must fit, for the error.

    Raises:
        InputError: The weights are infinite or NaN, or do not fit the module.
    """
    fresh = module.state_dict()
    for name, tensor in weights.items():
        finite = tensor.isfinite()
        if not finite.all() and not (name in fresh and torch.equal(finite, fresh[name].isfinite().cpu())):
            raise InputError(
                f"{where} has {int((~finite).sum()):,} of {tensor.numel():,} numbers in {name} that are infinite or "
                "NaN, expected finite weights; take the weights of an earlier step"
            )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()]
        raise InputError(f"{where} does not fit {owner}: {lines[min(1, len(lines) - 1)][:300]}") from None


def upload_folder(folder: Path, repo_id: str, private: bool) -> str:
    """Upload a model folder to the Hugging Face Hub; returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    address = api.create_repo(repo_id, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=folder)
    return str(address)


def model_folder(source: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: given as such, as the training run around it, or as a Hub id."""
    folder = local_folder(source, revision)
    recover(folder / "model")
    return folder if (folder / CONFIG_NAME).exists() or not (folder / "model").is_dir() else folder / "model"


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """``source`` as a local folder; a Hub id is downloaded first."""
    folder = Path(source).expanduser()
    recover(folder)
    if folder.is_dir():
        return folder
    text = str(source)
    if folder.exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise InputError(
            f"{text!r} is no folder; expected a model folder, a run folder or a Hub id (owner/name)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        patterns = [*CONTENT, BPE_NAME, MANIFEST_NAME, CARD_NAME]
        allowed = patterns + [f"*/{pattern}" for pattern in patterns]
        return Path(snapshot_download(text, revision=revision, allow_patterns=allowed))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{text!r} is neither a folder here nor a model that the Hub gave ({reason})"
        ) from None


def read_kind(source: str | Path) -> str:
    """The kind of the model in a folder, as its config.json says."""
    path = model_folder(source) / CONFIG_NAME
    return member(read_json(path), "kind", str, path)


def read_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the model saved in a folder, without opening it; None where an earlier version saved it.

    Raises:
        InputError: The folder is not what was saved.
    """
    verify_manifest(folder, CONTENT, MEND)
    path = folder / CONFIG_NAME
    return member(read_json(path), "fingerprint", str, path, "") or None
