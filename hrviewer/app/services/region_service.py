"""Regions of the current image: their measurements, hot spots and tissue.

A front end draws the regions and calls `mark_changed`; a moment later they are measured on the maps
of the displayed run, without inference. Everything is read and written on a worker thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.annotation_service import AnnotationService
from hrviewer.app.services.background import Background, Task
from hrviewer.app.settings import TissueKind
from hrviewer.app.state import AppState
from hrviewer.errors import RunError, format_error
from hrviewer.formatting import format_number
from hrviewer.io.region_files import read_regions, unique_names
from hrviewer.regions import Region, points_inside
from hrviewer.runs import Run
from hrviewer.runs.hot_spots import hot_spots, indistinct_ranks, parse_field_size
from hrviewer.runs.region_measurement import RegionDict, measure_regions
from hrviewer.runs.region_table import write_region_table
from hrviewer.runs.tissue import TissueMask, mask_of_tissue, resolve_tissue, tissue_of_mask

__all__ = ["RegionRow", "RegionService"]

LANE = "regions"

DELAY_SECONDS = 0.25
"""Seconds without a change before regions are measured."""


@dataclass(frozen=True, eq=False)
class RegionRow:
    """A region of the table.

    Parameters
    ----------
    region : Region
        The region, with a unique name.
    measured : RegionDict or None
        What the displayed run has there; None without a run.
    corrected : int or None
        Points inside, where the predicted points were corrected.
    """

    region: Region
    measured: RegionDict | None = None
    corrected: int | None = None


class RegionService:
    """Measures what is drawn, finds hot spots, and keeps the tissue.

    Parameters
    ----------
    state : AppState
        Has the image, its run and the settings.
    background : Background
        Reads and measures.
    annotations : AnnotationService
        Has the corrected points.

    Attributes
    ----------
    rows : list of RegionRow
        The drawn regions of the current image, in order.
    message : str
        About the last hot spots or exported table.
    corrections : str
        The predicted count beside the corrected one, and by whom; empty without corrections.
    """

    rows_changed = Signal()
    message_changed = Signal(str)
    spots_found = Signal(object, list)
    regions_read = Signal(object, list)
    tissue_changed = Signal()
    tissue_found = Signal(object, object)

    def __init__(
        self, state: AppState, background: Background, annotations: AnnotationService
    ) -> None:
        self._state, self._background, self._annotations = state, background, annotations
        self.rows: list[RegionRow] = []
        self.message = self.corrections = ""
        self._points: NDArray[np.float64] | None = None
        self._pixel_size: tuple[float, float] | None = None
        self._changed_at: float | None = None
        self._tasks: list[Task[Any]] = []
        state.overlays_replaced.connect(self._forget)
        state.run_shown.connect(self._forget)
        state.image_changed.connect(self._on_image)
        annotations.changed.connect(self.mark_changed)

    @property
    def is_running(self) -> bool:
        """Whether regions are being measured, read or written."""
        return any(task.is_pending for task in self._tasks)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """µm per level-0 pixel of the displayed run's image; None where it is not known."""
        run = self._state.run
        return self._pixel_size if run is None else run.pixel_size

    def mark_changed(self, *_: object) -> None:
        """Have the regions measured soon."""
        self._changed_at = time.monotonic()

    def _forget(self, *_: object) -> None:
        """Take away the numbers of the run that was displayed before; have those of the next."""
        if any(row.measured is not None for row in self.rows):
            self._set_rows([RegionRow(row.region) for row in self.rows])
        self.mark_changed()

    def tick(self) -> None:
        """Measure a moment after the last change."""
        self._tasks = [task for task in self._tasks if task.is_pending]
        if self._changed_at is None or self._tasks:
            return
        if time.monotonic() - self._changed_at > DELAY_SECONDS:
            self._changed_at = None
            self._measure()

    def find_hot_spots(self, size: str, number: int) -> None:
        """Find the fullest fields of the displayed run; a front end draws them as regions."""
        with self._state.reporting_errors():
            image = self._state.require_image()
            run = require_run(image)
            field = parse_field_size(size, run.pixel_size)
            self._submit(
                image,
                lambda task: hot_spots(run, field, number),
                partial(self._show_spots, image),
            )

    def set_tissue(self, kind: TissueKind, path: Path | None = None) -> None:
        """Choose whether only tissue counts in the next runs; it is found or read at once."""
        self._state.settings.tissue = kind
        image = self._state.image
        if image is None:
            return
        self._set_tissue(image, None)
        if kind != "off":
            wanted = "auto" if path is None else path

            def find(task: Task[Any]) -> TissueMask:
                pyramid = image.source.pyramid()
                self._pixel_size = pyramid.pixel_size
                found = resolve_tissue(pyramid, wanted)
                assert found is not None
                return mask_of_tissue(found, pyramid.rect)

            self._submit(image, find, partial(self._show_tissue, image), self._no_tissue)

    def edit_tissue(self, mask: NDArray[np.bool_], cell: float) -> None:
        """Take over an edited mask of the tissue."""
        image = self._state.image
        if image is not None and self._state.settings.tissue != "off":
            self._set_tissue(image, None)
            rect = image.source.rect
            self._submit(
                image,
                lambda task: tissue_of_mask(mask, cell, rect),
                partial(self._set_tissue, image),
                self._no_tissue,
            )

    def import_regions(self, path: Path) -> None:
        """Read regions from a file; a front end draws them."""
        with self._state.reporting_errors():
            image = self._state.require_image()

            def read(task: Task[Any]) -> list[Region]:
                pyramid = image.source.pyramid()
                return read_regions(
                    path, pyramid.path or pyramid.name, pyramid.plane_shape, pyramid.georeference
                )

            self._submit(image, read, partial(self._show_regions, image))

    def _show_regions(self, image: ImageSession, regions: list[Region]) -> None:
        self.regions_read.emit(image, regions)
        self.mark_changed()

    def export_table(self, path: Path) -> None:
        """Write the table of regions to a new file."""
        with self._state.reporting_errors():
            image = self._state.require_image()
            run = require_run(image)
            measured = [row for row in self.rows if row.measured is not None]
            if not measured:
                raise RunError("there is no measured region: draw one")
            regions = [row.region for row in measured]
            rows = [row.measured for row in measured if row.measured is not None]
            corrected = [row.corrected for row in measured]

            def write(task: Task[Any]) -> Path:
                return write_region_table(
                    path, regions, rows, run.pixel_size,
                    {} if None in corrected else {"corrected_count": corrected},
                )  # fmt: skip

            self._submit(image, write, lambda path: self._report(f"written: {path}"))

    def _measure(self) -> None:
        self._read_corrections()
        image = self._state.image
        regions = [] if image is None else unique_names(image.source.drawn_regions())
        if image is None or not regions:
            self._set_rows([])
            return
        if image.run is None:

            def show_areas(pixel_size: tuple[float, float] | None) -> None:
                self._pixel_size = pixel_size
                self._set_rows([RegionRow(region) for region in regions])

            self._submit(image, lambda task: image.source.pyramid().pixel_size, show_areas)
            return
        run, points = image.run, self._points

        def measure(task: Task[Any]) -> list[RegionRow]:
            rows = measure_regions(run, regions)
            counts: list[int | None] = [
                None if points is None else int(points_inside(region, points).sum())
                for region in regions
            ]
            return [RegionRow(*row) for row in zip(regions, rows, counts, strict=True)]

        def show(rows: list[RegionRow]) -> None:
            if image.run is run:
                self._set_rows(rows)

        self._submit(image, measure, show, lambda error: self._report(format_error(error)))

    def _read_corrections(self) -> None:
        """Take over the points of the annotations, if they began with those of the run."""
        run = self._state.run
        self.corrections, self._points = "", None
        if run is None or run.estimate is None or self._annotations.run_path != run.path:
            return
        found = [f for f in self._annotations.features() if f.point is not None]
        authors = Counter(f.metadata.get("author", "") for f in found)
        kept = authors.pop(run.header["model"], 0)
        if kept:
            self._points = np.array([f.point for f in found], np.float64).reshape(-1, 2)
            parts = [f"{kept:,} predicted points kept"]
            parts += [f"{number:,} by {name}" for name, number in authors.items()]
            value = format_number(run.estimate["value"])
            self.corrections = f"predicted {value} · corrected {len(found):,} ({', '.join(parts)})"

    def _set_rows(self, rows: Sequence[RegionRow]) -> None:
        self.rows = list(rows)
        self.rows_changed.emit()

    def _show_spots(
        self, image: ImageSession, found: tuple[list[Region], list[RegionDict]]
    ) -> None:
        regions, rows = found
        self.spots_found.emit(image, regions)
        doubtful = [f"{a} and {b}" for a, b in indistinct_ranks(rows)]
        text = f"{len(regions)} hot spots" if regions else "no field holds anything"
        if doubtful:
            text += f"; ranks {', '.join(doubtful)} cannot be distinguished"
        self._report(text)
        self.mark_changed()

    def _show_tissue(self, image: ImageSession, found: TissueMask) -> None:
        self._set_tissue(image, found.region)
        self.tissue_found.emit(image, found)

    def _set_tissue(self, image: ImageSession, tissue: Region | None) -> None:
        image.tissue = tissue
        self.tissue_changed.emit()

    def _no_tissue(self, error: Exception) -> None:
        self._state.settings.tissue = "off"
        self.tissue_changed.emit()
        self._state.report_error(format_error(error))

    def _on_image(self) -> None:
        self._state.settings.tissue = "off"
        self._report("")
        self._set_rows([])
        self.tissue_changed.emit()
        self.mark_changed()

    def _report(self, message: str) -> None:
        self.message = message
        self.message_changed.emit(message)

    def _submit(self, image: ImageSession, work: Any, done: Any, failed: Any = None) -> None:
        task: Task[Any] = self._background.submit(
            LANE, work, done, failed=failed, owner=image, clear_errors=False
        )
        self._tasks.append(task)


def require_run(image: ImageSession) -> Run:
    """Return the displayed run.

    Raises
    ------
    HrviewerError
        If there is none.
    """
    if image.run is None:
        raise RunError("run a strategy, or open a run: regions are measured on its maps")
    return image.run
