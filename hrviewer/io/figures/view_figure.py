"""Figures of a view: what a window shows of an image, as PNG, SVG or PDF at any resolution.

A front end describes the visible layers in world coordinates, ``(y, x)``. Pictures are read at the
figure's resolution and joined to one; outlines, points and texts stay vectors in SVG and PDF.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError, ParameterError
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.figures.overlay_figure import draw_scale_bar
from hrviewer.io.figures.plots import matplotlib_missing_reason

__all__ = [
    "FIGURE_SUFFIXES", "Dots", "Outlines", "Picture", "ScaleLegend", "ViewDrawing", "compose",
    "write_view_figure",
]  # fmt: skip

Floats = NDArray[np.float64]
Colors = NDArray[np.floating]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
MAX_SIDE = 12_000
"""Pixels of a figure's longer side, at most."""

LEGEND_INCHES, CLASS_COLUMNS = 0.42, 4
POINTS_PER_INCH = 72


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """A picture over the area, or over a part of it.

    Parameters
    ----------
    read : callable
        Gets the world coordinates of the rows and of the columns, and returns RGBA of 0 to 1,
        ``(rows, columns, 4)``; called on a worker thread.
    opacity : float
        Of the whole picture.
    additive : bool
        Whether it is added to what lies below.
    """

    read: Callable[[Floats, Floats], Colors]
    opacity: float = 1.0
    additive: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Outlines:
    """Lines and polygons.

    Parameters
    ----------
    paths : sequence of ndarray, shape (n, 2)
        World coordinates ``(y, x)``.
    closed : bool
        Whether each path is closed, and filled with its face's colour.
    edge_colors, face_colors : ndarray, shape (k, 4)
        RGBA of 0 to 1, one for each path, or one for all.
    width : float
        Of lines, in screen pixels.
    """

    paths: Sequence[Floats]
    closed: bool
    edge_colors: Colors
    face_colors: Colors
    width: float


@dataclass(frozen=True, eq=False, slots=True)
class Dots:
    """Points as discs.

    Parameters
    ----------
    centres : ndarray, shape (n, 2)
        World coordinates ``(y, x)``.
    diameters : ndarray, shape (n,)
        In world units.
    edge_colors, face_colors : ndarray, shape (n, 4)
        RGBA of 0 to 1.
    width : float
        Of the discs' edges, in screen pixels.
    """

    centres: Floats
    diameters: Floats
    edge_colors: Colors
    face_colors: Colors
    width: float


@dataclass(frozen=True, eq=False, slots=True)
class ScaleLegend:
    """A colour scale with its ends.

    Parameters
    ----------
    title, low, high : str
        Name of the overlay with its unit, and what both ends stand for.
    colors : ndarray, shape (n, 4)
        From the low to the high end.
    """

    title: str
    low: str
    high: str
    colors: Colors


@dataclass(frozen=True, eq=False, slots=True)
class ViewDrawing:
    """What a window shows.

    Parameters
    ----------
    area : tuple of float
        Top, left, bottom and right in world coordinates.
    screen_pixel : float
        World units per screen pixel.
    unit : str
        ``µm`` or ``px``: the world's.
    pictures, shapes : sequence
        Layers from the lowest to the highest; pictures are below shapes.
    scales : sequence of ScaleLegend
        Legends of the visible overlays.
    classes : sequence of (str, (float, float, float))
        Names of displayed classes with their colours.
    caption : str
        Below the figure.
    """

    area: tuple[float, float, float, float]
    screen_pixel: float
    unit: str
    pictures: Sequence[Picture]
    shapes: Sequence[Outlines | Dots]
    scales: Sequence[ScaleLegend] = ()
    classes: Sequence[tuple[str, tuple[float, float, float]]] = ()
    caption: str = ""


