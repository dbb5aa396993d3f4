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

from hrviewer.app.maps.result_maps import Picture
from hrviewer.errors import UserError
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs import Run
from hrviewer.viewer.image.image_layer import KEY, image_layer, is_base, shape_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Reopened", "Reopener", "reopen"]


@dataclass(frozen=True, eq=False)
class Reopened:
    """What is needed to show a run again.

    Parameters
    ----------
    run : Run
        Its folder.
    picture : Picture
        Its maps.
    pyramid : Pyramid, optional
        What now lies where its image was; None if a layer shows the image, or it is gone.
    """

    run: Run
    picture: Picture
    pyramid: Pyramid | None


def reopen(path: Path, shown: Collection[str | None]) -> Reopened:
    """Read a run.

    Parameters
    ----------
    path : Path
        Its folder.
    shown : collection of str
        Fingerprints of the images that layers show.

    Raises
    ------
    UserError
        If it is not a run's folder.
    """
    run = Run(path)
    wanted = run.header["image"]
    pyramid = None
    if wanted["fingerprint"] not in shown:
        with suppress(UserError):
            pyramid = open_pyramid(wanted["path"])
    return Reopened(run, Picture.of(run), pyramid)


class Reopener:
    """Shows runs again, on their images.

    Parameters
    ----------
    controller : Controller
        Shows them, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._reading: Future[Reopened] | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is being read."""
        return self._reading is not None

    def open(self, path: Path) -> None:
        """Begin to read a run."""
        controller = self._controller
        with controller.telling():
            if controller.running.at_work:
                raise UserError("a run is at work: stop it before opening another")
            controller.live.turn(False)
            shown = {fingerprint(layer) for layer in controller.viewer.layers if is_base(layer)}
            self._reading = controller.reader.submit(reopen, path, shown)

    def cancel(self) -> None:
        """Want it no longer."""
        self._reading = None

    def tick(self) -> None:
        """Show what was read."""
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        controller = self._controller
        with controller.telling():
            found = reading.result()
            run, notes = found.run, [*found.run.header["notes"]]
            base = self._image_of(found, notes)
            controller.run = run
            controller.draw(base, found.picture)
            controller.running.report(run, notes)
            controller.drawing.show(run)

    def _image_of(self, found: Reopened, notes: list[str]) -> Image:
        """Return a layer of the image that a run looked at."""
        run, pyramid, base = found.run, found.pyramid, self._controller.base
        wanted = run.header["image"]
        for layer in [base, *self._controller.viewer.layers]:
            if is_base(layer) and fingerprint(layer) == wanted["fingerprint"]:
                return layer
        if pyramid is not None:
            if pyramid.fingerprint != wanted["fingerprint"]:
                notes.append(
                    f"{pyramid.name} has changed since this run: the overlays may not fit it"
                )
            if pyramid.shape == run.image_shape:
                return self._controller.show(*image_layer(pyramid, read=False))
        path = wanted["path"]
        if base is not None and shape_of(base) == run.image_shape:
            notes.append(f"shown on {base.name}: the run looked at {path}, which is not the same")
            return base
        raise UserError(f"open the image of this run first: {path} is not there any more")


def fingerprint(layer: Layer) -> str | None:
    """Return that of the image that a layer shows; None if it was not opened by us."""
    kept: Pyramid | None = layer.metadata.get(KEY, {}).get("pyramid")
    return None if kept is None else kept.fingerprint
