"""A click on the image: what the patch there cost, what was seen, and where its token looked."""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.app.maps.attention_map import AttentionMap
from hrviewer.app.maps.patch_preview import PatchInspection, patch_preview
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import InferencePipeline, LoadedModels, PatchRow, Priority, token_attention
from hrviewer.errors import format_error
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import pixel_at
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of
from hrviewer.viewer.layers.warp_grid import warp_preview

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["PatchInspector"]

log = logging.getLogger(__name__)


class PatchInspector:
    """Answers clicks; `Controller.looked` tells at once what is known, and again what was read.

    Parameters
    ----------
    controller : Controller
        Has the overlays, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._reading: Future[tuple[PatchInspection, str]] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a patch is being read."""
        return self._reading is not None

    def on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Tell a click from a drag."""
        start = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - start).max() <= 3:
            self.inspect(event.position)

    def inspect(self, position: Any) -> None:
        """Say what the patch at a position of the world cost, and read what was seen there."""
        controller, overlays = self._controller, self._controller.overlays
        if overlays is None:
            return
        point = pixel_at(overlays.image_layer, position)
        row = overlays.maps.patch_at(*point)
        if row is None:
            return
        controller.patch_inspected.emit(PatchInspection(row))
        if self._reading is not None:
            self._reading.cancel()
        base, networks = overlays.image_layer, controller.loaded_models
        warp = overlays.maps.warps.get(Rect(row.y, row.x, row.h, row.w))
        plane = plane_of(controller.viewer, base)
        coded = overlays.embedding_layers
        codes = coded.embeddings if coded is not None and coded.colours.visible else None
        if codes is not None and controller.head_trainer.label:
            controller.head_trainer.add_label(base, point)
            codes = None
        # The first token that is clicked brings the layers; from then on, who looks at them asks.
        wanted = overlays.attention_layers is None or overlays.attention_layers.any_visible

        def read() -> tuple[PatchInspection, str]:
            if codes is not None:
                codes.find_similar(*point)
            pyramid, wrong = pyramid_of(base, plane), ""
            if wanted and networks is not None:
                try:
                    update_attention(overlays.maps, pyramid, networks, row, point)
                except Exception as error:  # what the patch cost is told all the same
                    log.exception("the attention at %s cannot be shown", point)
                    wrong = f"where this token looked cannot be shown: {format_error(error)}"
            if warp is not None and warp.role == row.role:
                return PatchInspection(row, *warp_preview(pyramid, warp)), wrong
            here = None if networks is None else networks.for_image(pyramid)
            return PatchInspection(row, patch_preview(pyramid, row, here)), wrong

        self._reading = controller.read_executor.submit(read)

    def tick(self) -> None:
        """Take in what was read, or say why it was not."""
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        if reading.cancelled():
            return
        error = reading.exception()
        if error is not None:
            self._controller.report_error(
                f"what was seen here cannot be read: {format_error(error)}"
            )
            return
        look, wrong = reading.result()
        self._controller.patch_inspected.emit(look)
        if wrong:
            self._controller.report_error(wrong)


def update_attention(
    maps: ResultMaps,
    pyramid: Pyramid,
    models: LoadedModels,
    row: PatchRow,
    point: tuple[float, float],
) -> None:
    """Draw where a token looked, if it is one whose network tells; beside the window."""
    core = Rect(row.y, row.x, row.h, row.w)
    look, number = maps.token_groups.get(core, (None, 0))
    if look is None or look.role not in models:
        return
    looker = InferencePipeline(pyramid, models, models.device, pyramid.rect, priority=Priority.LIVE)
    found = token_attention(looker, look, number)
    if found is not None:
        kept = maps.attention or AttentionMap(maps.image)
        kept.update(found, *point)
        maps.attention = kept