def compose(drawing: ViewDrawing, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the pictures of a drawing joined to one, ``(rows, columns, 3)``, over black."""
    top, left, bottom, right = drawing.area
    rows = top + (np.arange(shape[0]) + 0.5) * (bottom - top) / shape[0]
    columns = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
    joined = np.zeros((*shape, 3), np.float32)
    for picture in drawing.pictures:
        rgba = picture.read(rows, columns)
        alpha = rgba[..., 3:] * picture.opacity
        below = joined if picture.additive else joined * (1 - alpha)
        joined = (below + rgba[..., :3] * alpha).astype(np.float32)
    return np.asarray(np.clip(joined, 0, 1) * 255 + 0.5, np.uint8)


def write_view_figure(
    drawing: ViewDrawing, path: str | Path, *, dpi: int = 300, inches: float = 7.0
) -> Path:
    """Write what a window shows.

    Parameters
    ----------
    drawing : ViewDrawing
        Its layers.
    path : str or Path
        A new file that ends in ``.png``, ``.svg`` or ``.pdf``.
    dpi : int
        Dots per inch of its pictures.
    inches : float
        Width of the area.

    Raises
    ------
    HrviewerError
        If the format is another one, matplotlib is missing, the figure is too large, or the file
        exists or cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in FIGURE_SUFFIXES:
        raise ParameterError(f"{target.name} ends in none of {', '.join(FIGURE_SUFFIXES)}")
    if (reason := matplotlib_missing_reason()) is not None:
        raise HrviewerError(reason)
    top, left, bottom, right = drawing.area
    columns = round(dpi * inches)
    rows = max(1, round(columns * (bottom - top) / (right - left)))
    if max(rows, columns) > MAX_SIDE:
        raise ParameterError(
            f"the figure would be {columns:,} × {rows:,} pixels, more than {MAX_SIDE:,}: "
            "choose a lower resolution or width"
        )
    with atomic_path(target) as part:
        draw(drawing, compose(drawing, (rows, columns)), part, target.suffix[1:].lower(), dpi)
    return target


def draw(
    drawing: ViewDrawing, pixels: NDArray[np.uint8], target: Path, form: str, dpi: int
) -> None:
    """Draw shapes, legends, scale bar and caption over the joined pictures."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top, left, bottom, right = drawing.area
    width, height = pixels.shape[1] / dpi, pixels.shape[0] / dpi
    lines = -(-len(drawing.classes) // CLASS_COLUMNS)
    below = LEGEND_INCHES * len(drawing.scales) + 0.2 * lines + (0.35 if drawing.caption else 0)
    with rc_context({"font.size": 8, "text.parse_math": False, "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height + below), dpi=dpi)
        FigureCanvasAgg(figure)
        total = height + below
        axes = figure.add_axes((0, below / total, 1, height / total))
        axes.imshow(pixels, extent=(left, right, bottom, top), interpolation="none", zorder=0)
        points = POINTS_PER_INCH * width * drawing.screen_pixel / (right - left)
        for order, shape in enumerate(drawing.shapes, start=1):
            draw_shape(axes, shape, points, POINTS_PER_INCH * width / (right - left), order)
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axes.set_axis_off()
        draw_scale_bar(axes, drawing.area, drawing.unit)
        y = below
        for scale in drawing.scales:
            y -= LEGEND_INCHES
            draw_scale(figure, scale, y / total, total)
        draw_classes(figure, drawing, y / total)
        if drawing.caption:
            figure.text(0.01, 0.06 / total, drawing.caption, va="bottom", ha="left", wrap=True)
        figure.savefig(target, format=form)


def draw_shape(
    axes: Any, shape: Outlines | Dots, line_scale: float, world_scale: float, order: int
) -> None:
    """Draw one layer of shapes; scales are points per screen pixel and per world unit."""
    from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection

    common: dict[str, Any] = {
        "edgecolors": shape.edge_colors,
        "linewidths": shape.width * line_scale,
        "zorder": order,
    }
    if isinstance(shape, Dots):
        sizes = shape.diameters
        collection: Any = EllipseCollection(
            sizes, sizes, np.zeros(len(sizes)), units="x", offsets=shape.centres[:, ::-1],
            offset_transform=axes.transData, facecolors=shape.face_colors, **common,
        )  # fmt: skip
    elif shape.closed:
        paths = [path[:, ::-1] for path in shape.paths]
        collection = PolyCollection(paths, facecolors=shape.face_colors, **common)
    else:
        collection = LineCollection(
            [path[:, ::-1] for path in shape.paths], colors=common.pop("edgecolors"), **common
        )
    axes.add_collection(collection, autolim=False)


def draw_scale(figure: Any, scale: ScaleLegend, bottom: float, total: float) -> None:
    """Draw a colour scale with its title above and the ends beside it."""
    bar = figure.add_axes((0.12, bottom + 0.05 / total, 0.36, 0.13 / total))
    bar.imshow(np.asarray(scale.colors)[None, :, :3], aspect="auto", extent=(0, 1, 0, 1))
    bar.set(xticks=[], yticks=[], title=scale.title)
    bar.title.set_fontsize(8)
    bar.text(-0.02, 0.5, scale.low, ha="right", va="center")
    bar.text(1.02, 0.5, scale.high, ha="left", va="center")


def draw_classes(figure: Any, drawing: ViewDrawing, top: float) -> None:
    """List the displayed classes with their colours."""
    from matplotlib.patches import Patch

    if drawing.classes:
        handles = [Patch(color=color, label=name) for name, color in drawing.classes]
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.0, top), frameon=False,
            ncols=CLASS_COLUMNS, borderaxespad=0,
        )  # fmt: skip
