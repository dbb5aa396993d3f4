"""Writers of runs, one class per file format.

A writer subclasses `RunWriter` and is registered under the entry point group ``hrviewer.writers``;
the command line, Python and the window find it there. Writer modules are imported on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.errors import RunError
from hrviewer.io.anonymous import AnonymousRun
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.writers.base import GROUP, RunWriter, get_writer, select_writer, writer_names

__all__ = ["GROUP", "RunWriter", "export", "get_writer", "select_writer", "writer_names"]


def export(
    run: Exportable,
    path: str | Path,
    to: str | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Path:
    """Write a run as a file or folder of another format.

    The file appears under `path` only when it is complete.

    Parameters
    ----------
    run : Exportable
        The run to write.
    path : str or Path
        The new file; it must not exist.
    to : str, optional
        Name of the format, one of `writer_names`; inferred from the file's suffix by default.
    progress : callable, optional
        Called with the amount written so far and the total.
    **options
        Options of the format, the fields of its writer's ``Settings``.

    Returns
    -------
    Path
        The file or folder written.

    Raises
    ------
    HrviewerError
        If the format or an option is unknown, the path exists or cannot be written, or the run
        lacks the requested data.
    """
    path = Path(path).expanduser()
    writer = select_writer(path, to)
    settings = writer.parse_settings(options)
    reason = writer.unsupported_reason(run)
    if reason is not None:
        raise RunError(reason)
    if settings.anonymous:
        run = AnonymousRun(run)
    with atomic_path(path) as part:
        writer.write(run, part, settings, progress or _ignore_progress)
    return path


def _ignore_progress(done: int, total: int) -> None:
    """Default progress callback."""
