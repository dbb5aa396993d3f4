"""Figures of a map over its image, with legend, scale bar and caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError, ParameterError
from hrviewer.formatting import format_estimate, pluralize
from hrviewer.geometry import Rect
from hrviewer.io.anonymous import open_image
from hrviewer.io.exportable import Exportable
from hrviewer.io.figures.html_report import resample_map, to_uint8
from hrviewer.io.figures.map_styles import MAP_STYLES, MapStyle
from hrviewer.io.figures.object_picture import ObjectPicture, make_object_picture
from hrviewer.io.run_maps import MapName, open_map
from hrviewer.units import AREA_UNITS, area_unit, format_amount, format_si, nice_ceiling

__all__ = ["FigureData", "ObjectFigure", "bar_length", "draw_figure", "load_figure_data",
           "load_object_figure", "make_caption"]  # fmt: skip

MAX_LISTED = 12
"""Most classes in a legend of objects."""


@dataclass(frozen=True, slots=True, eq=False)
class FigureData:
    """Content of a figure.

    Parameters
    ----------
    photo : ndarray of uint8, shape (rows, columns, 3), optional
        The image; None if it is missing.
    values : ndarray, shape (rows, columns)
        The map; NaN where no inference ran.
    label : str
        Name and unit of the values.
    pixel_size : tuple of float
        µm, or level-0 pixels, per pixel of the figure, ``(y, x)``.
    unit : str
        ``µm`` or ``px``.
    style : MapStyle
        Colours of the map.
    limits : tuple of float
        Values at the ends of the colours.
    """

    photo: NDArray[np.uint8] | None
    values: NDArray[np.float64]
    label: str
    pixel_size: tuple[float, float]
    unit: str
    style: MapStyle
    limits: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectFigure:
    """Content of a figure of objects.

    Parameters
    ----------
    picture : ObjectPicture
        The image with its objects, and their classes.
    pixel_size : tuple of float
        µm, or level-0 pixels, per pixel of the figure, ``(y, x)``.
    unit : str
        ``µm`` or ``px``.
    """

    picture: ObjectPicture
    pixel_size: tuple[float, float]
    unit: str


def load_figure_data(
    run: Exportable, name: MapName, channel: int, side: int, *, mark: int = 1
) -> FigureData:
    """Load a map of a run and, if available, its image.

    Parameters
    ----------
    run : Exportable
        The run.
    name : str
        Name of the map.
    channel : int
        Index of a channel; −1 is the sum of all channels, and FLOPs for the cost map.
    side : int
        Longer side of the figure in pixels.
    mark : int
        Sides of the least squares of one value, means of the cells in them; pixels of the figure.

    Raises
    ------
    HrviewerError
        If the run has no such map or channel.
    """
    run_map = open_map(run, name)
    n = len(run_map.labels)
    if not -1 <= channel < n:
        known = ", ".join(f"{i} {label}" for i, label in enumerate(run_map.labels))
        raise ParameterError(f"the {name} map has no channel {channel}; it has: {known}")
    region = Rect(*run.header["region"]) if "region" in run.header else image_rect(run)
    scale = max(1.0, max(region.h, region.w) / side)
    shape = max(1, round(region.h / scale)), max(1, round(region.w / scale))
    at = 0 if channel < 0 and name == "cost" else channel
    plane = None if at < 0 else at
    coarse = -(-shape[0] // mark), -(-shape[1] // mark)
    values = resample_map(run_map.cells, run_map.cell, region, coarse, plane)
    at_pixel = [np.arange(n) * m // n for n, m in zip(shape, coarse, strict=True)]
    values = values[np.ix_(*at_pixel)]
    label = run_map.labels[at] if at >= 0 else name if n > 1 else run_map.labels[0]
    unit = run_map.units[max(at, 0)]
    size = run.header["image"]["pixel_size"]
    if unit == "count":  # as densities, whose numbers do not depend on the cells
        area, pixels = pixels_per_area(size)
        values = values * (pixels / run_map.cell**2)
        label = f"{pluralize(label) if at >= 0 or n == 1 else 'objects'} per {area}"
    elif unit:
        label += f" ({unit} per {run_map.cell:g} × {run_map.cell:g} px)"
    return FigureData(
        load_photo(run, region, scale, shape),
        values,
        label,
        (region.h / shape[0] * (size[0] if size else 1), region.w / shape[1] * (size or (1, 1))[1]),
        "µm" if size else "px",
        MAP_STYLES.get(name, MAP_STYLES["output"]),
        scale_limits(values, bounded=name == "output" and not unit),
    )


def pixels_per_area(size: tuple[float, float] | None) -> tuple[str, float]:
    """Return the unit of area of an image, and how many level-0 pixels it has."""
    if not size:
        return "megapixel", 1e6
    symbol, square_micrometres = AREA_UNITS[area_unit((size[0], size[1]))]
    return symbol, square_micrometres / (size[0] * size[1])


def scale_limits(values: NDArray[np.float64], *, bounded: bool) -> tuple[float, float]:
    """Return the ends of a map's colours, as the window sets them: from zero to a round number.

    `bounded` are probabilities, whose ends are 0 and 1.
    """
    valid = values[np.isfinite(values)]
    if bounded and (not valid.size or (valid.min() >= 0 and valid.max() <= 1)):
        return 0.0, 1.0
    positive = valid[valid > 0]  # most of a map may be empty
    top = nice_ceiling(float(np.percentile(positive, 99.5))) if positive.size else 1.0
    return min(0.0, float(valid.min())) if valid.size else 0.0, top


def image_rect(run: Exportable) -> Rect:
    """Return the rectangle of a run's whole image."""
    return Rect(0, 0, *run.header["image"]["shape"])


