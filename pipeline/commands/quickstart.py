"""Both stages on real digits in a few minutes: ``rasterwise quickstart``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterwise.command_line.run import run_command
from rasterwise.configuration import configuration
from rasterwise.training.run.run_folder import RunFolder


@configuration()
class Quickstart:
    """Train both stages on 1,797 real handwritten digits, and draw new ones.

    Attributes:
        output: The folder for everything that it makes. Run again, it goes on, or shows the report.
        force: Delete what is in the folder and start anew.
        json: Print the report as JSON.
    """

    output: Path = Path("runs/quickstart")
    force: bool = False
    json: bool = False


def quickstart(options: Quickstart) -> dict[str, Any]:
    """Run the command; returns the report, which is also written to ``report.json``."""
    run = RunFolder.claim(options.output, "quickstart", options, force=options.force)
    if run.report:
        return run.report
    run.begin()
    from pipeline.commands.digits import make_digits

    report = make_digits(options.output)
    run.finish(report)
    return report


@configuration()
class QuickstartDocuments(Quickstart):
    """Train both stages on handwritten digits and documents about them: text to image, image to text, and sums.

    Attributes:
        output: The folder for everything that it makes. Run again, it goes on, or shows the report.
        force: Delete what is in the folder and start anew.
        json: Print the report as JSON.
    """

    output: Path = Path("runs/quickstart-documents")


def quickstart_documents(options: QuickstartDocuments) -> dict[str, Any]:
    """Run the command; returns the report, which is also written to ``report.json``."""
    run = RunFolder.claim(options.output, "quickstart documents", options, force=options.force)
    if run.report:
        return run.report
    run.begin()
    from pipeline.commands.digit_documents import make_digit_documents_run

    report = make_digit_documents_run(options.output)
    run.finish(report)
    return report


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(quickstart, Quickstart, arguments, program)


def main_documents(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise quickstart documents``."""
    return run_command(quickstart_documents, QuickstartDocuments, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
