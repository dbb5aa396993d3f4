"""Description of what a viewer shows, for a figure of it: visible layers as pictures and shapes.

Everything that changes is read at once; pixels are read when the figure is made, on another thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points, Shapes, Vectors
from numpy.typing import NDArray

from hrviewer.errors import ParameterError
from hrviewer.io.figures.view_figure import Dots, Outlines, Picture, ScaleLegend, ViewDrawing
from hrviewer.viewer.image.geometry import ellipse_corners
from hrviewer.viewer.layers.overlays import as_limits

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["describe_view"]

Floats = NDArray[np.float64]

MICROMETRES = ("micrometer", "um", "µm")


@dataclass(frozen=True, eq=False)
class PlaneMapping:
    """Mapping between a layer's displayed axes and the screen's, both ``(y, x)``.

    Parameters
    ----------
    axes : tuple of int
        The layer's displayed axes.
    matrix : ndarray, shape (2, 2)
        From world to data coordinates.
    origin : ndarray, shape (2,)
        Data coordinates of the world's origin.
    point : tuple of int
        Index of the layer's other axes.
    """

    axes: tuple[int, int]
    matrix: Floats
    origin: Floats
    point: tuple[int, ...]

    def to_world(self, points: NDArray[Any]) -> Floats:
        """Return world coordinates of the displayed axes, ``(n, 2)``."""
        shown = np.asarray(points, np.float64)[:, list(self.axes)] - self.origin
        return np.asarray(np.linalg.solve(self.matrix, shown.T).T)


def plane_mapping(viewer: ViewerModel, layer: Layer) -> PlaneMapping | None:
    """Return how a layer lies on the screen; None if the screen shows axes that it lacks."""
    missing = viewer.dims.ndim - layer.ndim
    y, x = (axis - missing for axis in viewer.dims.displayed[-2:])
    if min(y, x) < 0:
        return None
    base = np.array(viewer.dims.point, float)
    world = [base.copy() for _ in range(3)]
    for point, place in zip(world, ((0, 0), (1, 0), (0, 1)), strict=True):
        point[list(viewer.dims.displayed[-2:])] = place
    data = [np.asarray(layer.world_to_data(point[missing:])) for point in world]
    shown = [point[[y, x]] for point in data]
    matrix = np.stack([shown[1] - shown[0], shown[2] - shown[0]], axis=1)
    here = np.round(np.asarray(layer.world_to_data(base[missing:])))
    return PlaneMapping((y, x), matrix, shown[0], tuple(int(i) for i in here))


def describe_view(
    viewer: ViewerModel,
    scales: Sequence[ScaleLegend] = (),
    classes: Sequence[tuple[str, tuple[float, float, float]]] = (),
    caption: str = "",
) -> ViewDrawing:
    """Return what a viewer shows of its layers.

    Raises
    ------
    ParameterError
        If it shows three dimensions, or nothing.
    """
    if viewer.dims.ndisplay != 2:
        raise ParameterError("a figure shows two dimensions: press napari's 2D/3D button first")
    layers = [layer for layer in viewer.layers if layer.visible]
    if not layers:
        raise ParameterError("no layer is visible: there is nothing to export")
    camera = viewer.scene.camera
    centre, half = np.asarray(camera.center[-2:]), np.asarray(viewer.canvas.size) / 2 / camera.zoom
    top, left, bottom, right = map(float, (*(centre - half), *(centre + half)))
    pictures: list[Picture] = []
    shapes: list[Outlines | Dots] = []
    for layer in layers:
        mapping = plane_mapping(viewer, layer)
        if mapping is None:
            continue
        if isinstance(layer, Image | Labels):
            pictures.append(describe_picture(layer, mapping))
        else:
            shapes += describe_shapes(layer, mapping, camera.zoom)
    units = {str(layer.units[-1]) for layer in layers}
    return ViewDrawing(
        (top, left, bottom, right),
        1 / camera.zoom,
        "µm" if units <= set(MICROMETRES) else "px",
        pictures,
        shapes,
        scales,
        classes,
        caption,
    )


def describe_picture(layer: Image | Labels, mapping: PlaneMapping) -> Picture:
    """Return an image, map or label layer as a picture."""
    levels = list(layer.data) if layer.multiscale else [layer.data]
    rgb = isinstance(layer, Image) and layer.rgb
    color = partial(
        color_values,
        colormap=layer.colormap,
        limits=None if isinstance(layer, Labels) or rgb else as_limits(layer.contrast_limits),
        gamma=1.0 if isinstance(layer, Labels) else layer.gamma,
        rgb=rgb,
    )
    return Picture(
        partial(read_picture, levels, mapping, color),
        layer.opacity,
        str(layer.blending) == "additive",
    )


def read_picture(
    levels: Sequence[Any], mapping: PlaneMapping, color: Any, rows: Floats, columns: Floats
) -> NDArray[np.floating]:
    """Return the colours at world coordinates, transparent outside; see `Picture.read`."""
    step = np.abs(mapping.matrix @ np.array([rows[1] - rows[0], columns[1] - columns[0]]))
    full = [levels[0].shape[axis] for axis in mapping.axes]
    level, factor = levels[0], np.ones(2)
    for other in levels[1:]:
        found = np.array([n / other.shape[a] for n, a in zip(full, mapping.axes, strict=True)])
        if (found <= step * 1.01).all():
            level, factor = other, found
    straight = not mapping.matrix[0, 1] and not mapping.matrix[1, 0]
    y, x = rows[:, None], columns[None]
    (a, b), (c, d) = mapping.matrix
    # Of a straight layer a column of y and a row of x, of a rotated one all pixels.
    along = (
        (a * y + (0 if straight else b * x) + mapping.origin[0] + 0.5) / factor[0],
        ((0 if straight else c * y) + d * x + mapping.origin[1] + 0.5) / factor[1],
    )
    sides = [level.shape[axis] for axis in mapping.axes]
    inside = np.ones((len(rows), len(columns)), bool)
    index: list[NDArray[np.int64]] = []
    window: list[slice] = []
    for values, side in zip(along, sides, strict=True):
        whole = np.floor(values).astype(np.int64)
        inside &= (whole >= 0) & (whole < side)
        low, high = (int(np.clip(end, 0, side - 1)) for end in (whole.min(), whole.max()))
        index.append(np.clip(whole, low, high) - low)
        window.append(slice(low, high + 1))
    key: list[Any] = list(mapping.point)
    key[mapping.axes[0]], key[mapping.axes[1]] = window
    pixels = np.asarray(level[tuple(key)])
    if mapping.axes[0] > mapping.axes[1]:
        pixels = np.swapaxes(pixels, 0, 1)
    rgba = color(pixels[index[0], index[1]])
    rgba[~inside] = 0
    return np.asarray(rgba)


def color_values(
    values: NDArray[Any],
    *,
    colormap: Any,
    limits: tuple[float, float] | None,
    gamma: float,
    rgb: bool,
) -> NDArray[np.float32]:
    """Return values in their layer's colours, RGBA of 0 to 1; unknown ones are transparent."""
    shape = values.shape[:2]
    if rgb:
        top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1.0
        colors = values.astype(np.float32) / top
        if colors.shape[2] == 3:
            colors = np.concatenate([colors, np.ones((*shape, 1), np.float32)], axis=2)
        return colors
    if limits is None:
        return np.array(colormap.map(values.ravel()), np.float32).reshape(*shape, 4)
    known = np.isfinite(values)
    low, high = limits
    share = np.clip((np.where(known, values, low) - low) / ((high - low) or 1.0), 0, 1) ** gamma
    colors = np.array(colormap.map(share.ravel()), np.float32).reshape(*shape, 4)
    colors[~known] = 0
    return colors


