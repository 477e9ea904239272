"""Check on a checkpoint what must hold for every model: ``rasterwise verify``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from pipeline.models import open_model, open_tokenizer
from pipeline.verification.verify import verify
from rasterwise.command_line.run import run_command
from rasterwise.command_line.statuses import FAILED
from rasterwise.configuration import configuration
from rasterwise.errors import InputError, UnfinishedError
from rasterwise.images import Colour, open_image, pil_to_tensor, resized
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import local_folder
from rasterwise.progress import Progress
from rasterwise.tokenizers.image import ImageTokenizer


@configuration()
class Verify:
    """Check on a checkpoint what must hold for every model, with its weights and on its grid.

    The exit status is 1 if a property does not hold.

    Attributes:
        source: A pipeline's or a model's folder, a run's folder, or a Hub id.
        module: A model class of your own, as package.module:Class; it is looked for from the working folder too.
        images: Image files for the figures of a learned tokenizer's codes. By default images that it decodes random
            codes to.
        json: Print the report as JSON.
    """

    source: Annotated[str, tyro.conf.Positional]
    module: str = ""
    images: tuple[Path, ...] = ()
    json: bool = False


def run(options: Verify) -> dict[str, Any]:
    """Run the command."""
    model, tokenizer = _opened(options)
    images = None
    if options.images:
        channels, height, width = tokenizer.image_shape(model.grid) if tokenizer else model.grid.shape
        colour: Colour = "grey" if channels == 1 else "rgb"
        opened = [resized(open_image(path), height, width) for path in options.images]
        images = torch.stack([pil_to_tensor(image, colour) for image in opened])
    with Progress("verifying", "check") as progress:
        found = verify(model, tokenizer, images=images, progress=progress)
    report: dict[str, Any] = {"source": options.source, "failed": list(found.failed)}
    if options.json:
        report["checks"] = found.as_json()
    else:
        print(found, end="\n\n")
        report["failed"] = ", ".join(found.failed) or "none"
    if not found.passed:
        raise UnfinishedError(report, FAILED)
    return report


def _opened(options: Verify) -> tuple[AutoregressiveModel, ImageTokenizer | None]:
    """Model and tokenizer apart: a pipeline refuses two that do not fit, which is what is to be found out here."""
    folder = local_folder(options.source)
    whole = (folder / "tokenizer").is_dir() and (folder / "model").is_dir()
    source = folder / "model" if whole else folder
    model = _class_of(options.module).from_pretrained(source) if options.module else open_model(source)
    return model, open_tokenizer(folder / "tokenizer") if whole else None


def _class_of(name: str) -> type[AutoregressiveModel]:
    """The class that ``package.module:Class`` names."""
    module, _, class_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"module is {name!r}, expected package.module:Class ({error})") from None
    if not (isinstance(found, type) and issubclass(found, AutoregressiveModel)):
        raise InputError(f"{name} is no AutoregressiveModel; expected a subclass of it")
    return found


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(run, Verify, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
