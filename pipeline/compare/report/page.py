"""The page of a comparison as one self-contained HTML file, and the same content as CSV, JSON and PNG."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from pipeline.compare.measurement.cell import RECONSTRUCTIONS_NAME, SAMPLES_NAME
from pipeline.compare.measurement.comparison import Comparison, Row, as_json
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.report.laws import GROWING, growth_of, laws_as_json
from pipeline.compare.report.plots import DPI, plot_all
from pipeline.compare.report.tables import Table, as_csv, filled_columns, tables_of, titled
from pipeline.evaluation.features import SPACE
from rasterwise.files import new_file, write_json

PAGE_NAME = "index.html"
CSS_DPI = 96

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #16181d; background: #fff; margin: 0 auto; max-width: 1100px;
  padding: 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { max-width: 46rem; } .note { color: #4b5563; font-size: .92rem; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; background: #f3f4f6; padding: .1em .3em; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #e5e7eb; text-align: right; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; font-weight: 600; border-bottom: 2px solid #9ca3af; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.absent { text-align: left; color: #9a3412; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #4b5563; font-size: .92rem; }
.grids { border-collapse: separate; } .grids td, .grids th { vertical-align: top; text-align: left; }
.grids img { display: block; width: 220px; max-width: none; height: auto; image-rendering: pixelated; }
"""


def publish(comparison: Comparison, output: Path) -> None:
    """Write ``index.html``, ``comparison.csv``, ``comparison.json``, ``plots/`` and ``samples/``.

    Args:
        comparison: Any number of its cells may be finished.
        output: The comparison's folder.
    """
    for row in comparison.finished:
        for name, kind in ((SAMPLES_NAME, "samples"), (RECONSTRUCTIONS_NAME, "reconstructions")):
            if (row.folder / name).exists():
                target = output / "samples" / f"{row.cell.name}-{kind}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(row.folder / name, target)
    write_json(output / "comparison.json", plain({**as_json(comparison), **laws_as_json(comparison)}))
    write_text(output / "comparison.csv", as_csv(comparison))
    write_text(output / PAGE_NAME, page(comparison, plot_all(comparison, output / "plots")))


