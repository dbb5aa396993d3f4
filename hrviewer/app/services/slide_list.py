"""List of images: those of a folder or a table, with thumbnails and the numbers of their runs.

Thumbnails are read on a thread, those that were asked for last first, so that a list of thousands
shows what is visible at once. Nothing is read of an image that was never visible.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import HrviewerError, format_error
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run

__all__ = ["Slide", "SlideList", "SlideThumbnail"]

THUMBNAIL_SIDE = 96
MAX_THUMBNAILS = 4096
"""Thumbnails that are kept."""

MAX_WAITING = 64
"""Thumbnails that are waited for; older requests are dropped, and made again when visible."""

LANE = "thumbnails"

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Slide:
    """An image of the list.

    Parameters
    ----------
    path : str
        Its file or folder.
    runs : int
        Number of its runs in the folder of runs.
    """

    path: str
    runs: int = 0

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.path).name


@dataclass(frozen=True, eq=False)
class SlideThumbnail:
    """An image in small, or why there is none.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3), optional
        The image.
    summary : str
        Size of the image, or the error.
    """

    pixels: Pixels | None
    summary: str


class SlideList:
    """The images of a folder, or of a table as a batch reads it.

    Parameters
    ----------
    state : AppState
        Announces finished runs, and gets errors.
    background : Background
        Lists and reads.
    resources : Resources
        Has the folder of runs.

    Attributes
    ----------
    slides : list of Slide
        In the order of the folder or table.
    source : Path or None
        The folder or table.
    """

    changed = Signal()
    """Emitted when other images are listed, or their runs were counted."""

    thumbnail_ready = Signal(str)
    """Emitted with an image's path when its thumbnail was read."""

    def __init__(self, state: AppState, background: Background, resources: Resources) -> None:
        self._state, self._background, self._resources = state, background, resources
        self.slides: list[Slide] = []
        self.source: Path | None = None
        self._thumbnails: OrderedDict[str, SlideThumbnail] = OrderedDict()
        self._waiting: list[str] = []
        self._reading: Task[SlideThumbnail] | None = None
        self._listing: Task[list[Slide]] | None = None
        state.run_state_changed.connect(self._on_run_state)

    @property
    def is_running(self) -> bool:
        """Whether a folder is being listed, or a thumbnail read."""
        return any(task is not None and task.is_pending for task in (self._reading, self._listing))

    def open(self, source: Path) -> None:
        """List the images of a folder, or of a CSV file with a column ``image``."""
        if self._listing is not None:
            self._listing.cancel()
        self._listing = self._background.submit(
            LANE, partial(list_slides, source, self._resources.runs()), partial(self._show, source)
        )

    def refresh(self) -> None:
        """Count the runs again."""
        if self.source is not None:
            self.open(self.source)

    def thumbnail(self, path: str) -> SlideThumbnail | None:
        """Return an image's thumbnail; None as long as it is not read, which this asks for."""
        found = self._thumbnails.get(path)
        if found is None and path not in self._waiting:
            self._waiting.append(path)
            del self._waiting[:-MAX_WAITING]
            self._read_next()
        return found

    def _show(self, source: Path, slides: list[Slide]) -> None:
        self._listing = None
        self.source, self.slides = source, slides
        self.changed.emit()

    def _read_next(self) -> None:
        if self._reading is not None or not self._waiting:
            return
        path = self._waiting[-1]
        self._reading = self._background.submit(
            LANE,
            partial(read_thumbnail, path),
            partial(self._keep, path),
            failed=partial(self._keep_error, path),
            clear_errors=False,
        )

    def _keep(self, path: str, thumbnail: SlideThumbnail) -> None:
        self._thumbnails[path] = thumbnail
        while len(self._thumbnails) > MAX_THUMBNAILS:
            self._thumbnails.popitem(last=False)
        self._waiting = [other for other in self._waiting if other != path]
        self._reading = None
        self.thumbnail_ready.emit(path)
        self._read_next()

    def _keep_error(self, path: str, error: Exception) -> None:
        self._keep(path, SlideThumbnail(None, format_error(error)))

    def _on_run_state(self, state: str) -> None:
        if state == "idle":
            self.refresh()


def list_slides(source: Path, runs: Path, task: Task[list[Slide]]) -> list[Slide]:
    """Return the images of a folder or table with the numbers of their runs; on a worker thread.

    Raises
    ------
    HrviewerError
        If there is none, or the table cannot be read.
    """
    from hrviewer.batch import list_entries

    paths = dict.fromkeys(absolute(entry.image) for entry in list_entries(str(source)))
    counts = count_runs(runs)
    return [Slide(path, counts[path]) for path in paths]


def absolute(image: str) -> str:
    """Return the absolute path of a file; addresses and synthetic images as they are."""
    is_file = "://" not in image and not image.startswith("sample:")
    return str(Path(image).absolute()) if is_file else image


def count_runs(folder: Path) -> Counter[str]:
    """Return the number of finished runs in a folder, by the image's path."""
    counts: Counter[str] = Counter()
    for path in folder.glob("*.run.zarr"):
        try:
            run = Run(path)
        except (HrviewerError, json.JSONDecodeError):
            continue
        if run.complete:
            counts[absolute(str(run.header["image"]["path"]))] += 1
    return counts


def read_thumbnail(path: str, task: Task[SlideThumbnail]) -> SlideThumbnail:
    """Read an image in small; on a worker thread."""
    with open_pyramid(path) as pyramid:
        height, width = pyramid.plane_shape
        pixels = pyramid.thumbnail(THUMBNAIL_SIDE)
        colours = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
        return SlideThumbnail(colours, f"{height:,} × {width:,} px")
