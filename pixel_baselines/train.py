"""Train a pixel-level model: ``rasterwise train pixel``, or ``python -m pixel_baselines.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from pixel_baselines.models import DEFAULT_MODEL, MODELS
from pixel_baselines.options import COMMAND, TrainPixel
from rasterwise.codes.dataset import open_codes
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.data.augmentation import augmented
from rasterwise.data.dataset import ImageData, broken_images, open_images
from rasterwise.data.splits import Split
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import CONFIG_NAME, read_kind
from rasterwise.progress import Progress
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, train_on_codes, train_on_images
from rasterwise.training.dry_run import dry_run
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.run.run_folder import MAY_DIFFER, RunFolder, read_command


def train_pixel(options: TrainPixel[Any], decode: Decode | None = None) -> dict[str, Any]:
    """Run the command; returns the run's report.

    Args:
        options: The flags.
        decode: The tokenizer's of the codes, for sample images; images need none.
    """
    accelerator = start_accelerator(options.training)
    main = accelerator.is_main_process
    model_class = next(model for model in MODELS.values() if model.config_class is type(options.model))
    if options.codes is not None:
        if options.augmentation.active:
            raise InputError("codes are augmented as they are made: encode them with --copies, not here")
        codes = open_codes(options.codes)
        config = dataclasses.replace(
            _without_order(options.model),
            grid=codes.key.grid,
            classes=codes.key.classes,
            tokenizer=codes.key.tokenizer,
        )
        if options.dry_run:
            return _dry_run(options, model_class(config), None, codes.train, accelerator)
        run = _claim(options, config, main)
        accelerator.wait_for_everyone()
        return run.report or train_on_codes(
            model_class(config),
            codes,
            options.training,
            run,
            accelerator,
            label_dropout=options.label_dropout,
            decode=decode,
        )
    with Progress("reading images", "image", shown=main) as progress:
        images = open_images(options.data, progress)
    tokenizer = tokenizer_for(options, images)
    classes = images.classes if options.conditional else ()
    if options.conditional and not classes:
        raise InputError(
            f"dataset {options.data.dataset!r} has no classes to tell the model; leave out --conditional"
        )
    config = dataclasses.replace(
        _without_order(options.model) if options.palette else options.model,
        grid=tokenizer.grid(*images.shape),
        classes=classes,
        tokenizer=tokenizer.fingerprint,
    )
    images = dataclasses.replace(images, train=augmented(images.train, options.augmentation))
    if options.dry_run:
        return _dry_run(options, model_class(config), tokenizer, images.train, accelerator)
    run = _claim(options, config, main)
    accelerator.wait_for_everyone()
    report = run.report or train_on_images(
        model_class(config),
        tokenizer,
        images,
        options.training,
        run,
        accelerator,
        label_dropout=options.label_dropout,
    )
    broken = {"broken_images": broken_images(images, accelerator)} if options.data.skip_broken else {}
    return {**report, **broken}


def _dry_run(
    options: TrainPixel[Any],
    model: AutoregressiveModel,
    tokenizer: Any,
    split: Split,
    accelerator: Accelerator,
) -> dict[str, Any]:
    if tokenizer is not None:
        tokenizer.to(accelerator.device)
    objective = LikelihoodObjective(model, tokenizer, options.label_dropout)
    resolved = dataclasses.replace(options, model=model.config)
    return dry_run(resolved, objective, split, options.training, accelerator)


def tokenizer_for(options: TrainPixel[Any], images: ImageData) -> Any:
    """The pixel tokenizer that the flags ask for, or a palette fitted to the training images."""
    if options.palette:
        if options.levels != TrainPixel.levels or options.dynamic:
            raise InputError("--palette takes the place of --levels and --dynamic; give one or the other")
        config = PaletteConfig(colours=options.palette, channels=images.shape[0])
        tokenizer: Any = _palette_of_run(options, config) or PaletteTokenizer(config).fit(images.train)
    else:
        tokenizer = PixelTokenizer(PixelTokenizerConfig(options.levels, options.dynamic))
    tokenizer.trained_on = dataclasses.asdict(options.data)
    return tokenizer


def _palette_of_run(options: TrainPixel[Any], config: PaletteConfig) -> PaletteTokenizer | None:
    """The palette that the run in the output folder has: another machine's k-means may round otherwise."""
    folder = options.output / "tokenizer"
    if options.force or not (folder / CONFIG_NAME).exists() or read_kind(folder) != PaletteTokenizer.kind:
        return None
    palette = PaletteTokenizer.from_pretrained(folder)
    before, now = (
        {name: value for name, value in data.items() if f"data.{name}" not in MAY_DIFFER}
        for data in (palette.trained_on, dataclasses.asdict(options.data))
    )
    return palette if (palette.config, before) == (config, now) else None


def _without_order(config: Any) -> Any:
    """The configuration for symbols whose numbers are no intensities."""
    return dataclasses.replace(config, embedding="learned") if hasattr(config, "embedding") else config


def _claim(options: TrainPixel[Any], config: Any, main: bool) -> RunFolder:
    resolved = dataclasses.replace(options, model=config)
    return RunFolder.claim(options.output, COMMAND + _name(config), resolved, force=options.force, main=main)


def _name(config: Any) -> str:
    return next(name for name, model in MODELS.items() if model.config_class is type(config))


def run(arguments: Sequence[str] | None, program: str | None, command: Any = train_pixel) -> int:
    """Run the command with the flags of the model that --model names, from where a recipe starts."""
    from pixel_baselines.recipes import RECIPES

    name, rest = split_word(sys.argv[1:] if arguments is None else arguments, "--model")
    recipe, rest = split_word(rest, "--recipe")
    try:
        name = _model_of_run(rest, name, recipe) or name or DEFAULT_MODEL
    except InputError as error:
        print(f"rasterwise: {error}", file=sys.stderr)
        return USER_ERROR
    for flag, word, known in (("--model", name, MODELS), ("--recipe", recipe, RECIPES)):
        if word is not None and word not in known:
            print(f"rasterwise: {flag} is {word!r}, expected one of {', '.join(known)}", file=sys.stderr)
            return USER_ERROR
    shown = f"{program or 'python -m pixel_baselines.train'} --model {{{','.join(MODELS)}}}"
    shown += f" [--recipe {{{','.join(RECIPES)}}}]"
    default = RECIPES[recipe][name]() if recipe else None
    options_class: Any = TrainPixel[MODELS[name].config_class]  # type: ignore[misc]
    return run_command(command, options_class, rest, shown, default=default, resumes=f"{COMMAND}{name}")


def _model_of_run(arguments: Sequence[str], name: str | None, recipe: str | None) -> str | None:
    """The model of the run that --resume goes on with, if it is given; --model and --recipe may not contradict it."""
    run = split_word(arguments, "--resume")[0]
    if not run:
        return None
    if recipe is not None:
        raise InputError(
            f"--recipe is {recipe!r}, but the run in {run} has its configuration; leave --recipe out"
        )
    command = read_command(Path(run))
    found = command.removeprefix(COMMAND)
    if found in MODELS and name not in (None, found):
        raise InputError(f"--model is {name!r}, but the run in {run} has {found!r}; leave --model out")
    return found if found in MODELS else name


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run(arguments, program)


if __name__ == "__main__":
    sys.exit(main())