def load_photo(
    run: Exportable, region: Rect, scale: float, shape: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """Load the image in color at the size of a figure; None if it is missing or has changed."""
    try:
        with open_image(run) as pyramid:
            pixels = pyramid.read(region, scale)
    except HrviewerError:
        return None
    rgb = to_uint8(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]])
    rows, columns = (
        np.minimum(np.arange(n) * m // n if n > m else np.arange(n), m - 1)
        for n, m in zip(shape, rgb.shape, strict=False)
    )
    return rgb[np.ix_(rows, columns)]


def load_object_figure(run: Exportable, score: float | None, side: int) -> ObjectFigure:
    """Load a run's objects over its image, if available; else over white.

    Parameters
    ----------
    run : Exportable
        A run with objects.
    score : float, optional
        Least score; that of the run by default.
    side : int
        Longer side of the figure in pixels.
    """
    region = Rect(*run.header["region"]) if "region" in run.header else image_rect(run)
    scale = max(region.h, region.w) / side  # a small image is enlarged, for thin lines
    shape = max(1, round(region.h / scale)), max(1, round(region.w / scale))
    photo = load_photo(run, region, max(1.0, scale), shape)
    if photo is None:
        photo = np.full((*shape, 3), 255, np.uint8)
    size = run.header["image"]["pixel_size"] or (1, 1)
    return ObjectFigure(
        make_object_picture(run, photo, region, score),
        (region.h / shape[0] * size[0], region.w / shape[1] * size[1]),
        "µm" if run.header["image"]["pixel_size"] else "px",
    )


def bar_length(width: float) -> float:
    """Return a round length, 1, 2 or 5 times a power of ten, of at most a quarter of `width`."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= width / 4 * (1 + 1e-9))


def format_length(length: float, unit: str) -> str:
    """Format a length with its unit."""
    return f"{length / 1000:g} mm" if unit == "µm" and length >= 1000 else f"{length:g} {unit}"


def make_caption(run: Exportable, text: str = "") -> str:
    """Return the given text, or image, model, strategy, estimate and cost of a run."""
    if text:
        return text
    header = run.header
    cost = header.get("cost")
    parts = [f"{Path(header['image']['path']).name}: {header['model']}, {header['strategy']}"]
    if header.get("estimate"):
        parts.append(
            format_estimate(header["estimate"]).replace(
                " – ", "\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}"
            )
        )
    if cost:
        parts.append(f"{format_si(cost['flops'], 'FLOP')}, {cost['wall_s']:.1f} s")
    if not header.get("complete", True):
        parts.append("incomplete")
    return " · ".join(parts)


def draw_figure(
    data: FigureData | ObjectFigure, caption: str, target: Path, *, dpi: int, inches: float
) -> None:
    """Draw a map or objects as PNG.

    Parameters
    ----------
    data : FigureData or ObjectFigure
        Map or objects, and image.
    caption : str
        Text below the map.
    target : Path
        File to write.
    dpi : int
        Dots per inch.
    inches : float
        Width of the figure.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pixels = data.values if isinstance(data, FigureData) else data.picture.pixels
    rows, columns = pixels.shape[:2]
    height, width = rows * data.pixel_size[0], columns * data.pixel_size[1]
    tall = min(2.0, max(0.25, height / width)) * inches * 0.82
    with rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(inches, tall + 0.7), dpi=dpi, layout="constrained")
        axes = figure.add_subplot()
        extent = (0.0, width, height, 0.0)
        if isinstance(data, FigureData):
            draw_map(figure, axes, data, extent)
        else:
            draw_picture(axes, data.picture, extent)
        axes.set(xticks=[], yticks=[])
        draw_scale_bar(axes, (0.0, 0.0, height, width), data.unit)
        figure.supxlabel(caption, fontsize=8, wrap=True, x=0.02, ha="left")
        FigureCanvasAgg(figure)
        figure.savefig(target, format="png")


