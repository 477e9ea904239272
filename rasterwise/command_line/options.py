"""The options that every training command has."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rasterwise.training.config import TrainingConfig

Options = TypeVar("Options", bound=type[Any])


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training command is asked for, whatever it trains. A command inherits it, under ``in_order``.

    Attributes:
        output: The run's folder.
        training: How it is trained.
        resume: Go on with the run in this folder, as it was configured: nothing else needs to be given, and what
            is given must agree with it. The same command again does the same.
        dry_run: Print the resolved configuration, the parameters, the FLOPs of a step and the memory that it takes,
            and write nothing.
        force: Delete a run that is in the output folder and start anew.
        json: Print the report as JSON.
    """

    output: Path
    training: TrainingConfig = field(default_factory=TrainingConfig)
    resume: Path | None = None
    dry_run: bool = False
    force: bool = False
    json: bool = False


def in_order(options_class: Options) -> Options:
    """List the fields of a dataclass's own body first, in its order, and then those that it only inherits.

    Help texts and run.json follow this order. By itself, a dataclass lists inherited fields first. All fields must
    be keyword-only, so that the order is of no further consequence.

    Example:
        >>> import dataclasses
        >>> @in_order
        ... @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Train(TrainingOptions):
        ...     codes: Path = Path("codes")
        ...     output: Path = Path("run")
        >>> [one.name for one in dataclasses.fields(Train)]
        ['codes', 'output', 'training', 'resume', 'dry_run', 'force', 'json']
    """
    fields = options_class.__dataclass_fields__
    own = inspect.get_annotations(options_class)
    names = [*own, *(name for name in fields if name not in own)]
    options_class.__dataclass_fields__ = {name: fields[name] for name in names}
    return options_class
