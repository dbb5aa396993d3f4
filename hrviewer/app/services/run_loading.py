"""Bringing a run back: its folder, and its image where nobody shows it.

Both are read beside the window's thread.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image, Layer

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.errors import HrviewerError
from hrviewer.pyramid import Pyramid, reopen_pyramid
from hrviewer.runs import Run
from hrviewer.viewer.image.image_layer import (
    METADATA_KEY,
    image_layer_data,
    is_image_layer,
    shape_of,
)

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["LoadedRun", "RunLoader", "load_run"]


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """What is needed to show a run again.

    Parameters
    ----------
    run : Run
        Its folder.
    maps : Picture
        Its maps.
    pyramid : Pyramid, optional
        What now lies where its image was; None if a layer shows the image, or it is gone.
    """

    run: Run
    maps: ResultMaps
    pyramid: Pyramid | None


def load_run(path: Path, open_fingerprints: Collection[str | None]) -> LoadedRun:
    """Read a run.

    Parameters
    ----------
    path : Path
        Its folder.
    open_fingerprints : collection of str
        Fingerprints of the images that layers show.

    Raises
    ------
    UserError
        If it is not a run's folder.
    """
    run = Run(path)
    wanted = run.header["image"]
    pyramid = None
    if wanted["fingerprint"] not in open_fingerprints:
        with suppress(HrviewerError):
            pyramid = reopen_pyramid(wanted)
    return LoadedRun(run, ResultMaps.from_run(run), pyramid)


class RunLoader:
    """Shows runs again, on their images.

    Parameters
    ----------
    controller : Controller
        Shows them, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._loading: Future[LoadedRun] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is being read."""
        return self._loading is not None

    def open(self, path: Path) -> None:
        """Begin to read a run."""
        controller = self._controller
        with controller.reporting_errors():
            if controller.run_service.is_running:
                raise HrviewerError("a run is at work: stop it before opening another")
            controller.live.set_enabled(False)
            shown = {
                fingerprint(layer) for layer in controller.viewer.layers if is_image_layer(layer)
            }
            self._loading = controller.read_executor.submit(load_run, path, shown)

    def cancel(self) -> None:
        """Want it no longer."""
        self._loading = None

    def tick(self) -> None:
        """Show what was read."""
        if self._loading is None or not self._loading.done():
            return
        reading, self._loading = self._loading, None
        controller = self._controller
        with controller.reporting_errors():
            found = reading.result()
            run, notes = found.run, [*found.run.header["notes"]]
            base = self._find_image_layer(found, notes)
            controller.run = run
            controller.show_overlays(base, found.maps)
            controller.run_service.report_run(run, notes)
            controller.annotation_service.load(run)

    def _find_image_layer(self, found: LoadedRun, notes: list[str]) -> Image:
        """Return a layer of the image that a run looked at."""
        run, pyramid, base = found.run, found.pyramid, self._controller.image_layer
        wanted = run.header["image"]
        for layer in [base, *self._controller.viewer.layers]:
            if is_image_layer(layer) and fingerprint(layer) == wanted["fingerprint"]:
                return layer
        if pyramid is not None:
            if pyramid.fingerprint != wanted["fingerprint"]:
                notes.append(
                    f"{pyramid.name} has changed since this run: the overlays may not fit it"
                )
            if pyramid.plane_shape == run.image_shape:
                return self._controller.add_image_layer(
                    *image_layer_data(pyramid, load_coarsest=False)
                )
        path = wanted["path"]
        if base is not None and shape_of(base) == run.image_shape:
            notes.append(f"shown on {base.name}: the run looked at {path}, which is not the same")
            return base
        raise HrviewerError(f"open the image of this run first: {path} is not there any more")


def fingerprint(layer: Layer) -> str | None:
    """Return that of the image that a layer shows; None if it was not opened by us."""
    kept: Pyramid | None = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    return None if kept is None else kept.fingerprint
