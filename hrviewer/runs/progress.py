"""Progress bars of runs, in terminals and notebooks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, Protocol

from hrviewer.engine import Callback, Progress, Update
from hrviewer.escaping import escape_html
from hrviewer.phases import Phase, listening
from hrviewer.units import format_si

__all__ = ["progress_messages", "with_progress"]

REFRESH_SECONDS = 0.2
"""Between two updates of a bar in a notebook."""


class ProgressBar(Protocol):
    """A bar with a description."""

    def update(self, description: str, done: int, total: int | None) -> None:
        """Show `done` of `total` steps; None where the total is not known."""

    def close(self) -> None:
        """Remove the bar."""


class TerminalBar:
    """A bar of rich on standard error, removed in the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, steps="")
        self._progress.start()

    def update(self, description: str, done: int, total: int | None) -> None:
        """Show `done` of `total` steps."""
        self._progress.update(
            self._task,
            description=description,
            completed=done,
            total=total,
            steps=format_steps(done, total),
        )

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class NotebookBar:
    """A bar in a notebook's output, which needs no widgets; removed in the end."""

    def __init__(self) -> None:
        module: Any = import_module("IPython.display")
        self._html = module.HTML
        self._handle = module.display(module.HTML(""), display_id=True)
        self._start = self._shown = time.monotonic()
        self._description = ""

    def update(self, description: str, done: int, total: int | None) -> None:
        """Show `done` of `total` steps, a few times per second."""
        now = time.monotonic()
        if description == self._description and now < self._shown + REFRESH_SECONDS:
            return
        self._shown, self._description = now, description
        value = "" if total is None else f' value="{done}" max="{max(1, total)}"'
        self._handle.update(
            self._html(
                f"{escape_html(description)} <progress{value}></progress> "
                f"{format_steps(done, total)} {now - self._start:.0f} s"
            )
        )

    def close(self) -> None:
        """Remove the bar."""
        self._handle.update(self._html(""))


def format_steps(done: int, total: int | None) -> str:
    """Return ``3 of 12``; an empty text where the total is not known."""
    return "" if total is None else f"{done:,} of {total:,}"


def make_bar() -> ProgressBar | None:
    """Return a bar for the terminal or the notebook; None elsewhere, as in a log file."""
    if "ipykernel" in sys.modules:
        from IPython.core.getipython import get_ipython

        if get_ipython() is not None:
            return NotebookBar()
    # Standard error is None where it was closed.
    return TerminalBar() if sys.stderr is not None and sys.stderr.isatty() else None


@contextmanager
def with_progress(progress: bool, on_event: Callback | None) -> Iterator[Callback | None]:
    """Return a callback that shows events in a progress bar and passes them on.

    Parameters
    ----------
    progress : bool
        Whether to show a bar, if there is a terminal or a notebook.
    on_event : callable, optional
        Called with every event, too.
    """
    bar = make_bar() if progress else None
    if bar is None:
        yield on_event
        return
    events = _Events(bar)

    def handle(event: Update) -> None:
        events.handle(event)
        if on_event is not None:
            on_event(event)

    try:
        with listening(events.handle):
            yield handle
    finally:
        bar.close()


class _Events:
    """Events as the description and the steps of a bar.

    The phase that another one interrupts, as loading is by measuring, is over with the next event.
    """

    def __init__(self, bar: ProgressBar) -> None:
        self._bar, self._lock = bar, threading.Lock()
        self._phase = self._run = ""

    def handle(self, event: Update) -> None:
        with self._lock:
            if isinstance(event, Phase):
                self._phase, self._run = event.name, event.run or self._run
                self._show("", 0, None)
            elif isinstance(event, Progress):
                self._show(format_si(event.flops, "FLOP"), event.done, event.requested)

    def _show(self, detail: str, done: int, total: int | None) -> None:
        self._bar.update(" · ".join(filter(None, (self._run, self._phase, detail))), done, total)


@contextmanager
def progress_messages(
    progress: bool, on_progress: Callable[[str], None] | None
) -> Iterator[Callable[[str], None]]:
    """Return a callback that shows messages in a progress bar and passes them on."""
    bar = make_bar() if progress else None

    def show(message: str) -> None:
        if bar is not None:
            bar.update(message, 0, None)
        if on_progress is not None:
            on_progress(message)

    with nullcontext() if bar is None else listening(lambda phase: show(phase.name)):
        try:
            yield show
        finally:
            if bar is not None:
                bar.close()
