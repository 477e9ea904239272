"""Documents and their continuations as a folder: JSON, image files, and a page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from rasterwise.data.documents import CONTENT_NAME
from rasterwise.files import new_folder, write_json
from rasterwise.images import save_image

PAGE_NAME, JSON_NAME = "index.html", "documents.json"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #16181d; background: #fff; margin: 0 auto; max-width: 1000px;
  padding: 1.2rem; }
.document { border-bottom: 1px solid #e5e7eb; padding: .6rem 0; display: flex; flex-wrap: wrap; gap: .5rem;
  align-items: center; }
.document img { min-width: 64px; min-height: 64px; image-rendering: pixelated; vertical-align: middle; }
.drawn { background: #fef3c7; padding: .1rem .3rem; } img.drawn { padding: 3px; }
"""

Parts = Sequence[str | Image.Image]


def save_documents(
    documents: Sequence[tuple[Parts, Parts]], folder: Path, *, title: str = "Documents"
) -> None:
    """Write documents to a folder, which appears whole or not at all.

    ``documents.json`` holds a list of ``{"content": …, "continuation": …}``, whose parts are those that
    ``read_documents`` reads; ``index.html`` shows what was drawn on a coloured ground.

    Args:
        documents: Of each, what was given and what was drawn.
        folder: New, or empty.
        title: Of the page.
    """
    with new_folder(folder) as pending:
        rows, shown = [], []
        for number, (given, drawn) in enumerate(documents):
            names = iter(f"{number:04d}-{index}.png" for index in range(len(given) + len(drawn)))
            row = {
                name: [_saved(part, pending, next(names)) for part in parts]
                for name, parts in ((CONTENT_NAME, given), ("continuation", drawn))
            }
            rows.append(row)
            parts = [_shown(part, "given") for part in row[CONTENT_NAME]]
            parts += [_shown(part, "drawn") for part in row["continuation"]]
            shown.append(f'<div class="document">{"".join(parts)}</div>')
        write_json(pending / JSON_NAME, {"documents": rows})
        (pending / PAGE_NAME).write_text(
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n" + "\n".join(shown) + "\n</html>\n",
            encoding="utf-8",
        )


def _saved(part: str | Image.Image, folder: Path, name: str) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    save_image(part, folder / name)
    return {"type": "image", "image": name}


def _shown(part: dict[str, str], kind: str) -> str:
    if part["type"] == "text":
        return f'<span class="{kind}">{escape(part["text"])}</span>'
    return f'<img class="{kind}" src="{escape(part["image"])}" alt="image">'
