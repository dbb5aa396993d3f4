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
from platformdirs import user_data_path
from psygnal import Signal

from hrviewer.app.maps.result_maps import MapName, Picture
from hrviewer.errors import UserError
from hrviewer.runs.evaluation import find_truth
from hrviewer.runs.run_index import Entry, shelf
from hrviewer.units import si
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of, shape_of
from hrviewer.viewer.layers.comparison_grid import MOST, Side
from hrviewer.viewer.layers.difference import difference, difference_layer

if TYPE_CHECKING:
    from napari.layers import Image

    from hrviewer.viewer.controller import Controller

__all__ = ["Comparison"]


class Comparison:
    """What the Compare tab calls.

    Parameters
    ----------
    controller : Controller
        Has the image, and shows single runs.

    Attributes
    ----------
    entries : list of Entry
        This image's runs, the earliest first.
    side : Side or None
        What stands side by side.
    map : MapName
        Which map is shown there.
    folders : list of Path
        Where else runs are looked for.
    ready : bool
        Whether anything was looked for yet; then what plots need is loaded.
    """

    listed = Signal()
    side_changed = Signal()
    told = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.entries: list[Entry] = []
        self.ready = False
        self.folders: list[Path] = []
        self.side: Side | None = None
        self.map: MapName = "output"
        self._worker = ThreadPoolExecutor(1, "hrviewer-compare")
        self._listing: Future[list[Entry]] | None = None
        self._drawing: tuple[Image, Future[list[tuple[str, Picture]]], bool] | None = None
        self._difference: Image | None = None
        self._closed = False
        controller.base_changed.connect(self.forget)

    @property
    def busy(self) -> bool:
        """Whether something that was asked for has not come yet."""
        building = self.side is not None and not self.side.ready
        return building or self._listing is not None or self._drawing is not None

    # What there is.

    def refresh(self) -> None:
        """Look anew which runs of this image there are."""
        controller = self._controller
        base = controller.base
        if base is None or self._closed:
            self.forget()
            return
        plane, asked = plane_of(controller.viewer, base), controller.truth_file
        homes = [controller.folder or user_data_path("hrviewer") / "runs"]
        if controller.run is not None:
            homes.append(controller.run.path.parent)
        folders = dict.fromkeys([*homes, *self.folders])

        def look() -> list[Entry]:
            warm_plots()
            pyramid = pyramid_of(base, plane)
            truth = None
            with suppress(UserError):  # what cannot be read is told where it was asked for
                if asked is not None or pyramid.recipe is not None:
                    truth = find_truth(asked or "auto", pyramid)
            return shelf(pyramid.fingerprint, folders, truth)

        self._listing = self._worker.submit(look)

    def add(self, folder: Path) -> None:
        """Look for runs in another folder, too: one of runs, or a comparison's."""
        self.folders += [folder, folder / "runs"]
        self.refresh()

    def forget(self) -> None:
        """Another image is chosen: begin anew."""
        self.end()
        self._listing = self._drawing = None
        self.clear()
        self.entries = []
        self.listed.emit()

    def entry(self, path: Path) -> Entry | None:
        """Return the run in a folder."""
        return next((entry for entry in self.entries if entry.path == path), None)

    # What is done with them.

    def show(self, entry: Entry) -> None:
        """Show one run's overlays."""
        self.end()
        self._controller.open_run(entry.path)

    def beside(self, entries: Sequence[Entry]) -> None:
        """Show two to four runs side by side."""
        if 2 <= len(entries) <= MOST:
            self._ask(entries, apart=False)

    def differ(self, one: Entry, other: Entry) -> None:
        """Show what one run said more than another."""
        self._ask([one, other], apart=True)

    def choose(self, name: MapName) -> None:
        """Choose which map is shown side by side."""
        self.map = name
        if self.side is not None:
            self.side.choose(name)

    def end(self) -> None:
        """No longer show runs side by side."""
        if self.side is not None:
            side, self.side = self.side, None
            side.end()
            self._hide(False)
            self.side_changed.emit()

    def clear(self) -> None:
        """Take the difference away."""
        layer, self._difference = self._difference, None
        if layer is not None:
            if layer in self._controller.viewer.layers:
                self._controller.viewer.layers.remove(layer)
            self._hide(False)
        self.told.emit("")

    def tick(self) -> None:
        """Take in what came."""
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing, None
            with self._controller.telling():
                self.entries, self.ready = listing.result(), True
                self.listed.emit()
        if self._drawing is not None and self._drawing[1].done():
            (base, drawing, apart), self._drawing = self._drawing, None
            with self._controller.telling():
                self._draw(base, drawing.result(), apart)
        if self.side is not None:
            was = self.side.ready
            truth = self._controller.truth
            points = None if truth is None else truth.layer
            if points is not self.side.points:
                self.side.mirror(points)
            if self.side.tick() and not was:
                self.side_changed.emit()

    def close(self) -> None:
        """End what goes on; the layers stay."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._listing = self._drawing = None
        self.side = None
        self.entries = []

    def _ask(self, entries: Sequence[Entry], *, apart: bool) -> None:
        base = self._controller.base
        if base is None or self._closed:
            return
        asked = [(entry.title if apart else named(entry), entry.run) for entry in entries]

        def read() -> list[tuple[str, Picture]]:
            return [(title, Picture.of(run)) for title, run in asked]

        self._drawing = base, self._worker.submit(read), apart

    def _draw(self, base: Any, shown: list[tuple[str, Picture]], apart: bool) -> None:
        controller = self._controller
        if base != controller.base:
            return
        if any((picture.image.h, picture.image.w) != shape_of(base) for _, picture in shown):
            raise UserError("these runs looked at an image of another size")
        self.end()
        self.clear()
        controller.live.turn(False)
        self._hide(True)
        if not apart:
            self.side = Side(controller.viewer, base, shown, self.map)
            return
        (one, a), (other, b) = shown
        drawn = difference(a, b)
        layer = difference_layer(drawn, base, f"{one} − {other}")
        controller.viewer.add_layer(layer)
        controller.viewer.layers.selection.active = base
        self._difference = layer
        top = f"{drawn.limits[1]:,.3g} {drawn.unit}"
        words = f"orange: {one} says more; blue: {other} does; up to {top}"
        seen = drawn.values[np.isfinite(drawn.values)]
        if not seen.any():
            words = f"{one} and {other} say the same wherever both looked"
        self.told.emit(words if seen.size else "there is no place that both looked at")

    def _hide(self, hidden: bool) -> None:
        """Take a single run's overlays out of sight, or bring them back."""
        if self._controller.overlays is not None:
            self._controller.overlays.hide(hidden)

    @property
    def difference(self) -> Image | None:
        """The layer of the difference that is shown."""
        layer = self._difference
        return layer if layer is not None and layer in self._controller.viewer.layers else None


def named(entry: Entry) -> str:
    """Return a run's name in the grid: the strategy, and what it said."""
    answer = entry.row["estimate"]
    return entry.title if answer is None else f"{entry.title}: {si(answer)}"


def warm_plots() -> None:
    """Load what plots are drawn with, if it is installed: the first time it may take seconds."""
    with suppress(ImportError):
        import matplotlib.backends.backend_qtagg
        import matplotlib.figure  # noqa: F401
