"""Check that a window can be opened, since Qt ends the process if it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

from hrviewer.errors import DisplayError

__all__ = ["require_display"]

ALTERNATIVE = "`hrviewer run` and hrviewer.run() need no display"
PROBE_SECONDS = 60


def require_display() -> None:
    """Raise an error where no window can be opened; do nothing if Qt is running already.

    A process of its own tries to start Qt, because a failure there, as without a reachable display
    or with a missing system library, cannot be caught.

    Raises
    ------
    DisplayError
        If there is no Qt binding or no display; the message says what to do.
    """
    try:
        from qtpy.QtWidgets import QApplication
    except ImportError as error:  # qtpy's own errors are import errors, too
        raise DisplayError(
            f"no Qt binding is installed ({type(error).__name__}): pip install 'hrviewer[qt]'"
        ) from None
    if QApplication.instance() is not None:
        return
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(map(os.environ.get, variables)):
        raise DisplayError(
            "there is no display (DISPLAY is not set): open a desktop session or use xvfb-run; "
            + ALTERNATIVE
        )
    problem = _probe_qt()
    if problem is not None:
        raise DisplayError(
            f"Qt cannot open a window ({problem}): check DISPLAY and QT_QPA_PLATFORM, or use "
            f"xvfb-run; {ALTERNATIVE}"
        )


def _probe_qt() -> str | None:
    """Return why Qt cannot start in a new process; None if it can, or if that is unknown."""
    if getattr(sys, "frozen", False):
        return None  # the executable is not Python
    code = "from qtpy.QtWidgets import QApplication; QApplication([])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if "could not connect" in line] or lines
    return lines[0].removeprefix("qt.qpa.xcb: ") if lines else f"exit status {done.returncode}"
