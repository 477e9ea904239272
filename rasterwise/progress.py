"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

LOG_SECONDS = 15.0
PARTS = "{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
"""tqdm's own format, with partly finished items rounded."""


class Progress:
    """Shows on standard error how much of some work is done and how long the rest will take.

    It is called with (done, total), as functions call their argument ``progress``. ``done`` may be fractional, such
    as 2.5 images of 64.

    Args:
        description: What is being done.
        unit: What is counted.
        shown: False to show nothing, as on all processes but one.
    """

    def __init__(self, description: str, unit: str = "it", *, shown: bool = True) -> None:
        self.description, self.unit, self.shown = description, unit, shown
        self._bar: tqdm | None = None
        self._terminal = sys.stderr.isatty()
        self._last_line = time.monotonic()

    def __call__(self, done: float, total: int | None = None, note: str = "") -> None:
        if not self.shown:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=total,
                desc=self.description,
                unit=self.unit,
                initial=max(0, done - 1),
                file=sys.stderr if self._terminal else _Nowhere(),
                bar_format=None if total is None else PARTS,
                dynamic_ncols=True,
                leave=False,
            )
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if not self._terminal and time.monotonic() - self._last_line > LOG_SECONDS:
            self._last_line = time.monotonic()
            self.line(str(self._bar).strip())

    def line(self, text: str) -> None:
        """Print a line of text above the bar."""
        if self.shown:
            try:
                tqdm.write(text, file=sys.stderr)
                sys.stderr.flush()
            except OSError:  # nobody reads it any more, which is no reason to stop the work
                self.shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _Nowhere:
    """A file that discards what is written to it: tqdm's bar, where there is no terminal."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
