"""Self-contained HTML reports: tables, plots and pictures of maps over their image."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hrviewer.errors import HrviewerError, RunError
from hrviewer.escaping import escape_html
from hrviewer.geometry import Rect
from hrviewer.io.anonymous import open_image
from hrviewer.io.exportable import Exportable
from hrviewer.io.figures.object_picture import make_object_picture
from hrviewer.io.object_table import has_objects
from hrviewer.io.run_patches import read_patches
from hrviewer.io.stored_map import open_stored_map
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.resample import Pixels

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CaptionedImage",
    "Overlay",
    "Section",
    "load_overlays",
    "render_gallery",
    "render_page",
    "resample_map",
    "thumbnail",
    "to_uint8",
    "with_overlays",
]

CaptionedImage = tuple[str, bytes]
"""Caption, and PNG or JPEG data."""

Section = tuple[str, str, Sequence[CaptionedImage]]
"""Heading, text and pictures."""

THUMBNAIL_SIDE = 380
"""Longer side of an overlay's picture, in pixels."""

CELL_PX = 6
"""Side of the cells of a map in a picture, in pixels; finer cells would hide small objects."""

MAX_OUTLINES = 4000
"""Maximum number of patches that are outlined."""

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 2.5rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.1rem; margin: 2.4rem 0 .1rem; }
p, dl { margin: .2rem 0 1rem; color: #555; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; font-size: 13.5px; }
dt { color: #888; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { text-align: right; padding: .32rem .8rem; border-bottom: 1px solid #e4e4e4;
  white-space: nowrap; }
th { font-weight: 600; border-bottom: 1.5px solid #999; }
td:first-child, th:first-child, .text { text-align: left; }
td.text { max-width: 22rem; white-space: normal; overflow-wrap: break-word; }
td.text:first-child { white-space: nowrap; }
details { margin: 1.6rem 0; } summary { font-weight: 600; cursor: pointer; margin-bottom: .5rem; }
ul { font-size: 13px; color: #555; padding-left: 1.2rem; }
figure { margin: 0; } figcaption { font-size: 12px; color: #555; margin-top: .2rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } img { max-width: 100%; border-radius: 3px; }
"""


def render_page(
    title: str,
    facts: Iterable[tuple[str, str]],
    table: pd.DataFrame,
    plots: Sequence[CaptionedImage],
    sections: Sequence[Section] = (),
    notes: Sequence[str] = (),
    details: Sequence[tuple[str, pd.DataFrame]] = (),
) -> str:
    """Return an HTML page that needs no other file.

    Parameters
    ----------
    title : str
        Title and heading.
    facts : iterable of tuple of str
        Names and values above the plots.
    table : DataFrame
        Results, with the column names as headings.
    plots : sequence of CaptionedImage
        Pictures above the table.
    sections : sequence of Section
        Sections below the table.
    notes : sequence of str
        Remarks, in a collapsed list.
    details : sequence of (str, DataFrame)
        Names and tables, collapsed at the end.
    """
    fact_items = "".join(f"<dt>{escape_html(k)}</dt><dd>{escape_html(v)}</dd>" for k, v in facts)
    note_items = "".join(f"<li>{escape_html(note)}</li>" for note in notes)
    section_items = "".join(
        f"<h2>{escape_html(name)}</h2><p>{escape_html(text)}</p>"
        f"<div class='row'>{''.join(map(figure_html, figures))}</div>"
        for name, text, figures in sections
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape_html(title)}</title>"
        f"<style>{CSS}</style><h1>{escape_html(title)}</h1><dl>{fact_items}</dl>"
        f"{''.join(map(figure_html, plots))}{table_html(table)}{section_items}"
        f"{''.join(details_html(name, table_html(frame)) for name, frame in details)}"
        f"{details_html('Notes', f'<ul>{note_items}</ul>') if note_items else ''}</html>\n"
    )


def table_html(table: pd.DataFrame) -> str:
    """Render a table."""
    left = {name for name in table.columns if table[name].map(lambda it: isinstance(it, str)).any()}
    head = "".join(
        f"<th{' class=text' if name in left else ''}>{escape_html(name)}</th>"
        for name in table.columns
    )
    rows = "".join(
        "<tr>" + "".join(cell_html(value) for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</div>"
    )


def details_html(name: str, content: str) -> str:
    """Render a collapsed section."""
    return f"<details><summary>{escape_html(name)}</summary>{content}</details>"


def cell_html(value: Any) -> str:
    """Render a table cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "<td>–</td>"
    if isinstance(value, float):
        return f"<td>{value:,.1f}</td>" if abs(value) >= 100 else f"<td>{value:#.3g}</td>"
    if isinstance(value, tuple):
        return f"<td>{' – '.join(f'{part:,.4g}' for part in value)}</td>"
    kind = "" if isinstance(value, int) else " class='text'"
    return f"<td{kind}>{escape_html(value)}</td>"


def figure_html(image: CaptionedImage) -> str:
    """Render a picture with its caption."""
    caption, data = image
    encoded = base64.b64encode(data).decode()
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return (
        f"<figure><img alt='{escape_html(caption)}' src='data:image/{kind};base64,{encoded}'>"
        f"<figcaption>{escape_html(caption)}</figcaption></figure>"
    )


# Pictures.


@dataclass(frozen=True)
class Overlay:
    """Map of a run at the resolution of a picture.

    Parameters
    ----------
    title : str
        Quantity, for the caption.
    unit : str
        Unit of the values.
    colormap : str
        Name of a matplotlib colormap.
    values : ndarray, shape (rows, columns)
        NaN where no inference ran.
    """

    title: str
    unit: str
    colormap: str
    values: NDArray[np.float64]

    @property
    def display_max(self) -> float:
        """Value of the brightest color by default: the 99th percentile of positive values."""
        positive = self.values[self.values > 0]
        return float(np.percentile(positive, 99)) if positive.size else 0.0

    def caption(self, display_max: float) -> str:
        """Return the title with the value of the brightest color."""
        if not self.unit:
            return self.title
        amount = f"{display_max:,.0f}" if display_max >= 100 else f"{display_max:.3g}"
        return f"{self.title}, up to {amount} {self.unit}"


def load_overlays(run: Exportable, shape: tuple[int, int]) -> dict[str, Overlay]:
    """Load the maps of a run over its region, by name, without constant saliency.

    Parameters
    ----------
    run : Exportable
        The run.
    shape : tuple of int
        Rows and columns of the picture.
    """
    region = Rect(*run.header["region"])
    estimate = run.header["estimate"]
    counts = estimate is None or estimate["kind"] == "count"
    units = (estimate or {}).get("units") or {}
    quantities = [f"{name} ({unit})" if unit else name for name, unit in list(units.items())[-1:]]
    overlays: dict[str, Overlay] = {}
    for name, title, unit, colormap in (
        (
            "output",
            "Model output",
            "per megapixel" if counts else ", ".join(quantities) or "probability",
            "viridis",
        ),
        ("saliency", "Saliency", "", "inferno"),
        ("cost", "Compute cost", "FLOP per pixel", "cividis"),
    ):
        if not (run.path / name / "zarr.json").is_file():
            continue
        cells, attributes = open_stored_map(run.path, name, run.header["image"]["shape"])
        cell = float(attributes["hrviewer"]["cell"])
        # The first cost channel is FLOPs; of predicted probabilities the last class is drawn.
        plane = 0 if name == "cost" else None if name == "output" and counts else -1
        coarse = tuple(-(-side // CELL_PX) for side in shape)
        values = resample_map(cells, cell, region, coarse, plane)
        values = values.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[: shape[0], : shape[1]]
        if name == "cost":
            values = np.where(values > 0, values, np.nan) / cell**2
        elif name == "output" and counts:
            values *= 1e6 / cell**2
        valid = values[np.isfinite(values)]
        if name == "saliency" and (not valid.size or np.ptp(valid) == 0):
            continue  # constant: the strategy preferred no area
        overlays[name] = Overlay(title, unit, colormap, values)
    return overlays


def with_overlays(
    run_overlays: Mapping[str, Overlay],
    display_maxima: Mapping[str, float],
    photo: NDArray[np.uint8],
    run: Exportable,
) -> list[CaptionedImage]:
    """Draw the objects of a run, if there are any, and its maps over its image.

    Parameters
    ----------
    run_overlays : mapping
        From `load_overlays`.
    display_maxima : mapping
        Value of the brightest color, by name: the same for all runs of a comparison.
    photo : ndarray of uint8, shape (h, w, 3)
        The region, from `thumbnail`.
    run : Exportable
        Run whose patches are outlined over its cost.
    """
    figures: list[CaptionedImage] = []
    if has_objects(run):
        found = make_object_picture(run, photo, Rect(*run.header["region"]))
        figures.append((found.legend, as_jpeg(Image.fromarray(found.pixels))))
    for name, overlay in run_overlays.items():
        top = display_maxima.get(name) or overlay.display_max or 1.0
        boxes = patch_boxes(run, photo.shape[:2]) if name == "cost" else []
        figures.append((overlay.caption(top), blend_overlay(photo, overlay, top, boxes)))
    return figures


def render_gallery(run: Exportable) -> str:
    """Render the maps of a run over its image for a notebook; empty without the image."""
    try:
        with open_image(run) as pyramid:
            photo = thumbnail(pyramid, Rect(*run.header["region"]))
        figures = with_overlays(load_overlays(run, photo.shape[:2]), {}, photo, run)
    except (HrviewerError, ImportError):
        return ""
    style = "display: inline-block; width: 260px; margin: 0 10px 0 0; vertical-align: top"
    return "".join(
        figure_html(picture).replace("<figure>", f"<figure style='{style}'>") for picture in figures
    )


def thumbnail(pyramid: Pyramid, region: Rect) -> NDArray[np.uint8]:
    """Return a region as 8-bit colors, `SIDE` pixels long."""
    pixels = pyramid.read(region, max(1.0, max(region.h, region.w) / THUMBNAIL_SIDE))
    rgb = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return to_uint8(rgb)


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """Convert pixels to 8 bit; stretch the contrast of other types by percentiles."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    values = pixels.astype(np.float64)
    low, high = np.nanpercentile(values, [1, 99])
    values = 255 * (values - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(np.nan_to_num(values), 0, 255), np.uint8)


def patch_boxes(run: Exportable, shape: tuple[int, ...]) -> list[tuple[float, ...]]:
    """Return the first patches of a run as boxes in its picture, ``(x0, y0, x1, y1)``."""
    region = Rect(*run.header["region"])
    try:
        table = read_patches(run.path)
    except RunError:
        return []
    y, x, h, w = table.head(MAX_OUTLINES)[["y", "x", "h", "w"]].to_numpy(float).T
    fy, fx = shape[0] / region.h, shape[1] / region.w
    edges = [fx * (x - region.x), fy * (y - region.y), fx * (x + w - region.x),
             fy * (y + h - region.y)]  # fmt: skip
    return [tuple(map(float, box)) for box in np.column_stack(edges)]


def resample_map(
    cells: Any, cell: float, region: Rect, shape: tuple[int, ...], plane: int | None
) -> NDArray[np.float64]:
    """Resample a map to the size of a picture by averaging the cells in each pixel.

    Bands of rows are read one after the other; one `plane` is used, or the sum of all.
    """
    y0, x0 = int(region.y / cell), int(region.x / cell)
    y1 = min(cells.shape[1], math.ceil(region.y1 / cell))
    x1 = min(cells.shape[2], math.ceil(region.x1 / cell))
    step = max(1, (y1 - y0) // shape[0], (x1 - x0) // shape[1])
    planes = slice(None) if plane is None else [plane % cells.shape[0]]
    edges = np.arange(0, x1 - x0, step)
    # Whole chunks at a time, since each access decodes a chunk again.
    high = step * max(1, 512 // step)
    parts = []
    for start in range(y0, y1, high):
        band = np.asarray(cells[:, start : min(start + high, y1), x0:x1])[planes]
        # Sum and number of the valid cells in each pixel.
        known = (~np.isnan(band).all(axis=0)).astype(float)
        total = np.nansum(band, axis=0, dtype=np.float64)
        rows = np.arange(0, band.shape[1], step)
        counts, sums = (
            np.add.reduceat(np.add.reduceat(values, rows, axis=0), edges, axis=1)
            for values in (known, total)
        )
        parts.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    small = np.concatenate(parts)
    at = []
    for n, m, start, length, first in (
        (shape[0], small.shape[0], region.y, region.h, y0),
        (shape[1], small.shape[1], region.x, region.w, x0),
    ):
        centers = start + (np.arange(n) + 0.5) * length / n
        at.append(np.clip((centers / cell).astype(int) - first, 0, m * step - 1) // step)
    return small[np.ix_(*at)]


def blend_overlay(
    photo: NDArray[np.uint8],
    overlay: Overlay,
    display_max: float,
    boxes: Sequence[tuple[float, ...]] = (),
) -> bytes:
    """Draw a map over an image as JPEG; areas without inference are pale gray."""
    from matplotlib import colormaps

    valid = np.isfinite(overlay.values)
    share = np.clip(np.nan_to_num(overlay.values) / display_max, 0, 1)
    colors = colormaps[overlay.colormap](0.15 + 0.85 * share)[..., :3] * 255
    gray = photo.mean(axis=2, keepdims=True)
    # Values above half the maximum are almost opaque.
    alpha = np.where(valid, 0.9 * np.minimum(1, 2 * share), 0)[..., None]
    base = np.where(valid[..., None], 0.5 * photo + 0.5 * gray, 0.35 * gray + 150)
    picture = Image.fromarray(((1 - alpha) * base + alpha * colors).round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        pen.rectangle(box, outline=(0, 178, 255))
    return as_jpeg(picture)


def as_jpeg(picture: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88, optimize=True)
    return out.getvalue()
