"""Train a pixel-level model: ``rasterwise train pixel``, or ``python -m pixel_baselines.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from pixel_baselines.models import DEFAULT_MODEL, MODELS, model_of
from pixel_baselines.options import COMMAND, TrainPixel
from rasterwise.codes.dataset import CodeData, open_codes
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.training import read_images, run_training
from rasterwise.data.augmentation import augmented
from rasterwise.data.dataset import ImageData
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import CONFIG_NAME, read_kind
from rasterwise.tokenizers.image import ImageTokenizer
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, codes_task, images_task
from rasterwise.training.memory import built_to_fit
from rasterwise.training.objective import TrainingTask
from rasterwise.training.run.run_folder import MAY_DIFFER, MAY_MOVE, read_command


def train_pixel(options: TrainPixel[Any], decode: Decode | None = None) -> dict[str, Any]:
    """Run the command; returns its report.

    Args:
        options: The command's options.
        decode: Decodes codes to images, for sample images; not needed to train on images.
    """
    accelerator = start_accelerator(options.training)
    if options.codes is not None:
        task = _codes_task(options, open_codes(options.codes), accelerator, decode)
    else:
        task = _images_task(options, read_images(options.data, accelerator), accelerator)
    model: AutoregressiveModel = task.objective.model  # type: ignore[assignment]
    return run_training(
        dataclasses.replace(options, model=model.config),
        f"{COMMAND}{model.kind}",
        task,
        accelerator,
    )


def _codes_task(
    options: TrainPixel[Any], codes: CodeData, accelerator: Accelerator, decode: Decode | None
) -> TrainingTask:
    _refuse_beside_codes(options)
    config = dataclasses.replace(
        _without_order(options.model),
        grid=codes.key.grid,
        classes=codes.key.classes,
        tokenizer=codes.key.tokenizer,
    )
    model = built_to_fit(model_of, config, options.training, accelerator)
    return codes_task(model, codes, label_dropout=options.label_dropout, decode=decode)


def _refuse_beside_codes(options: TrainPixel[Any]) -> None:
    """Raise an InputError if an option is about images, none of which are read where codes are given."""
    if options.augmentation.active:
        raise InputError("codes are augmented as they are made: encode them with --copies, not here")
    of_images: list[tuple[Any, str]] = [(options, name) for name in ("levels", "dynamic", "palette")]
    of_images += [(options.data, option.name) for option in dataclasses.fields(options.data)]
    for part, name in of_images:
        if getattr(part, name) != getattr(type(part), name):
            raise InputError(
                f"--{name.replace('_', '-')} is about images, but --codes trains on codes; leave one of them out"
            )


def _images_task(options: TrainPixel[Any], images: ImageData, accelerator: Accelerator) -> TrainingTask:
    tokenizer = tokenizer_for(options, images)
    classes = images.classes if options.conditional else ()
    if options.conditional and not classes:
        raise InputError(
            f"dataset {options.data.dataset!r} has no classes to condition on; leave out --conditional"
        )
    config = dataclasses.replace(
        _without_order(options.model) if options.palette else options.model,
        grid=tokenizer.grid(*images.shape),
        classes=classes,
        tokenizer=tokenizer.fingerprint,
    )
    images = dataclasses.replace(images, train=augmented(images.train, options.augmentation))
    model = built_to_fit(model_of, config, options.training, accelerator)
    return images_task(model, tokenizer.to(accelerator.device), images, label_dropout=options.label_dropout)


def tokenizer_for(options: TrainPixel[Any], images: ImageData) -> ImageTokenizer:
    """The pixel tokenizer that the flags ask for, or a palette fitted to the training images."""
    if options.palette:
        if options.levels != TrainPixel.levels or options.dynamic:
            raise InputError("--palette takes the place of --levels and --dynamic; give one or the other")
        config = PaletteConfig(colours=options.palette, channels=images.shape[0])
        tokenizer: ImageTokenizer = _palette_of_run(options, config) or PaletteTokenizer(config).fit(
            images.train
        )
    else:
        tokenizer = PixelTokenizer(PixelTokenizerConfig(options.levels, options.dynamic))
    tokenizer.trained_on = dataclasses.asdict(options.data)
    return tokenizer


def _palette_of_run(options: TrainPixel[Any], config: PaletteConfig) -> PaletteTokenizer | None:
    """The palette of the run in the output folder, since k-means on another machine may round differently."""
    folder = options.output / "tokenizer"
    if options.force or not (folder / CONFIG_NAME).exists() or read_kind(folder) != PaletteTokenizer.kind:
        return None
    palette = PaletteTokenizer.from_pretrained(folder)
    before, now = (
        {name: value for name, value in data.items() if f"data.{name}" not in MAY_DIFFER + MAY_MOVE}
        for data in (palette.trained_on, dataclasses.asdict(options.data))
    )
    return palette if (palette.config, before) == (config, now) else None


def _without_order(config: Any) -> Any:
    """The configuration for symbols that have no order."""
    return dataclasses.replace(config, embedding="learned") if hasattr(config, "embedding") else config


def run(arguments: Sequence[str] | None, program: str | None, command: Any = train_pixel) -> int:
    """Run the command with the flags of the model that --model names, and with a recipe's values as defaults."""
    from pixel_baselines.recipes import RECIPES

    name, rest = split_word(sys.argv[1:] if arguments is None else arguments, "--model")
    recipe, rest = split_word(rest, "--recipe")
    try:
        name = _model_of_run(rest, name, recipe) or name or DEFAULT_MODEL
    except InputError as error:
        print(f"rasterwise: {error}", file=sys.stderr)
        return USER_ERROR
    models = RECIPES.get(recipe or "", MODELS)
    for flag, word, known in (("--recipe", recipe, RECIPES), ("--model", name, models)):
        if word is not None and word not in known:
            print(f"rasterwise: {flag} is {word!r}, expected one of {', '.join(known)}", file=sys.stderr)
            return USER_ERROR
    shown = f"{program or 'python -m pixel_baselines.train'} --model {{{','.join(MODELS)}}}"
    shown += f" [--recipe {{{','.join(RECIPES)}}}]"
    default = RECIPES[recipe][name]() if recipe else None
    options_class: Any = TrainPixel[MODELS[name].config_class]  # type: ignore[misc]
    return run_command(command, options_class, rest, shown, default=default, resumes=f"{COMMAND}{name}")


def _model_of_run(arguments: Sequence[str], name: str | None, recipe: str | None) -> str | None:
    """The model of the run that --resume names, if it is given; --model and --recipe must not contradict it."""
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
