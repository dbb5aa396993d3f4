"""Comparison of one image's runs: their list, two to four side by side, the difference of two.

Folders are read, ground truth is loaded and maps are read on a worker thread; the last request
counts. A front end displays `grid` and `difference` when they change.

Invariants: nothing here waits; when other results are displayed, or another image, the comparison
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from psygnal import Signal

from hrviewer.app.image_session import ImageSession
from hrviewer.app.maps.colour_scale import ColourScales
from hrviewer.app.maps.difference import subtract_maps
from hrviewer.app.maps.ground_truth_points import GroundTruthSource
from hrviewer.app.maps.raster import MapName, PyramidRaster
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background, Task
from hrviewer.app.services.loading import RunLoader
from hrviewer.app.state import AppState
from hrviewer.errors import HrviewerError, RunError
from hrviewer.io.region_files import unique_names
from hrviewer.runs.agreement import Agreement, grid_regions, region_agreement
from hrviewer.runs.run_index import RunEntry, list_runs
from hrviewer.units import format_amount

__all__ = ["MAX_RUNS", "CompareService", "Difference"]

MAX_RUNS = 4
"""Runs side by side, at most."""

NamedMaps = list[tuple[str, ResultMaps]]


@dataclass(frozen=True, eq=False)
class Difference:
    """Difference of two runs.

    Parameters
    ----------
    title : str
        Names of both.
    raster : PyramidRaster
        The first one's output minus the second one's.
    agreement : Agreement or None
        That of the drawn regions, or of parts of the image; None where they cannot be compared.
    """

    title: str
    raster: PyramidRaster
    agreement: Agreement | None = None


class CompareService:
    """Lists and compares the runs of the current image.

    Parameters
    ----------
    state : AppState
        Has the image.
    background : Background
        Reads.
    resources : Resources
        The folder of runs.
    loader : RunLoader
        Displays a single run.

    Attributes
    ----------
    grid : list of (str, ResultMaps) or None
        Names and maps of the runs that are displayed side by side.
    difference : Difference or None
        The displayed difference.
    map_name : MapName
        The map that is displayed side by side.
    folders : list of Path
        Further folders of runs.
    is_ready : bool
        Whether runs were listed, and the plots' library is imported.
    preload : callable
        Imports that library on the worker thread.
    """

    runs_listed = Signal()
    grid_changed = Signal()
    map_changed = Signal()
    difference_changed = Signal()
    message_changed = Signal(str)

    def __init__(
        self, state: AppState, background: Background, resources: Resources, loader: RunLoader
    ) -> None:
        self._state, self._background = state, background
        self._resources, self._loader = resources, loader
        self.is_ready = False
        self.preload = preload_matplotlib
        self.folders: list[Path] = []
        self.grid: NamedMaps | None = None
        self.difference: Difference | None = None
        self.map_name: MapName = "output"
        self._agreement: Agreement | None = None
        self._listing: Task[list[RunEntry]] | None = None
        self._listed_source: GroundTruthSource | None = None
        self._loading: Task[NamedMaps] | None = None
        state.image_changed.connect(self.reset)
        state.overlays_replaced.connect(self._end)

    @property
    def is_running(self) -> bool:
        """Whether something that was requested has not come yet."""
        return any(task is not None and task.is_pending for task in (self._listing, self._loading))

    @property
    def is_listing(self) -> bool:
        """Whether the runs of the current image are being listed."""
        return self._listing is not None and self._listing.is_pending

    @property
    def entries(self) -> list[RunEntry]:
        """Runs of the current image, the earliest first."""
        return [] if self._state.image is None else self._state.image.runs

    @property
    def is_outdated(self) -> bool:
        """Whether the current image has another ground truth than when its runs were listed."""
        image = self._state.image
        return image is not None and image.ground_truth_source is not self._listed_source

    def refresh(self) -> None:
        """List the runs of the current image again."""
        image = self._state.image
        if image is None:
            self.reset()
            return
        plane = image.source.plane()
        if image.ground_truth_source is None:
            image.ground_truth_source = GroundTruthSource(image.source.pyramid, None)
        self._listed_source = source = image.ground_truth_source
        folders = [self._resources.runs()]
        if image.run is not None:
            folders.append(image.run.path.parent)
        wanted = dict.fromkeys([*folders, *self.folders])

        def read(task: Task[list[RunEntry]]) -> list[RunEntry]:
            self.preload()
            pyramid = image.source.pyramid(plane)
            find_objects = None
            with suppress(HrviewerError):  # reported where the user selected it
                find_objects = source.in_region if source.is_available() else None
            return list_runs(pyramid.image_key, wanted, find_objects)

        if self._listing is not None:
            self._listing.cancel()
        self._listing = self._background.submit(
            "compare", read, partial(self._set_runs, image), owner=image
        )

    def add_folder(self, folder: Path) -> None:
        """Include another folder: one of runs, or a comparison's."""
        self.folders += [folder, folder / "runs"]
        self.refresh()

    def reset(self) -> None:
        """Begin again with another image."""
        for task in (self._listing, self._loading):
            if task is not None:
                task.cancel()
        self._end()
        self.runs_listed.emit()

    def show_run(self, entry: RunEntry) -> None:
        """Display the overlays of one run."""
        self.close_grid()
        self._loader.open(entry.path)

    def show_grid(self, entries: Sequence[RunEntry]) -> None:
        """Display two to four runs side by side."""
        if 2 <= len(entries) <= MAX_RUNS:
            self._request([(run_label(entry), entry) for entry in entries], as_difference=False)

    def show_difference(self, one: RunEntry, other: RunEntry) -> None:
        """Display the output of one run minus that of another."""
        image = self._state.image
        drawn = [] if image is None else unique_names(image.source.drawn_regions())
        regions = drawn if len(drawn) > 1 else grid_regions(one.run.region & other.run.region)
        self._agreement = None

        def compare(task: Task[NamedMaps]) -> None:
            with suppress(HrviewerError):  # most of what is drawn may lie elsewhere
                self._agreement = region_agreement(one.run, other.run, regions)

        self._request(
            [(entry.title, entry) for entry in (one, other)], as_difference=True, also=compare
        )

    def set_map(self, name: MapName) -> None:
        """Select the map that is displayed side by side."""
        self.map_name = name
        self.map_changed.emit()

    def close_grid(self) -> None:
        """End the display side by side."""
        if self.grid is not None:
            self.grid = None
            self.grid_changed.emit()

    def clear_difference(self) -> None:
        """End the display of the difference."""
        if self.difference is not None:
            self.difference = None
            self.difference_changed.emit()
        self.message_changed.emit("")

    def close(self) -> None:
        """End without a change on the screen: layers stay."""
        self.grid = self.difference = None

    def _end(self) -> None:
        self.close_grid()
        self.clear_difference()

    def _set_runs(self, image: ImageSession, entries: list[RunEntry]) -> None:
        image.runs, self.is_ready = entries, True
        if image is self._state.image:
            self.runs_listed.emit()

    def _request(
        self,
        wanted: list[tuple[str, RunEntry]],
        *,
        as_difference: bool,
        also: Callable[[Task[NamedMaps]], None] = lambda task: None,
    ) -> None:
        image = self._state.image
        if image is None:
            return
        if self._loading is not None:
            self._loading.cancel()

        def read(task: Task[NamedMaps]) -> NamedMaps:
            also(task)
            return [(title, ResultMaps.from_run(entry.run)) for title, entry in wanted]

        self._loading = self._background.submit(
            "compare", read, partial(self._show, image, as_difference), owner=image
        )

    def _show(self, image: ImageSession, as_difference: bool, runs: NamedMaps) -> None:
        state = self._state
        if image is not state.image:
            return
        if any((maps.image.h, maps.image.w) != image.source.shape for _, maps in runs):
            raise RunError("these runs were made on an image of another size")
        self._end()
        state.run_starting.emit()
        if not as_difference:
            share_scales(image.colour_scales, [maps for _, maps in runs])
            self.grid = runs
            self.grid_changed.emit()
            return
        (one, a), (other, b) = runs
        raster = subtract_maps(a, b)
        self.difference = Difference(f"{one} − {other}", raster, self._agreement)
        self.difference_changed.emit()
        top = f"{raster.limits[1]:,.3g} {raster.unit}"
        message = f"orange: {one} higher; blue: {other} higher; up to {top}"
        if a.rasters["output"].categories:
            message = f"orange: {one} and {other} have another most likely class"
        known = raster.values[np.isfinite(raster.values)]
        if not known.any():
            message = f"{one} and {other}: no difference in the shared area"
        self.message_changed.emit(message if known.size else "the runs share no area")


def share_scales(scales: ColourScales, runs: list[ResultMaps]) -> None:
    """Give runs the colour scales of their image.

    Where it has none yet, those of the run with the middle range: with the largest, the other
    runs' maps would be nearly empty.
    """
    ranked = sorted(runs, key=lambda maps: maps.rasters["output"].limits[1])
    middle = ranked[(len(ranked) - 1) // 2]
    for maps in [middle, *runs]:
        maps.share_scales(scales)


def run_label(entry: RunEntry) -> str:
    """Return a run's name in the grid: the strategy and its estimate."""
    estimate = entry.row["estimate"]
    return entry.title if estimate is None else f"{entry.title}: {format_amount(estimate)}"


def preload_matplotlib() -> None:
    """Import matplotlib, if it is installed: the first import may take seconds."""
    with suppress(ImportError):
        import matplotlib.figure  # noqa: F401
