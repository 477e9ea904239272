"""Read a tokenizer that others trained: ``rasterwise import``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rasterwise.command_line.run import run_command
from rasterwise.configuration import configuration
from rasterwise.outputs import claim_new_folder
from stage1_vqvae.imported.opening import open_foreign


@configuration()
class Import:
    """Read a tokenizer that others trained, once, into a folder that every command here takes.

    It knows the VQGANs of taming-transformers, latent diffusion and LlamaGen, diffusers' VQModel, and transformers'
    JanusVQVAE and Emu3VQVAE, alone or inside a whole model. Nothing in a file is run.

    Attributes:
        source: A file of weights, a folder, or a Hub id.
        output: The tokenizer's new folder.
        file: The file of weights in a folder or on the Hub, of several.
        prefix: What the names of the tokenizer's weights begin with, where a file holds several tokenizers.
        revision: Branch, tag or commit of a Hub id.
        pixel_range: What images were in its training: "signed", [-1, 1], or "unit", [0, 1]. By default as its family
            has it.
        json: Print the report as JSON.
    """

    source: str
    output: Path = Path("runs/imported")
    file: str = ""
    prefix: str | None = None
    revision: str | None = None
    pixel_range: Literal["signed", "unit"] | None = None
    json: bool = False


def import_tokenizer(options: Import) -> dict[str, Any]:
    """Run the command; returns what the tokenizer is."""
    output = claim_new_folder(options.output)
    imported = open_foreign(
        options.source,
        file=options.file,
        prefix=options.prefix,
        revision=options.revision,
        pixel_range=options.pixel_range,
    )
    tokenizer = imported.tokenizer
    origin = f"Imported from {imported.file} of `{options.source}`, weights of {imported.family}."
    tokenizer.save_pretrained(output, card=origin)
    size = 16 * tokenizer.factor
    assert tokenizer.channels is not None
    return {
        "output": str(options.output),
        "family": imported.family,
        "file": imported.file,
        "kind": tokenizer.kind,
        "channels": tokenizer.channels,
        "factor": tokenizer.factor,
        "codebook_size": tokenizer.grid(tokenizer.channels, size, size).levels,
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),
        "fingerprint": tokenizer.fingerprint,
    }


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(import_tokenizer, Import, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
