"""A click on the image: what the patch there cost, what was seen, and where its token looked."""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.app.maps.attention_map import Attention
from hrviewer.app.maps.patch_preview import Look, seen_by
from hrviewer.app.maps.result_maps import Picture
from hrviewer.engine import Looker, Networks, PatchRow, Priority, attended
from hrviewer.errors import in_words
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import point_at
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of
from hrviewer.viewer.layers.warp_grid import seen_through

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Clicking"]

log = logging.getLogger(__name__)


class Clicking:
    """Answers clicks; `Controller.looked` tells at once what is known, and again what was read.

    Parameters
    ----------
    controller : Controller
        Has the overlays, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._reading: Future[tuple[Look, str]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a patch is being read."""
        return self._reading is not None

    def on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Tell a click from a drag."""
        start = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - start).max() <= 3:
            self.ask(event.position)

    def ask(self, position: Any) -> None:
        """Say what the patch at a position of the world cost, and read what was seen there."""
        controller, overlays = self._controller, self._controller.overlays
        if overlays is None:
            return
        point = point_at(overlays.base, position)
        row = overlays.picture.patch_at(*point)
        if row is None:
            return
        controller.looked.emit(Look(row))
        if self._reading is not None:
            self._reading.cancel()
        base, networks = overlays.base, controller.networks
        warp = overlays.picture.warps.get(Rect(row.y, row.x, row.h, row.w))
        plane = plane_of(controller.viewer, base)
        coded = overlays.coded
        codes = coded.codes if coded is not None and coded.colours.visible else None
        if codes is not None and controller.labelling.label:
            controller.labelling.put(base, point)
            codes = None
        # The first token that is clicked brings the layers; from then on, who looks at them asks.
        wanted = overlays.attending is None or overlays.attending.asked

        def read() -> tuple[Look, str]:
            if codes is not None:
                codes.find(*point)
            pyramid, wrong = pyramid_of(base, plane), ""
            if wanted and networks is not None:
                try:
                    attend(overlays.picture, pyramid, networks, row, point)
                except Exception as error:  # what the patch cost is told all the same
                    log.exception("the attention at %s cannot be shown", point)
                    wrong = f"where this token looked cannot be shown: {in_words(error)}"
            if warp is not None and warp.role == row.role:
                return Look(row, *seen_through(pyramid, warp)), wrong
            here = None if networks is None else networks.on(pyramid)
            return Look(row, seen_by(pyramid, row, here)), wrong

        self._reading = controller.reader.submit(read)

    def tick(self) -> None:
        """Take in what was read, or say why it was not."""
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        if reading.cancelled():
            return
        error = reading.exception()
        if error is not None:
            self._controller.fail(f"what was seen here cannot be read: {in_words(error)}")
            return
        look, wrong = reading.result()
        self._controller.looked.emit(look)
        if wrong:
            self._controller.fail(wrong)


def attend(
    picture: Picture,
    pyramid: Pyramid,
    networks: Networks,
    row: PatchRow,
    point: tuple[float, float],
) -> None:
    """Draw where a token looked, if it is one whose network tells; beside the window."""
    core = Rect(row.y, row.x, row.h, row.w)
    look, number = picture.joined.get(core, (None, 0))
    if look is None or look.role not in networks:
        return
    looker = Looker(pyramid, networks, networks.device, pyramid.rect, priority=Priority.LIVE)
    found = attended(looker, look, number)
    if found is not None:
        kept = picture.attention or Attention(picture.image)
        kept.show(found, *point)
        picture.attention = kept
