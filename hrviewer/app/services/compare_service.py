"""Of one image the runs: which there are, two to four side by side, and what two differ in.

`Comparison` is told to `tick` with the controller, on the window's thread; folders are read, truth
is found and maps are made on a thread of its own. What was asked for last is what comes.

Invariants: nothing here waits; while runs stand side by side no other layer is shown; whatever is
drawn anew on the image ends that.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from hrviewer.app.maps.result_maps import MapName, ResultMaps
from hrviewer.errors import HrviewerError
from hrviewer.paths import runs_folder
from hrviewer.runs.evaluation import load_ground_truth
from hrviewer.runs.run_index import RunEntry, list_runs
from hrviewer.units import format_si
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of, shape_of
from hrviewer.viewer.layers.comparison_grid import MAX_RUNS, ComparisonGrid
from hrviewer.viewer.layers.difference import difference_layer, subtract_maps

if TYPE_CHECKING:
    from napari.layers import Image

    from hrviewer.viewer.controller import Controller

__all__ = ["CompareService"]


class CompareService:
    """What the Compare tab calls.

    Parameters
    ----------
    controller : Controller
        Has the image, and shows single runs.

    Attributes
    ----------
    entries : list of Entry
        This image's runs, the earliest first.
    grid : Side or None
        What stands side by side.
    map_name : MapName
        Which map is shown there.
    folders : list of Path
        Where else runs are looked for.
    is_ready : bool
        Whether anything was looked for yet; then what plots need is loaded.
    """

    runs_listed = Signal()
    grid_changed = Signal()
    message_changed = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.entries: list[RunEntry] = []
        self.is_ready = False
        self.folders: list[Path] = []
        self.grid: ComparisonGrid | None = None
        self.map_name: MapName = "output"
        self._executor = ThreadPoolExecutor(1, "hrviewer-compare")
        self._listing: Future[list[RunEntry]] | None = None
        self._loading: tuple[Image, Future[list[tuple[str, ResultMaps]]], bool] | None = None
        self._difference: Image | None = None
        self._closed = False
        controller.image_layer_changed.connect(self.reset)

    @property
    def is_running(self) -> bool:
        """Whether something that was asked for has not come yet."""
        building = self.grid is not None and not self.grid.is_ready
        return building or self._listing is not None or self._loading is not None

    # What there is.

    def refresh(self) -> None:
        """Look anew which runs of this image there are."""
        controller = self._controller
        base = controller.image_layer
        if base is None or self._closed:
            self.reset()
            return
        plane, asked = plane_of(controller.viewer, base), controller.ground_truth_path
        homes = [controller.run_folder or runs_folder()]
        if controller.run is not None:
            homes.append(controller.run.path.parent)
        folders = dict.fromkeys([*homes, *self.folders])

        def look() -> list[RunEntry]:
            preload_matplotlib()
            pyramid = pyramid_of(base, plane)
            truth = None
            with suppress(HrviewerError):  # what cannot be read is told where it was asked for
                if asked is not None or pyramid.synthetic_image is not None:
                    truth = load_ground_truth(asked or "auto", pyramid)
            return list_runs(pyramid.fingerprint, folders, truth)

        self._listing = self._executor.submit(look)

    def add_folder(self, folder: Path) -> None:
        """Look for runs in another folder, too: one of runs, or a comparison's."""
        self.folders += [folder, folder / "runs"]
        self.refresh()

    def reset(self) -> None:
        """Another image is chosen: begin anew."""
        self.close_grid()
        self._listing = self._loading = None
        self.clear_difference()
        self.entries = []
        self.runs_listed.emit()

    def find_entry(self, path: Path) -> RunEntry | None:
        """Return the run in a folder."""
        return next((entry for entry in self.entries if entry.path == path), None)

    # What is done with them.

    def show_run(self, entry: RunEntry) -> None:
        """Show one run's overlays."""
        self.close_grid()
        self._controller.open_run(entry.path)

    def show_grid(self, entries: Sequence[RunEntry]) -> None:
        """Show two to four runs side by side."""
        if 2 <= len(entries) <= MAX_RUNS:
            self._request(entries, as_difference=False)

    def show_difference(self, one: RunEntry, other: RunEntry) -> None:
        """Show what one run said more than another."""
        self._request([one, other], as_difference=True)

    def set_map(self, name: MapName) -> None:
        """Choose which map is shown side by side."""
        self.map_name = name
        if self.grid is not None:
            self.grid.set_map(name)

    def close_grid(self) -> None:
        """No longer show runs side by side."""
        if self.grid is not None:
            side, self.grid = self.grid, None
            side.close()
            self._set_overlays_hidden(False)
            self.grid_changed.emit()

    def clear_difference(self) -> None:
        """Take the difference away."""
        layer, self._difference = self._difference, None
        if layer is not None:
            if layer in self._controller.viewer.layers:
                self._controller.viewer.layers.remove(layer)
            self._set_overlays_hidden(False)
        self.message_changed.emit("")

    def tick(self) -> None:
        """Take in what came."""
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing, None
            with self._controller.reporting_errors():
                self.entries, self.is_ready = listing.result(), True
                self.runs_listed.emit()
        if self._loading is not None and self._loading[1].done():
            (base, drawing, apart), self._loading = self._loading, None
            with self._controller.reporting_errors():
                self._show_result(base, drawing.result(), apart)
        if self.grid is not None:
            was = self.grid.is_ready
            truth = self._controller.ground_truth_points
            points = None if truth is None else truth.layer
            if points is not self.grid.points:
                self.grid.mirror_points(points)
            if self.grid.tick() and not was:
                self.grid_changed.emit()

    def close(self) -> None:
        """End what goes on; the layers stay."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._listing = self._loading = None
        self.grid = None
        self.entries = []

    def _request(self, entries: Sequence[RunEntry], *, as_difference: bool) -> None:
        base = self._controller.image_layer
        if base is None or self._closed:
            return
        asked = [
            (entry.title if as_difference else run_label(entry), entry.run) for entry in entries
        ]

        def read() -> list[tuple[str, ResultMaps]]:
            return [(title, ResultMaps.from_run(run)) for title, run in asked]

        self._loading = base, self._executor.submit(read), as_difference

    def _show_result(
        self, image_layer: Any, runs: list[tuple[str, ResultMaps]], as_difference: bool
    ) -> None:
        controller = self._controller
        if image_layer != controller.image_layer:
            return
        if any((picture.image.h, picture.image.w) != shape_of(image_layer) for _, picture in runs):
            raise HrviewerError("these runs looked at an image of another size")
        self.close_grid()
        self.clear_difference()
        controller.live.set_enabled(False)
        self._set_overlays_hidden(True)
        if not as_difference:
            self.grid = ComparisonGrid(controller.viewer, image_layer, runs, self.map_name)
            return
        (one, a), (other, b) = runs
        drawn = subtract_maps(a, b)
        layer = difference_layer(drawn, image_layer, f"{one} − {other}")
        controller.viewer.add_layer(layer)
        controller.viewer.layers.selection.active = image_layer
        self._difference = layer
        top = f"{drawn.limits[1]:,.3g} {drawn.unit}"
        words = f"orange: {one} says more; blue: {other} does; up to {top}"
        seen = drawn.values[np.isfinite(drawn.values)]
        if not seen.any():
            words = f"{one} and {other} say the same wherever both looked"
        self.message_changed.emit(words if seen.size else "there is no place that both looked at")

    def _set_overlays_hidden(self, hidden: bool) -> None:
        """Take a single run's overlays out of sight, or bring them back."""
        if self._controller.overlays is not None:
            self._controller.overlays.set_hidden(hidden)

    @property
    def difference(self) -> Image | None:
        """The layer of the difference that is shown."""
        layer = self._difference
        return layer if layer is not None and layer in self._controller.viewer.layers else None


def run_label(entry: RunEntry) -> str:
    """Return a run's name in the grid: the strategy, and what it said."""
    answer = entry.row["estimate"]
    return entry.title if answer is None else f"{entry.title}: {format_si(answer)}"


def preload_matplotlib() -> None:
    """Load what plots are drawn with, if it is installed: the first time it may take seconds."""
    with suppress(ImportError):
        import matplotlib.backends.backend_qtagg
        import matplotlib.figure  # noqa: F401
