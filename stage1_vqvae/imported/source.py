"""Where a tokenizer that others trained is: a file, a folder, or a repository on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rasterwise.errors import InputError
from rasterwise.files import member, read_json

WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""Names under which transformers and diffusers save weights; with ``.index.json`` behind it, of several files."""
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
"""How the names of files end that ``torch.save`` wrote."""
COMPONENT = "vqvae"
"""The folder of the tokenizer in a pipeline of diffusers."""
PIPELINE = "model_index.json"
"""What a pipeline of diffusers consists of."""


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold the weights of one model.

    Attributes:
        first: The name of the file, or of one of several.
        file_of: The file of each weight, where an index says so; else ``first`` alone holds all.
    """

    first: str
    file_of: dict[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """Files by their names in a folder or a repository.

    Attributes:
        text: What the user named.
        names: Of its files, with ``/`` where they are in a folder of it.
        path: A file by its name; it is downloaded where it is not here.
    """

    text: str
    names: tuple[str, ...]
    path: Callable[[str], Path]

    def weight_files(self, chosen: str = "") -> WeightFiles:
        """The files that hold the weights.

        Args:
            chosen: By the user; by default those that transformers or diffusers saved, or else the only one.

        Raises:
            InputError: It is not there; or none is, or several are.
        """
        if chosen:
            if chosen not in self.names:
                raise InputError(f"{self.text} holds no {chosen}; it holds {_some(self.names)}")
            return WeightFiles(chosen)
        for name in [f"{folder}{name}" for folder in ("", f"{COMPONENT}/") for name in WEIGHTS]:
            if name in self.names:
                return WeightFiles(name)
            if f"{name}.index.json" in self.names:
                path = self.path(f"{name}.index.json")
                parts = member(read_json(path), "weight_map", dict, path)
                folder = name[: name.rfind("/") + 1]
                file_of = {weight: f"{folder}{part}" for weight, part in parts.items()}
                absent = next((part for part in file_of.values() if part not in self.names), None)
                if absent or not file_of:
                    raise InputError(
                        f"{path} lists {absent or 'no weights'}, which {self.text} does not hold"
                    )
                return WeightFiles(next(iter(file_of.values())), file_of)
        for endings in ((".safetensors",), PICKLED):
            found = [name for name in self.names if name.endswith(endings)]
            if len(found) == 1:
                return WeightFiles(found[0])
            if found:
                raise InputError(
                    f"{self.text} holds {len(found)} files of weights; name one with --file: {_some(found)}"
                )
        raise InputError(
            f"{self.text} holds no weights, expected .safetensors or {', '.join(PICKLED)}; it holds {_some(self.names)}"
        )

    def beside(self, weights: str, name: str) -> Path | None:
        """A file in the folder of the weights; None where there is none."""
        whole = f"{weights.rpartition('/')[0]}/{name}".lstrip("/")
        return self.path(whole) if whole in self.names else None


def open_source(source: str | Path, revision: str | None = None) -> Source:
    """A file, a folder or a Hub id.

    Args:
        source: What the user named. A file is a folder of which it alone holds weights.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        InputError: It is not there.
    """
    path, text = Path(source).expanduser(), str(source)
    if path.is_file():
        others = [one.name for one in path.parent.glob("*.json")]
        return Source(text, (path.name, *others), path.parent.joinpath)
    if path.is_dir():
        names = [
            one.relative_to(path).as_posix()
            for pattern in ("*", "*/*")
            for one in path.glob(pattern)
            if one.is_file()
        ]
        return Source(text, tuple(sorted(names)), path.joinpath)
    if path.exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise InputError(f"{text!r} is neither a file nor a folder; expected one, or a Hub id (owner/name)")
    return _on_the_hub(text, revision)


def _on_the_hub(repository: str, revision: str | None) -> Source:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def refused(error: Exception) -> InputError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return InputError(f"{repository!r} is neither a folder here nor what the Hub gave ({reason})")

    def download(name: str) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            raise refused(error) from None

    try:
        names = huggingface_hub.list_repo_files(repository, revision=revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise refused(error) from None
    return Source(repository, tuple(sorted(names)), download)


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "nothing"