def page(comparison: Comparison, plots: Sequence[tuple[str, Path]]) -> str:
    """The HTML.

    Args:
        comparison: What the page shows.
        plots: Captions and image files; the page holds a copy of each.
    """
    title = HEADINGS[comparison.kind]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _introduction(comparison),
    ]
    for caption, path in plots:
        image = embedded_image(path, caption, width=round(Image.open(path).width * CSS_DPI / DPI))
        parts.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
    if comparison.kind == "resolution":
        parts.append(_exponents(comparison))
    parts += [_table(comparison, table) for table in tables_of(comparison)]
    parts += [
        _grids(comparison, "Samples", SAMPLES_NAME, "Unconditional, at temperature 1, not selected."),
        _grids(
            comparison,
            "Reconstructions",
            RECONSTRUCTIONS_NAME,
            "Test images and, below them, what the tokenizer keeps of them. Models of subpixels lose nothing.",
        ),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


HEADINGS = {
    "resolution": "Autoregressive image models as resolution grows",
    "size": "An autoregressive image model as it grows",
    "family": "Families of autoregressive image models, trained on the same data with the same budget",
}


SIZES = {
    "resolution": "A model has the same width and depth at every resolution.",
    "size": "Sizes are width × depth.",
    "family": "Each family has its own modest size, shown in the table of training.",
}


def _introduction(comparison: Comparison) -> str:
    machine, settings = comparison.machine, comparison.settings
    done, total = len(comparison.finished), len(comparison.rows)
    device = machine["device"] if machine["device"] != "cpu" else machine["cpu_model"]
    commit = f", commit {machine['commit'][:10]}" if machine.get("commit") else ""
    extra = "; Inception: torchvision's v3, ImageNet weights" if settings.inception else ""
    lines = [
        f"<p>Each model was trained on <code>{escape(settings.data.name)}</code> for {escape(settings.budget)} "
        f"({settings.precision}, seed {settings.seed}). {SIZES[comparison.kind]} {done} of "
        f"{total} cells are done.</p>",
        f"<p class=note>Last command: <code>{escape(comparison.command)}</code><br>"
        f"Machine: {escape(str(device))}, {machine['cpu_cores_usable']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB; torch {escape(machine['torch'])}{commit}; "
        f"{escape(machine['date'][:10])}<br>"
        f"Fréchet distances: {escape(SPACE)}{extra}.</p>",
    ]
    return "\n".join(lines)


def _exponents(comparison: Comparison) -> str:
    """A table of growth exponents."""
    found = growth_of(comparison.finished)
    if not found:
        return ""
    lines = []
    for growth in found:
        shown = ", ".join(str(side) for side in growth.resolutions)
        cells = "".join(f"<td>{growth.exponents[name]:.2f}</td>" for name in GROWING)
        title = escape(FAMILIES[growth.family].title)
        lines.append(f"<tr><td>{title}</td><td>{shown}</td>{cells}</tr>")
    heads = "".join(f"<th>{escape(label)}</th>" for label in GROWING.values())
    return (
        "<h2>Growth exponents</h2><p class=note>The exponent e of cost = c · r<sup>e</sup>, where r is the pixels a "
        "side: a least-squares slope on logarithmic axes. 2 means growth in proportion to the number of pixels.</p>"
        f"<div class=scroll><table><thead><tr><th>model</th><th>at</th>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _table(comparison: Comparison, table: Table) -> str:
    columns = filled_columns(table, comparison.rows)
    several = len({row.cell.resolution for row in comparison.rows}) > 1
    heads = ["model", *(["resolution"] if several else []), *(column.heading for column in columns)]
    lines = []
    for row in comparison.rows:
        cells = [f"<td>{escape(titled(row, kind=comparison.kind))}</td>"]
        if several:
            cells.append(f"<td>{row.cell.resolution}</td>")
        if row.done:
            cells += [f"<td>{escape(column.shown(row.figures))}</td>" for column in columns]
        else:
            cells.append(f'<td class=absent colspan="{len(columns)}">{escape(_lacking(row))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f"<h2>{escape(table.title)}</h2><p class=note>{escape(table.note)}</p><div class=scroll><table><thead><tr>"
        + "".join(f"<th>{escape(head)}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _lacking(row: Row) -> str:
    reason = row.figures.get("reason")
    return f"{row.figures['status']}: {reason}" if reason else row.figures["status"]


def _grids(comparison: Comparison, title: str, name: str, note: str) -> str:
    """Grids of images: a row for each model, a column for each resolution."""
    if not any((row.folder / name).exists() for row in comparison.finished):
        return ""
    by_title: dict[str, dict[int, Row]] = {}
    for row in comparison.rows:
        by_title.setdefault(titled(row, kind=comparison.kind), {})[row.cell.resolution] = row
    sides = sorted({row.cell.resolution for row in comparison.rows})
    lines = []
    for model, rows in by_title.items():
        shown = [rows.get(side) for side in sides]
        if any(row is not None and (row.folder / name).exists() for row in shown):
            cells = "".join(f"<td>{_grid(row, name)}</td>" for row in shown)
            lines.append(f"<tr><th>{escape(model)}</th>{cells}</tr>")
    heads = "".join(f"<th>{side}×{side}</th>" for side in sides)
    return (
        f"<h2>{title}</h2><p class=note>{escape(note)}</p><div class=scroll><table class=grids>"
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _grid(row: Row | None, name: str) -> str:
    if row is None:
        return ""
    if not row.done:
        return f"<span class=note>{escape(row.figures['status'])}</span>"
    if not (row.folder / name).exists():
        return ""
    cut = name == SAMPLES_NAME and not row.figures.get("samples")
    note = "<span class=note>cut off at the sampling limit</span>" if cut else ""
    return embedded_image(row.folder / name, f"{row.cell.name}: {name.removesuffix('.png')}") + note


def embedded_image(path: Path, text: str, width: int | None = None) -> str:
    """An image whose bytes are in the page itself. The width is in CSS pixels."""
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    wide = f' width="{width}"' if width else ""
    return f'<img alt="{escape(text)}"{wide} src="data:image/png;base64,{encoded}">'


def write_text(path: Path, text: str) -> None:
    """Write a file; one who reads it meanwhile finds the old one or the new one."""
    with new_file(path) as pending:
        pending.write_text(text, encoding="utf-8")


def plain(content: object) -> object:
    """Nested values as JSON has them."""
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return plain(dataclasses.asdict(content))
    return str(content) if isinstance(content, Path) else content
