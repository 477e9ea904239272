"""Train a prior: ``rasterwise train prior``, or ``python -m stage2_prior.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rasterwise.codes.dataset import open_codes
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.training import run_training
from rasterwise.errors import InputError
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, codes_task
from rasterwise.training.memory import built_to_fit
from rasterwise.training.run.run_folder import read_command
from stage2_prior.any_order.model import AnyOrderPrior
from stage2_prior.any_order.objective import AnyOrderObjective
from stage2_prior.models import TEXT_MODELS
from stage2_prior.options import COMMAND, TrainAnyOrderPrior, TrainPrior, TrainTextPrior
from stage2_prior.text_task import text_task
from stage2_prior.transformer.model import TransformerPrior

TRANSFORMER = "transformer"
"""The word for a transformer prior, which knows no text, in ``--model``."""

ANY_ORDER = "any-order"
"""The word for an any-order prior."""


def train_prior(options: TrainPrior, decode: Decode | None = None) -> dict[str, Any]:
    """Train a transformer prior; returns the report.

    Args:
        options: The command's options.
        decode: Decodes codes to images, for sample images during the training; this room has no tokenizer.
    """
    accelerator = start_accelerator(options.training)
    codes = open_codes(options.codes)
    config = dataclasses.replace(
        options.model, grid=codes.key.grid, classes=codes.key.classes, tokenizer=codes.key.tokenizer
    )
    model = built_to_fit(TransformerPrior, config, options.training, accelerator)
    task = codes_task(model, codes, label_dropout=options.label_dropout, decode=decode)
    return run_training(dataclasses.replace(options, model=config), COMMAND, task, accelerator)


def train_any_order_prior(options: TrainAnyOrderPrior, decode: Decode | None = None) -> dict[str, Any]:
    """Train an any-order prior on a dataset of codes; returns the report. Arguments as for ``train_prior``."""
    accelerator = start_accelerator(options.training)
    codes = open_codes(options.codes)
    config = dataclasses.replace(
        options.model, grid=codes.key.grid, classes=codes.key.classes, tokenizer=codes.key.tokenizer
    )
    model = built_to_fit(AnyOrderPrior, config, options.training, accelerator)
    objective = AnyOrderObjective(
        model,
        seed=options.training.seed,
        anneal_from=options.anneal_from,
        anneal_to=options.anneal_to,
        label_dropout=options.label_dropout,
    )
    task = codes_task(model, codes, label_dropout=options.label_dropout, decode=decode)
    task = dataclasses.replace(task, objective=objective)
    resolved = dataclasses.replace(options, model=config)
    return run_training(resolved, f"{COMMAND} --model {ANY_ORDER}", task, accelerator)


def train_text_prior(options: TrainTextPrior[Any], decode: Decode | None = None) -> dict[str, Any]:
    """Train a model of text and images; returns the report. Arguments as for ``train_prior``."""
    accelerator = start_accelerator(options.training)
    task = text_task(options, decode)
    model = task.objective.model
    resolved = dataclasses.replace(options, model=model.config)
    return run_training(resolved, f"{COMMAND} --model {model.kind}", task, accelerator)


Train = Callable[[Any], dict[str, Any]]
"""Options to a report."""


def run(
    arguments: Sequence[str] | None,
    program: str | None,
    prior: Train = train_prior,
    any_order_prior: Train = train_any_order_prior,
    text_prior: Train = train_text_prior,
) -> int:
    """Run the command with the flags of the model that --model names.

    Args:
        arguments: The words after the program's name.
        program: Its name.
        prior: Trains a transformer prior.
        any_order_prior: Trains an any-order prior.
        text_prior: Trains a model of text and images.
    """
    name, rest = split_word(sys.argv[1:] if arguments is None else arguments, "--model")
    known = (TRANSFORMER, ANY_ORDER, *TEXT_MODELS)
    try:
        name = _model_of_run(rest, name) or name or TRANSFORMER
        if name not in known:
            raise InputError(f"--model is {name!r}, expected one of {', '.join(known)}")
    except InputError as error:
        print(f"rasterwise: {error}", file=sys.stderr)
        return USER_ERROR
    shown = f"{program or 'python -m stage2_prior.train'} [--model {{{','.join(known)}}}]"
    if name == TRANSFORMER:
        return run_command(prior, TrainPrior, rest, shown, resumes=COMMAND)
    if name == ANY_ORDER:
        return run_command(
            any_order_prior, TrainAnyOrderPrior, rest, shown, resumes=f"{COMMAND} --model {ANY_ORDER}"
        )
    config_class = TEXT_MODELS[name].config_class
    options_class: Any = TrainTextPrior[config_class]  # type: ignore[valid-type]
    default = options_class(model=config_class())
    return run_command(
        text_prior, options_class, rest, shown, default=default, resumes=f"{COMMAND} --model {name}"
    )


def _model_of_run(arguments: Sequence[str], name: str | None) -> str | None:
    """The model of the run that --resume names, if it is given; --model must not contradict it."""
    run = split_word(arguments, "--resume")[0]
    if not run:
        return None
    found = read_command(Path(run)).removeprefix(COMMAND).removeprefix(" --model ") or TRANSFORMER
    if name not in (None, found):
        raise InputError(f"--model is {name!r}, but the run in {run} has {found!r}; leave --model out")
    return found if found in (TRANSFORMER, ANY_ORDER, *TEXT_MODELS) else name


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command, without sample images."""
    return run(arguments, program)


if __name__ == "__main__":
    sys.exit(main())
