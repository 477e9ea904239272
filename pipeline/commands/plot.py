"""Plot the learning curves of runs: ``rasterwise plot``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rasterwise.command_line.run import run_command
from rasterwise.configuration import configuration
from rasterwise.errors import InputError
from rasterwise.measure.figures import new_figure, require_matplotlib, save_figure
from rasterwise.outputs import claim_image
from rasterwise.training.run.metrics_log import METRICS_NAME, read_metrics

COLUMNS = 3


@configuration()
class Plot:
    """Plot the learning curves of one or more runs, from their metrics.jsonl. It needs the extra "plots".

    Attributes:
        runs: The runs' folders. Each has its own colour.
        metric: What to plot, in a panel each. By default the metrics that both splits have.
        output: A .png name.
        json: Print the report as JSON.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    metric: tuple[str, ...] = ()
    output: Path = Path("learning-curves.png")
    json: bool = False


@dataclass(frozen=True)
class Curve:
    """One metric of one split over a run.

    Attributes:
        steps: Optimizer steps done when it was logged.
        values: Its values.
    """

    steps: list[int]
    values: list[float]


def plot(options: Plot) -> dict[str, Any]:
    """Run the command."""
    if not options.runs:
        raise InputError("no runs were named; give the folder of one or more")
    output = claim_image(options.output)
    require_matplotlib()
    curves = {str(run): read_curves(run) for run in options.runs}
    metrics = options.metric or shared_metrics(list(curves.values()))
    for metric in metrics:
        if not any(metric in splits for splits_of in curves.values() for splits in splits_of.values()):
            known = sorted({name for of in curves.values() for split in of.values() for name in split})
            raise InputError(f"no run has a metric {metric!r}; they have {', '.join(known)}")
    save_curves(curves, metrics, output)
    return {"output": str(options.output), "runs": len(curves), "metrics": ", ".join(metrics)}


def read_curves(run: Path) -> dict[str, dict[str, Curve]]:
    """The curves of a run by split and metric; a line cut short by a kill is left out.

    Raises:
        InputError: The folder holds no metrics, or they are not what was written.
    """
    path = run / METRICS_NAME
    curves: dict[str, dict[str, Curve]] = {}
    for logged in read_metrics(path):
        for name, value in logged.metrics.items():
            curve = curves.setdefault(logged.split, {}).setdefault(name, Curve([], []))
            curve.steps.append(logged.step)
            curve.values.append(value)
    if not curves:
        raise InputError(f"{path} holds no metrics yet; wait for the run's first evaluation")
    return curves


def shared_metrics(runs: Sequence[dict[str, dict[str, Curve]]]) -> tuple[str, ...]:
    """The metrics that both splits have in every run, or else those of the first run's test split."""
    first = runs[0]
    test = list(first.get("test", {}))
    shared = [
        name
        for name in test
        if all(name in run.get("train", {}) and name in run.get("test", {}) for run in runs)
    ]
    return tuple(shared or test or first.get("train", {}))


def save_curves(runs: dict[str, dict[str, dict[str, Curve]]], metrics: Sequence[str], path: Path) -> None:
    """Draw a panel for each metric: dashed lines for the train split, solid ones for the test split.

    Raises:
        InputError: matplotlib is not installed.
    """
    columns = min(COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = new_figure(5 * columns, 3.6 * rows)
    for axes, metric in zip(figure.subplots(rows, columns, squeeze=False).flat, metrics, strict=False):
        for index, (run, splits) in enumerate(runs.items()):
            for split, style in (("train", "--"), ("test", "-")):
                curve = splits.get(split, {}).get(metric)
                if curve:
                    label = f"{run}, {split}" if len(runs) > 1 else split
                    axes.plot(curve.steps, curve.values, style, marker=".", color=f"C{index}", label=label)
        axes.set_xlabel("step")
        axes.set_title(metric)
        axes.legend(fontsize="small")
    for axes in figure.axes[len(metrics) :]:
        axes.remove()
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(plot, Plot, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
