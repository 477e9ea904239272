"""How a command is run: flags from a dataclass, one line for what a user can mend, a report at the end."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rasterwise.command_line.faults import ending_of
from rasterwise.command_line.options import TrainingOptions
from rasterwise.command_line.statuses import FAILED, USER_ERROR
from rasterwise.command_line.streams import show
from rasterwise.errors import InputError, UnfinishedError
from rasterwise.files import as_json as json_text
from rasterwise.outputs import claim_folder
from rasterwise.processes import (
    first_to_fail,
    is_main_process,
    leave_process_group,
    refuse_leftover_environment,
)

Options = TypeVar("Options")


def run_command(
    command: Callable[[Options], dict[str, Any]],
    options_class: type[Options],
    arguments: Sequence[str] | None = None,
    program: str | None = None,
    *,
    default: Options | None = None,
    resumes: str | None = None,
) -> int:
    """Parse flags, run a command, print its report; returns the exit status.

    Args:
        command: Takes the options and returns a report: JSON-like values by name.
        options_class: A dataclass: its fields, and those of the dataclasses in it, are the flags. A field
            ``json`` that is true has the report printed as JSON.
        arguments: The words after the program's name; by default those of this process.
        program: The program's name in help texts.
        default: Values of flags that are not given; by default the dataclass's own defaults.
        resumes: For a command that trains: the name of its runs in run.json. ``--resume RUN`` then takes the
            flags that are not given from that run, and refuses those that contradict it.
    """
    import tyro

    words = list(sys.argv[1:] if arguments is None else arguments)
    resumed = split_word(words, "--resume")[0] if resumes else None
    if resumed == "":
        return _refused("--resume is '', expected a run's folder")
    flags: tuple[Any, ...] = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    if resumed and resumes:
        from rasterwise.training.run.run_folder import read_options

        try:
            default = read_options(Path(resumed), resumes, options_class)
        except InputError as error:
            return _refused(str(error))
        # Pairs of --x and --no-x: with --no-x alone, a switch that is on in the run could not be given again.
        flags = (tyro.conf.OmitArgPrefixes,)
    try:
        options = _parsed(options_class, words, program, default, flags)
    except InputError as error:
        return _refused(str(error))

    def work() -> dict[str, Any]:
        if resumed:
            from rasterwise.training.run.run_folder import refuse_contradiction

            refuse_contradiction(default, options)
        if isinstance(options, TrainingOptions) and not options.dry_run:
            claim_folder(options.output)
        return command(options)

    return report_of(work, as_json=getattr(options, "json", False))


def _parsed(
    options_class: type[Options],
    words: Sequence[str],
    program: str | None,
    default: Options | None,
    flags: tuple[Any, ...],
) -> Options:
    """The options that flags stand for; an InputError of one line where tyro prints a box of several."""
    import tyro

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            options: Any = tyro.cli(options_class, args=words, prog=program, default=default, config=flags)
        return options
    except SystemExit as exit_:
        if not exit_.code:
            raise
        cause = exit_.__context__
        while cause and not isinstance(cause, InputError):
            cause = cause.__context__
        raise InputError(str(cause or _out_of_the_box(box.getvalue()))) from None


def _out_of_the_box(text: str) -> str:
    """What tyro says in its box: the message, and the name that it takes to be meant."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    # A terminal without Unicode gets no box: its title is then a part like the message, which comes next.
    inside = [line.strip("│ ") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    parts = re.split(r"\n[─-]{5,}\n", "\n".join(inside))
    found = parts[0 if "│" in plain else min(1, len(parts) - 1)]
    message = " ".join(found.split()).removeprefix("Error parsing ")
    message = re.sub(
        r": invalid literal for int\(\) with base 10: (.*)", r" is \1, expected a whole number", message
    )
    message = re.sub(r": could not convert string to float: (.*)", r" is \1, expected a number", message)
    message = re.sub(
        r": no type matching (.*?) could be instantiated from \['(.*?)'\].*",
        r" is '\2', expected \1",
        message,
    )
    meant = re.search(r"Perhaps you meant:\W*(--[\w-]+)", plain)
    return f"{message}; perhaps you meant {meant[1]}" if meant else message


def split_word(arguments: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag, None if it is not given, and the arguments without it."""
    value, rest, words = None, list[str](), iter(arguments)
    for word in words:
        if word == flag:
            value = next(words, "")
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
        else:
            rest.append(word)
    return value, rest


def report_of(work: Callable[[], dict[str, Any]], *, as_json: bool) -> int:
    """Do the work and print its report on standard output, or one line about an error on standard error.

    Of several processes, the first that fails says so. The others, which fail for want of it, leave quietly.
    """
    try:
        report, status = _reported(work)
        leave_process_group()
    except (Exception, KeyboardInterrupt) as error:
        ending, first = ending_of(error), first_to_fail()
        if ending is None and first:
            raise
        status = ending.status if ending else FAILED
        return _fail(ending.line, status) if ending and first else status
    if is_main_process():
        status = show(_json_text(report) if as_json else as_text(report)) or status
    return status


def _reported(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], int]:
    """The report of some work, and the exit status, which is another than 0 where the work is not done."""
    refuse_leftover_environment()
    try:
        return work(), 0
    except UnfinishedError as unfinished:
        return unfinished.report, unfinished.status


def _json_text(report: dict[str, Any]) -> str:
    """JSON in the characters that standard output has."""
    text = json_text(report)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2)
    return text


def as_text(report: dict[str, Any]) -> str:
    """A report as aligned lines; nested reports are indented under their name."""
    width = max((len(name) for name, value in report.items() if not isinstance(value, dict)), default=0)
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            lines += [name, *("  " + line for line in as_text(value).splitlines())]
        else:
            lines.append(f"{name:<{width}}  {_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _refused(message: str) -> int:
    """Refuse flags, which all processes of a run do, in one line of one of them."""
    return _fail(message, USER_ERROR) if first_to_fail() else USER_ERROR


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"rasterwise: {' '.join(message.split())}", file=sys.stderr)
    return status
