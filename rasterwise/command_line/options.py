"""The options that every training command has."""

from __future__ import annotations

import inspect
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from rasterwise.configuration import configuration
from rasterwise.training.config import TrainingConfig

Options = TypeVar("Options", bound=type[Any])


@configuration(kw_only=True)
class TrainingOptions:
    """The options of every training command, which inherits them and is decorated with ``in_order``.

    Attributes:
        output: The run's folder.
        training: How it is trained.
        resume: Resume the run in this folder with its own configuration: no other option is needed, and those that
            are given must agree with it. Repeating the run's command resumes it as well.
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
    """Order a dataclass's fields: those in its own body first, then those that it only inherits.

    Help texts and run.json follow this order; by default, inherited fields come first. The fields must be
    keyword-only, since the order of the constructor's arguments does not change.

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
