"""The command ``rasterwise``: a table of commands, each of which is loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

USAGE_ERROR = 2
HELP = ("-h", "--help", "help")

COMMANDS = {
    "quickstart": (
        "pipeline.commands.quickstart",
        "main",
        "start here: train both stages on built-in digits and draw new ones",
    ),
    "quickstart documents": (
        "pipeline.commands.quickstart",
        "main_documents",
        "the same with text: digits from captions, captions from digits, and documents of both",
    ),
    "train vqvae": ("stage1_vqvae.train", "main", "train a VQ-VAE on images"),
    "import": (
        "pipeline.commands.tokenizers.import_tokenizer",
        "main",
        "read a tokenizer that others trained: a VQGAN, or one of transformers or diffusers",
    ),
    "encode": (
        "pipeline.commands.encode",
        "main",
        "encode images, with captions or in documents, to codes with a trained VQ-VAE",
    ),
    "train prior": (
        "pipeline.commands.train",
        "main_prior",
        "train a transformer prior on codes, or a model of text and images",
    ),
    "train pixel": (
        "pipeline.commands.train",
        "main_pixel",
        "train a pixel-level model on images, or as a prior on codes",
    ),
    "sample": ("pipeline.commands.sample", "main", "draw new images"),
    "reconstruct": (
        "pipeline.commands.tokenizers.reconstruct",
        "main",
        "encode and decode images, to show what the tokenizer keeps",
    ),
    "caption": ("pipeline.commands.text.caption", "main", "write captions of images"),
    "generate": ("pipeline.commands.text.generate", "main", "continue documents of text and images"),
    "complete": ("pipeline.commands.complete", "main", "keep a part of images and draw the rest"),
    "evaluate": ("pipeline.commands.evaluate", "main", "measure a VQ-VAE or a pipeline on a test split"),
    "compress": ("pipeline.commands.compress", "main", "compress images by a model's probabilities"),
    "decompress": ("pipeline.commands.decompress", "main", "images of a file that compress wrote"),
    "verify": (
        "pipeline.commands.verify",
        "main",
        "check on a checkpoint what must hold for every model",
    ),
    "plot": ("pipeline.commands.plot", "main", "draw the learning curves of runs"),
    "compare resolution": (
        "pipeline.compare.commands.resolution",
        "main",
        "compare pixels and tokens: cost, likelihood and quality as images grow",
    ),
    "compare size": (
        "pipeline.compare.commands.size",
        "main",
        "compare sizes of one model, with power laws",
    ),
    "compare family": (
        "pipeline.compare.commands.family",
        "main",
        "compare all models at one resolution and budget",
    ),
    "compare tokenizer": (
        "pipeline.compare.commands.tokenizer",
        "main",
        "compare tokenizers at equal bits, each with a prior on its codes",
    ),
    "probe": (
        "pipeline.commands.probe",
        "main",
        "classify images by the features of each layer of an ImageGPT",
    ),
}
"""Module, function and description of each command."""


GROUPS = sorted({name.partition(" ")[0] for name in COMMANDS if " " in name})
"""First words that several commands share, such as ``train``."""


def commands_of(group: str = "") -> dict[str, str]:
    """What each command does, by its name; of one group, or of all."""
    return {name: text for name, (_, _, text) in COMMANDS.items() if group in ("", name.partition(" ")[0])}


def usage(group: str = "") -> str:
    """The help of the bare command, or of a group."""
    shown = commands_of(group)
    width = max(map(len, shown))
    table = [f"  {name:<{width}}  {text}" for name, text in shown.items()]
    if group:
        head = [f"usage: rasterwise {group} COMMAND [OPTIONS]", ""]
        tail = ["", f"rasterwise {group} COMMAND --help shows a command's options."]
    else:
        about = "Autoregressive image models, pixel by pixel and token by token."
        head = ["usage: rasterwise COMMAND [OPTIONS]", "", about, ""]
        order = "On your own images, in this order: train vqvae, encode, train prior, sample."
        tail = ["", "rasterwise COMMAND --help shows a command's options.", order]
    return "\n".join([*head, *table, *tail])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in HELP:
        print(usage())
        return 0
    if words[0] == "--version":
        from rasterwise import __version__

        print(f"rasterwise {__version__}")
        return 0
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            module, function, _ = COMMANDS[name]
            return getattr(importlib.import_module(module), function)(words[count:], f"rasterwise {name}")
    group = words[0] if words[0] in GROUPS else ""
    if group and (len(words) == 1 or words[1] in HELP):
        print(usage(group))
        return 0
    wanted = " ".join(words[:2]) if group else words[0]
    print(f"rasterwise: no command {wanted!r}; expected {', '.join(commands_of(group))}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
