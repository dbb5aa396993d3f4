"""Inspection of a clicked patch: its cost, the network's input, and the attention of its token."""

from __future__ import annotations

import logging
from functools import partial

from hrviewer.app.image_session import ImageSession
from hrviewer.app.maps.attention_map import AttentionMap
from hrviewer.app.maps.patch_preview import PatchInspection, patch_preview, warp_preview
from hrviewer.app.maps.prediction_kinds import describe_prediction
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState, PatchClick
from hrviewer.engine import InferencePipeline, LoadedModels, PatchRow, Priority, token_attention
from hrviewer.errors import format_error
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid

__all__ = ["PatchInspector"]

log = logging.getLogger(__name__)


class PatchInspector:
    """Inspects the patch under every click, and again when its pixels are read.

    Parameters
    ----------
    state : AppState
        Emits clicks and gets the inspection.
    background : Background
        Reads.
    resources : Resources
        Has the loaded models.
    """

    def __init__(self, state: AppState, background: Background, resources: Resources) -> None:
        self._state, self._background, self._resources = state, background, resources
        self._task: Task[tuple[PatchInspection, str]] | None = None
        state.patch_clicked.connect(self._inspect)

    @property
    def is_running(self) -> bool:
        """Whether a patch is being read."""
        return self._task is not None and self._task.is_pending

    def _inspect(self, click: PatchClick) -> None:
        image, maps = self._state.image, self._state.maps
        if image is None or maps is None:
            return
        row = maps.patch_at(*click.point)
        if row is None:
            return
        by_class = describe_prediction(row, maps.classes, maps.task, maps.units)
        self._state.set_inspection(image, PatchInspection(row, predictions=by_class))
        if self._task is not None:
            self._task.cancel()
        plane, models = image.source.plane(), self._resources.loaded_models
        # A click that labels an embedding does not compare it with the others.
        compare = click.embeddings_visible and not self._state.label
        embeddings = maps.embeddings if compare else None
        warp, halo = maps.warps.get(Rect(row.y, row.x, row.h, row.w)), maps.halos.get(row.role)

        def read(task: Task[tuple[PatchInspection, str]]) -> tuple[PatchInspection, str]:
            if embeddings is not None:
                embeddings.find_similar(*click.point)
            found = "" if maps.objects is None else maps.objects.describe(*click.point)
            pyramid, problem = image.source.pyramid(plane), ""
            if click.attention_wanted and models is not None:
                try:
                    update_attention(maps, pyramid, models, row, click.point)
                except Exception as error:  # the cost is shown all the same
                    log.exception("the attention at %s cannot be shown", click.point)
                    problem = f"the attention of this token cannot be shown: {format_error(error)}"
            if warp is not None and warp.role == row.role:
                return PatchInspection(row, *warp_preview(pyramid, warp), found, by_class), problem
            here = None if models is None else models.for_image(pyramid)
            pixels = patch_preview(pyramid, row, here, halo)
            return PatchInspection(row, pixels, None, found, by_class), problem

        self._task = self._background.submit(
            "read",
            read,
            partial(self._show, image),
            failed=self._fail,
            owner=image,
            clear_errors=False,
        )

    def _show(self, image: ImageSession, result: tuple[PatchInspection, str]) -> None:
        self._task = None
        inspection, problem = result
        if image.maps is not None:
            self._state.set_inspection(image, inspection)
        if problem:
            self._state.report_error(problem)

    def _fail(self, error: Exception) -> None:
        self._task = None
        self._state.report_error(f"the patch cannot be read: {format_error(error)}")


def update_attention(
    maps: ResultMaps,
    pyramid: Pyramid,
    models: LoadedModels,
    row: PatchRow,
    point: tuple[float, float],
) -> None:
    """Draw a token's attention if its network gives any; on a worker thread."""
    core = Rect(row.y, row.x, row.h, row.w)
    request, group = maps.token_groups.get(core, (None, 0))
    if request is None or request.role not in models:
        return
    pipeline = InferencePipeline(
        pyramid, models, models.device, pyramid.rect, priority=Priority.LIVE
    )
    found = token_attention(pipeline, request, group)
    if found is not None:
        attention = maps.attention or AttentionMap(maps.image)
        attention.update(found, *point)
        maps.attention = attention
