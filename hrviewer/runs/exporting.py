"""The export of runs, which may be given by their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.io import export as export_run
from hrviewer.io.exportable import ProgressCallback
from hrviewer.runs.run import Run

__all__ = ["export"]


def export(
    run: Run | str | Path,
    path: str | Path,
    to: str | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Path:
    """Write a run as a file that other tools read.

    The file is written under another name and renamed: what exists under `path` is complete.

    Parameters
    ----------
    run : Run, str or Path
        A run, or its folder.
    path : str or Path
        The file or folder to write; it must not exist.
    to : str, optional
        Name of the format, one of `hrviewer.io.writer_names`; inferred from the suffix by default.
    progress : callable, optional
        Called with the steps done and the steps in all.
    **options
        Options of the format, such as ``contours=True`` for GeoJSON or ``dpi=300`` for a figure.

    Returns
    -------
    Path
        The file or folder that was written.

    Raises
    ------
    HrviewerError
        If the format or an option is unknown, the path exists or cannot be written, or the run
        has no map that the format needs.

    Examples
    --------
    >>> run = hrviewer.run(image, model, region=(0, 0, 512, 512), progress=False)
    >>> hrviewer.export(run, "patches.csv").name
    'patches.csv'
    """
    return export_run(run if isinstance(run, Run) else Run(run), path, to, progress, **options)
