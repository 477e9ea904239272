"""Train a prior: ``rasterwise train prior``, or ``python -m stage2_prior.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rasterwise.codes.dataset import grids_in, open_codes, smallest_codebook_in
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.training import run_training
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, codes_task
from rasterwise.training.memory import built_to_fit
from rasterwise.training.run.run_folder import read_command
from stage2_prior.any_order.model import AnyOrderPrior
from stage2_prior.any_order.objective import AnyOrderObjective
from stage2_prior.models import TEXT_MODELS, code_model_of
from stage2_prior.options import (
    COMMAND,
    TrainAnyOrderPrior,
    TrainHierarchicalPrior,
    TrainPrior,
    TrainTextPrior,
)
from stage2_prior.text_task import text_task

TRANSFORMER, HIERARCHICAL, ANY_ORDER = "transformer", "hierarchical", "any-order"

PRIORS: dict[str, type[TrainPrior]] = {
    TRANSFORMER: TrainPrior,
    HIERARCHICAL: TrainHierarchicalPrior,
    ANY_ORDER: TrainAnyOrderPrior,
}
"""The options of priors of codes alone, by their words in ``--model``."""


def train_prior(options: TrainPrior, decode: Decode | None = None) -> dict[str, Any]:
    """Train a prior of codes alone; returns the report.

    Args:
        options: The command's options.
        decode: Decodes codes to images, for sample images during the training; this room has no tokenizer.
    """
    accelerator = start_accelerator(options.training)
    codes = open_codes(options.codes)
    word = next(word for word, options_class in PRIORS.items() if options_class is type(options))
    if word == HIERARCHICAL and grids_in(options.codes) == 1:
        raise InputError(
            f"{options.codes} holds codes of one grid, but --model {word} is of two; leave --model out, or encode "
            "with a tokenizer that was trained with --grids 2"
        )
    config = dataclasses.replace(
        options.model,
        grid=codes.key.grid,
        classes=codes.key.classes,
        tokenizer=codes.key.tokenizer,
        # An any-order prior takes codes of a codebook that grows unmasked.
        smallest_codebook=0 if word == ANY_ORDER else smallest_codebook_in(options.codes),
    )
    model = built_to_fit(code_model_of(config), config, options.training, accelerator)
    task = codes_task(model, codes, label_dropout=options.label_dropout, decode=decode)
    if isinstance(options, TrainAnyOrderPrior):
        task = dataclasses.replace(task, objective=any_order_objective(model, options))
    return run_training(dataclasses.replace(options, model=config), run_name(word), task, accelerator)


def any_order_objective(model: AutoregressiveModel, options: TrainAnyOrderPrior) -> AnyOrderObjective:
    """What the training of an any-order prior minimises."""
    assert isinstance(model, AnyOrderPrior), "the configuration is that of an any-order prior"
    return AnyOrderObjective(
        model,
        seed=options.training.seed,
        anneal_from=options.anneal_from,
        anneal_to=options.anneal_to,
        label_dropout=options.label_dropout,
    )


def train_text_prior(options: TrainTextPrior[Any], decode: Decode | None = None) -> dict[str, Any]:
    """Train a model of text and images; returns the report. Arguments as for ``train_prior``."""
    accelerator = start_accelerator(options.training)
    task = text_task(options, decode)
    model = task.objective.model
    resolved = dataclasses.replace(options, model=model.config)
    return run_training(resolved, run_name(model.kind), task, accelerator)


def run_name(word: str) -> str:
    """What run.json calls the runs of a model, given its word in ``--model``."""
    return COMMAND if word == TRANSFORMER else f"{COMMAND} --model {word}"


Train = Callable[[Any], dict[str, Any]]
"""Options to a report."""


def run(
    arguments: Sequence[str] | None,
    program: str | None,
    prior: Train = train_prior,
    text_prior: Train = train_text_prior,
) -> int:
    """Run the command with the flags of the model that --model names.

    Args:
        arguments: The words after the program's name.
        program: Its name.
        prior: Trains a prior of codes alone.
        text_prior: Trains a model of text and images.
    """
    name, rest = split_word(sys.argv[1:] if arguments is None else arguments, "--model")
    known = (*PRIORS, *TEXT_MODELS)
    try:
        name = _model_of_run(rest, name) or name or _model_of_codes(rest)
        if name not in known:
            raise InputError(f"--model is {name!r}, expected one of {', '.join(known)}")
    except InputError as error:
        print(f"rasterwise: {error}", file=sys.stderr)
        return USER_ERROR
    shown = f"{program or 'python -m stage2_prior.train'} [--model {{{','.join(known)}}}]"
    if name in PRIORS:
        return run_command(prior, PRIORS[name], rest, shown, resumes=run_name(name))
    config_class = TEXT_MODELS[name].config_class
    options_class: Any = TrainTextPrior[config_class]  # type: ignore[valid-type]
    default = options_class(model=config_class())
    return run_command(text_prior, options_class, rest, shown, default=default, resumes=run_name(name))


def _model_of_run(arguments: Sequence[str], name: str | None) -> str | None:
    """The model of the run that --resume names, if it is given; --model must not contradict it."""
    run = split_word(arguments, "--resume")[0]
    if not run:
        return None
    found = read_command(Path(run)).removeprefix(COMMAND).removeprefix(" --model ") or TRANSFORMER
    if name not in (None, found):
        raise InputError(f"--model is {name!r}, but the run in {run} has {found!r}; leave --model out")
    return found if found in (*PRIORS, *TEXT_MODELS) else name


def _model_of_codes(arguments: Sequence[str]) -> str:
    """The model for codes of as many grids as there are in the folder that --codes names."""
    try:
        grids = grids_in(Path(split_word(arguments, "--codes")[0] or TrainPrior.codes))
    except InputError:  # the command itself says what is wrong with them
        return TRANSFORMER
    return TRANSFORMER if grids == 1 else HIERARCHICAL


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command, without sample images."""
    return run(arguments, program)


if __name__ == "__main__":
    sys.exit(main())
