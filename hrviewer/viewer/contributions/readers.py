"""napari readers of files that are dropped on the window.

A reader accepts only files that napari itself would load whole or not at all: slides, images too
large for memory, and runs. Nothing but metadata is read before napari asks for layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrviewer.errors import HrviewerError
from hrviewer.escaping import plain_text
from hrviewer.pyramid import Pyramid, open_pyramid, reopen_pyramid

__all__ = ["read_image", "read_run"]

LayerDataTuple = tuple[Any, dict[str, Any], str]
LayerReader = Callable[[Any], list[LayerDataTuple]]

MAX_NAPARI_PIXELS = 64_000_000
"""Pixels; what has no more and no levels, napari's own readers show well."""


def read_image(path: str | list[str]) -> LayerReader | None:
    """Return a reader of one large image, None for what others read as well."""
    if isinstance(path, list):
        if len(path) != 1:
            return None
        path = path[0]
    suffix = Path(path).suffix.lower()
    if suffix in (".tif", ".tiff", ".zarr"):
        try:
            with open_pyramid(path) as pyramid:
                if not should_read(pyramid, suffix):
                    return None
        except HrviewerError:
            return None
    return read_image_layers


def should_read(pyramid: Pyramid, suffix: str) -> bool:
    """Return whether hrviewer reads an image better: it is large, or its colours are channels."""
    large = math.prod(pyramid.plane_shape) > MAX_NAPARI_PIXELS
    if suffix == ".zarr":
        return large or pyramid.channels == 3
    return large or len(pyramid.levels) > 1


def read_image_layers(path: str | list[str]) -> list[LayerDataTuple]:
    """Return an image's layer; its pixels come beside the event loop."""
    return deferred_layers(open_pyramid(path[0] if isinstance(path, list) else path))


def deferred_layers(pyramid: Pyramid) -> list[LayerDataTuple]:
    """Return a pyramid's layers, and have the window in front bring its pixels as they come."""
    import napari

    from hrviewer.viewer.image.image_layer import image_layers_data
    from hrviewer.viewer.image.layer_refresh import auto_refresh

    viewer = napari.current_viewer()
    if viewer is not None:
        auto_refresh(viewer)
    return image_layers_data(pyramid, load_coarsest=viewer is None)


def read_run(path: str | list[str]) -> LayerReader | None:
    """Return a reader of a run's folder, ``NAME.run.zarr``."""
    if isinstance(path, list):
        path = path[0]
    return read_run_layers if (Path(path) / "run.json").is_file() else None


def read_run_layers(path: str | list[str]) -> list[LayerDataTuple]:
    """Return a run's overlays, on top of its image if that is still there."""
    from napari.utils.notifications import show_warning

    from hrviewer.runs import Run

    run = Run(path[0] if isinstance(path, list) else path)
    image = run.header["image"]
    layers: list[LayerDataTuple] = []
    try:
        pyramid = reopen_pyramid(image)
        if pyramid.fingerprint != image["fingerprint"]:
            show_warning(
                plain_text(
                    f"{pyramid.name} has changed since this run: its overlays may not fit it"
                )
            )
        layers += deferred_layers(pyramid)
    except HrviewerError as error:
        show_warning(plain_text(f"the overlays come without their image: {error}"))
    return [*layers, *run.layers()]
