"""The page: self-contained, complete, and shown by a browser without an error."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.compare.report.page import publish
from pipeline.compare.report.tables import titled
from tests.pipeline.compare.conftest import Planted

KINDS = ("resolution", "size", "family")

# The page is shown in a frame of this one, which notes its errors before it loads and its images afterwards.
WRAPPER = """<!doctype html><meta charset="utf-8"><pre id="found">nothing</pre><script>
const errors = [];
const frame = document.createElement("iframe");
frame.style.width = "1200px";
document.body.append(frame);
const inside = frame.contentWindow;
inside.addEventListener("error", event => errors.push(event.message || "not loaded: " + event.target.outerHTML), true);
inside.console.error = (...words) => errors.push(words.join(" "));
inside.document.write(PAGE);
inside.document.close();
window.addEventListener("load", () => setTimeout(() => {
  const images = [...inside.document.images].map(image => [image.alt, image.naturalWidth]);
  const width = inside.document.documentElement.scrollWidth;
  document.getElementById("found").textContent = JSON.stringify({images, errors, width});
}, 500));
</script>"""


class Elements(html.parser.HTMLParser):
    """Collects tags, which must be closed in order, and what they refer to."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["alt"] or "")
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_but_itself(kind: str, planted: Planted, tmp_path: Path) -> None:
    """Every reference is to data in the page; tags are closed; text is escaped."""
    publish(planted(kind), tmp_path)
    page = (tmp_path / "index.html").read_text()
    found = Elements()
    found.feed(page)
    assert found.open == []
    assert found.images
    assert all(reference.startswith("data:") for reference in found.references)
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "A &lt;made-up&gt; processor" in page


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_is_on_the_page_and_in_the_files(kind: str, planted: Planted, tmp_path: Path) -> None:
    """Cells that failed or have not begun too, with the reason."""
    comparison = planted(kind)
    publish(comparison, tmp_path)
    page = (tmp_path / "index.html").read_text()
    for row in comparison.rows:
        assert titled(row, kind=kind) in page
    assert "did not fit in memory: you tried to &lt;allocate&gt;" in page
    assert "not yet" in page
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [cell["name"] for cell in content["cells"]] == [row.cell.name for row in comparison.rows]
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert len(lines) == 1 + len(comparison.rows)
    samples = {path.name for path in (tmp_path / "samples").iterdir()}
    assert {f"{row.cell.name}-samples.png" for row in comparison.finished} <= samples
    assert list((tmp_path / "plots").glob("*.png"))


def test_how_figures_are_marked(planted: Planted, tmp_path: Path) -> None:
    """Extrapolated times are marked; likelihoods of different things have columns of their own."""
    publish(planted("resolution"), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "sample s, naive (extrapolated)" in page
    assert re.search(r"<td>[\d.,]+ \(extrapolated\)</td>", page)
    for heading in ("bits/dim", "ELBO bits/dim", "nats a code", "nats a palette colour"):
        assert f"<th>{heading}</th>" in page
    assert "cut off at the sampling limit" in page


def test_a_comparison_that_has_only_begun(planted: Planted, tmp_path: Path) -> None:
    """No cell is done: the page is there all the same, without plots."""
    comparison = planted("resolution")
    rows = tuple(type(row)(row.cell, {"status": "not yet"}, row.folder) for row in comparison.rows)
    publish(type(comparison)(comparison.kind, comparison.settings, rows, comparison.machine, ""), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("not yet") >= len(rows)
    assert "<img" not in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_in_chromium(kind: str, planted: Planted, tmp_path: Path) -> None:
    """Every plot and image is shown, nothing errs, and on a phone the tables scroll, not the page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    publish(planted(kind), tmp_path)
    page = (tmp_path / "index.html").read_text()
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(WRAPPER.replace("PAGE", json.dumps(page).replace("</", "<\\/")), encoding="utf-8")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=10000",
    ]  # fmt: skip
    for address in (wrapper.as_uri(), (tmp_path / "index.html").as_uri()):
        done = subprocess.run(
            [chromium, *flags, "--dump-dom", address], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
        if address == wrapper.as_uri():
            written = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
            assert written, done.stdout[-500:]
            found = json.loads(html.unescape(written[1]))
    expected = Elements()
    expected.feed(page)
    assert found["errors"] == []
    assert [alt for alt, _ in found["images"]] == expected.images
    assert all(width > 0 for _, width in found["images"])
    assert found["width"] <= 1200