def draw_map(figure: Any, axes: Any, data: FigureData, extent: tuple[float, ...]) -> None:
    """Draw a map over its image, with a legend."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colors = data.style.colors(colormaps[data.style.colormap_name])
    solid = colors.copy()
    solid[:, 3] = 1
    colors[:, 3] *= data.style.opacity
    scale = Normalize(*data.limits)
    if data.photo is None:
        colors = solid
    else:
        axes.imshow(data.photo, extent=extent)
    axes.imshow(
        np.ma.masked_invalid(data.values), cmap=ListedColormap(colors), norm=scale, extent=extent,
        interpolation="nearest",
    )  # fmt: skip
    # A separate mappable: the map is transparent at small values, its legend is not.
    bar = figure.colorbar(
        ScalarMappable(scale, ListedColormap(solid)), ax=axes, shrink=0.8, pad=0.02,
        format=lambda value, _: format_amount(value),
    )  # fmt: skip
    bar.set_label(data.label)


def draw_picture(axes: Any, picture: ObjectPicture, extent: tuple[float, ...]) -> None:
    """Draw objects over their image, with the names and numbers of their classes."""
    from matplotlib.patches import Patch

    axes.imshow(picture.pixels, extent=extent)
    handles = [
        Patch(edgecolor=(r / 255, g / 255, b / 255), facecolor="none", label=f"{name} ({count:,})")
        for name, count, (r, g, b) in picture.classes[:MAX_LISTED]
    ]
    if more := len(picture.classes) - MAX_LISTED:
        handles += [Patch(alpha=0, label=f"and {more} classes more")] if more > 0 else []
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def draw_scale_bar(axes: Any, area: Sequence[float], unit: str) -> None:
    """Draw a scale bar in the lower left, with an outline that is visible on any background.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Shows the area, y downwards.
    area : sequence of float
        Its top, left, bottom and right.
    unit : str
        ``µm`` or ``px``.
    """
    from matplotlib import patheffects

    top, left, bottom, right = area
    height, width = bottom - top, right - left
    length, y, x = bar_length(width), top + 0.95 * height, left + 0.04 * width
    around = [patheffects.Stroke(linewidth=5, foreground="black"), patheffects.Normal()]
    axes.plot([x, x + length], [y, y], color="white", lw=3, solid_capstyle="butt",
              path_effects=around, zorder=1000)  # fmt: skip
    thin = [patheffects.Stroke(linewidth=2, foreground="black"), patheffects.Normal()]
    axes.text(x + length / 2, y - 0.02 * height, format_length(length, unit), color="white",
              ha="center", va="bottom", path_effects=thin, zorder=1000)  # fmt: skip