def describe_shapes(layer: Layer, mapping: PlaneMapping, zoom: float) -> list[Outlines | Dots]:
    """Return a layer of vectors, shapes or points; others are left out.

    Parameters
    ----------
    layer : Layer
        The layer.
    mapping : PlaneMapping
        How it lies on the screen.
    zoom : float
        Screen pixels per world unit.
    """
    # World units per unit of the layer's data, along y.
    unit = 1 / max(float(np.sqrt(abs(np.linalg.det(mapping.matrix)))), 1e-12)

    def with_opacity(colors: Any) -> NDArray[np.floating]:
        faded = np.array(colors, float).reshape(-1, 4)
        faded[:, 3] *= layer.opacity
        return faded

    if isinstance(layer, Vectors) and len(layer.data):
        data = np.asarray(layer.data, float)
        long = data[:, 1].any(axis=1)
        starts = mapping.to_world(data[long, 0])
        ends = mapping.to_world(data[long, 0] + data[long, 1] * layer.length)
        lines = np.stack([starts, ends], axis=1)
        colors = with_opacity(layer.edge_color)[long]
        return [Outlines([*lines], False, colors, colors, layer.edge_width * unit * zoom)]
    if isinstance(layer, Points) and len(layer.data):
        shown = np.asarray(layer.shown, bool)
        sizes = np.broadcast_to(np.asarray(layer.size, float), len(layer.data))[shown]
        widths = np.broadcast_to(np.asarray(layer.border_width, float), len(layer.data))[shown]
        if layer.border_width_is_relative:
            widths = widths * sizes
        return [
            Dots(
                mapping.to_world(np.asarray(layer.data)[shown]),
                sizes * unit,
                with_opacity(layer.border_color)[shown],
                with_opacity(layer.face_color)[shown],
                float(np.mean(widths)) * unit * zoom if len(widths) else 1.0,
            )
        ]
    if isinstance(layer, Shapes) and len(layer.data):
        return describe_drawn(layer, mapping, with_opacity, unit * zoom)
    return []


def describe_drawn(
    layer: Shapes, mapping: PlaneMapping, with_opacity: Any, pixels: float
) -> list[Outlines | Dots]:
    """Return drawn shapes: closed ones, and lines and paths."""
    edges, faces = with_opacity(layer.edge_color), with_opacity(layer.face_color)
    found: list[Outlines | Dots] = []
    for closed in (True, False):
        at = [i for i, kind in enumerate(layer.shape_type) if closed != (kind in ("line", "path"))]
        if at:
            paths = [
                mapping.to_world(
                    ellipse_corners(layer.data[i])
                    if layer.shape_type[i] == "ellipse"
                    else layer.data[i]
                )
                for i in at
            ]
            width = float(np.mean([layer.edge_width[i] for i in at])) * pixels
            found.append(Outlines(paths, closed, edges[at], faces[at], width))
    return found
