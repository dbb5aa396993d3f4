"""One HTML file that explains itself: a table, plots, and pictures of the overlays."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.pyramid import Pyramid, open_pyramid
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
"""What stands below a picture, and the picture."""

Section = tuple[str, str, Sequence[CaptionedImage]]
"""A heading, what is to be said below it, and pictures."""

THUMBNAIL_SIDE = 380
"""Of an overlay's picture, in pixels."""

CELL_PX = 6
"""Pixels of a picture that share one colour: finer ones would hide what is small."""

MAX_OUTLINES = 4000
"""Patches that are outlined."""

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
    """Return a whole page; everything is in it.

    Parameters
    ----------
    title : str
        What was compared.
    facts : iterable of tuple of str
        What a reader must know: names and what they are.
    table : DataFrame
        What was found, in columns as they are to be headed.
    plots : sequence of Figure
        Above the table.
    sections : sequence of Section
        Below it.
    notes : sequence of str
        What is to be said of rows.
    details : sequence of (str, DataFrame)
        Longer tables and their names, folded up at the end.
    """
    known = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    shown = "".join(
        f"<h2>{escape(name)}</h2><p>{escape(words)}</p>"
        f"<div class='row'>{''.join(map(figure_html, figures))}</div>"
        for name, words, figures in sections
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{CSS}</style><h1>{escape(title)}</h1><dl>{known}</dl>"
        f"{''.join(map(figure_html, plots))}{table_html(table)}{shown}"
        f"{''.join(details_html(name, table_html(frame)) for name, frame in details)}"
        f"{details_html('Notes', f'<ul>{told}</ul>') if told else ''}</html>\n"
    )


def table_html(table: pd.DataFrame) -> str:
    """Return a table as HTML."""
    left = {name for name in table.columns if table[name].map(lambda it: isinstance(it, str)).any()}
    head = "".join(
        f"<th{' class=text' if name in left else ''}>{escape(name)}</th>" for name in table.columns
    )
    rows = "".join(
        "<tr>" + "".join(cell_html(value) for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</div>"
    )


def details_html(name: str, inside: str) -> str:
    """Return HTML that is opened by a click on its name."""
    return f"<details><summary>{escape(name)}</summary>{inside}</details>"


def escape(text: object) -> str:
    """Return text as HTML."""
    return html.escape(str(text))


def cell_html(value: Any) -> str:
    """Return a table's cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "<td>–</td>"
    if isinstance(value, float):
        return f"<td>{value:,.1f}</td>" if abs(value) >= 100 else f"<td>{value:#.3g}</td>"
    if isinstance(value, tuple):
        return f"<td>{' – '.join(f'{part:,.4g}' for part in value)}</td>"
    kind = "" if isinstance(value, int) else " class='text'"
    return f"<td{kind}>{escape(value)}</td>"


def figure_html(image: CaptionedImage) -> str:
    """Return a picture with what stands below it."""
    caption, data = image
    coded = base64.b64encode(data).decode()
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/{kind};base64,{coded}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


# Pictures.


@dataclass(frozen=True)
class Overlay:
    """One of a run's maps, as small as it is shown.

    Parameters
    ----------
    title : str
        What it shows.
    unit : str
        Of its values.
    colormap : str
        Its colours, by matplotlib's name.
    values : ndarray, shape (rows, columns)
        NaN where nothing was looked at.
    """

    title: str
    unit: str
    colormap: str
    values: NDArray[np.float64]

    @property
    def display_max(self) -> float:
        """What the brightest colour may stand for: the 99th percentile of what is there."""
        found = self.values[self.values > 0]
        return float(np.percentile(found, 99)) if found.size else 0.0

    def caption(self, display_max: float) -> str:
        """Return what it shows, and up to how much."""
        if not self.unit:
            return self.title
        much = f"{display_max:,.0f}" if display_max >= 100 else f"{display_max:.3g}"
        return f"{self.title}, up to {much} {self.unit}"


def load_overlays(run: Exportable, shape: tuple[int, int]) -> dict[str, Overlay]:
    """Return a run's maps over its region that have something to show, by name.

    Parameters
    ----------
    run : Exportable
        Where they are.
    shape : tuple of int
        Rows and columns of the picture.
    """
    import zarr

    region = Rect(*run.header["region"])
    estimate = run.header["estimate"]
    counts = estimate is None or estimate["kind"] == "count"
    found: dict[str, Overlay] = {}
    for name, what, unit, scale in (
        (
            "output",
            "what the network said",
            "per megapixel" if counts else "probability",
            "viridis",
        ),
        ("saliency", "what seemed worth a look", "", "inferno"),
        ("cost", "where the FLOPs went", "FLOP per pixel", "cividis"),
    ):
        try:
            group = zarr.open_group(run.path / name, mode="r")
            about: Any = group.attrs["hrviewer"]
        except (OSError, KeyError):
            continue
        # Costs lie in planes, FLOPs first; of probabilities the last class's is shown.
        plane = 0 if name == "cost" else None if name == "output" and counts else -1
        coarse = tuple(-(-side // CELL_PX) for side in shape)
        values = resample_map(group["0"], float(about["cell"]), region, coarse, plane)
        values = values.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[: shape[0], : shape[1]]
        if name == "cost":
            values = np.where(values > 0, values, np.nan) / float(about["cell"]) ** 2
        elif name == "output" and counts:
            values *= 1e6 / float(about["cell"]) ** 2
        seen = values[np.isfinite(values)]
        if name == "saliency" and (not seen.size or np.ptp(seen) == 0):
            continue  # the same everywhere: nothing was preferred
        found[name] = Overlay(what, unit, scale, values)
    return found


def with_overlays(
    run_overlays: Mapping[str, Overlay],
    display_maxima: Mapping[str, float],
    photo: NDArray[np.uint8],
    run: Exportable,
) -> list[CaptionedImage]:
    """Return pictures of a run's maps over its image.

    Parameters
    ----------
    run_overlays : mapping
        From `overlays`.
    display_maxima : mapping
        What the brightest colour stands for, by name: the same for all runs that are compared.
    photo : ndarray of uint8, shape (h, w, 3)
        The region, from `photograph`.
    run : Exportable
        Whose patches are outlined over its costs.
    """
    figures: list[CaptionedImage] = []
    for name, overlay in run_overlays.items():
        top = display_maxima.get(name) or overlay.display_max or 1.0
        boxes = patch_boxes(run, photo.shape[:2]) if name == "cost" else []
        figures.append((overlay.caption(top), blend_overlay(photo, overlay, top, boxes)))
    return figures


def render_gallery(run: Exportable) -> str:
    """Return a run's maps over its image as HTML, for a notebook; nothing without the image."""
    wanted = run.header["image"]
    try:
        with open_pyramid(wanted["path"]) as pyramid:
            if pyramid.fingerprint != wanted["fingerprint"]:
                return ""
            photo = thumbnail(pyramid, Rect(*run.header["region"]))
        figures = with_overlays(load_overlays(run, photo.shape[:2]), {}, photo, run)
    except (HrviewerError, ImportError):
        return ""
    style = "display: inline-block; width: 260px; margin: 0 10px 0 0; vertical-align: top"
    return "".join(
        figure_html(shown).replace("<figure>", f"<figure style='{style}'>") for shown in figures
    )


def thumbnail(pyramid: Pyramid, region: Rect) -> NDArray[np.uint8]:
    """Return a region as 8-bit colours, `SIDE` pixels long."""
    pixels = pyramid.read(region, max(1.0, max(region.h, region.w) / THUMBNAIL_SIDE))
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return to_uint8(colours)


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """Return pixels as 8 bit, stretched where they are of another type."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    values = pixels.astype(np.float64)
    low, high = np.nanpercentile(values, [1, 99])
    values = 255 * (values - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(np.nan_to_num(values), 0, 255), np.uint8)


def patch_boxes(run: Exportable, shape: tuple[int, ...]) -> list[tuple[float, ...]]:
    """Return the first looks of a run as boxes in its picture, ``(x0, y0, x1, y1)``."""
    import pandas as pd

    region = Rect(*run.header["region"])
    try:
        table = pd.read_parquet(run.path / "patches.parquet", columns=["y", "x", "h", "w"])
    except (OSError, ValueError):
        return []
    y, x, h, w = table.head(MAX_OUTLINES).to_numpy(float).T
    fy, fx = shape[0] / region.h, shape[1] / region.w
    edges = [fx * (x - region.x), fy * (y - region.y), fx * (x + w - region.x),
             fy * (y + h - region.y)]  # fmt: skip
    return [tuple(map(float, box)) for box in np.column_stack(edges)]


def resample_map(
    cells: Any, cell: float, region: Rect, shape: tuple[int, ...], plane: int | None
) -> NDArray[np.float64]:
    """Return a map at a picture's size: the mean of the cells in each pixel.

    Bands of rows are read one after the other; one `plane` is taken, or all are added up.
    """
    y0, x0 = int(region.y / cell), int(region.x / cell)
    y1 = min(cells.shape[1], math.ceil(region.y1 / cell))
    x1 = min(cells.shape[2], math.ceil(region.x1 / cell))
    step = max(1, (y1 - y0) // shape[0], (x1 - x0) // shape[1])
    planes = slice(None) if plane is None else [plane % cells.shape[0]]
    edges = np.arange(0, x1 - x0, step)
    # Whole chunks at a time: one that is read row by row is decoded again for each.
    high = step * max(1, 512 // step)
    parts = []
    for start in range(y0, y1, high):
        band = np.asarray(cells[:, start : min(start + high, y1), x0:x1])[planes]
        # What a pixel's cells hold together, for as many of them as were seen.
        known = (~np.isnan(band).all(axis=0)).astype(float)
        total = np.nansum(band, axis=0, dtype=np.float64)
        rows = np.arange(0, band.shape[1], step)
        counts, sums = (
            np.add.reduceat(np.add.reduceat(values, rows, axis=0), edges, axis=1)
            for values in (known, total)
        )
        parts.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    small = np.concatenate(parts)
    at = [np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(shape, small.shape, strict=True)]
    return small[np.ix_(*at)]


def blend_overlay(
    photo: NDArray[np.uint8],
    overlay: Overlay,
    display_max: float,
    boxes: Sequence[tuple[float, ...]] = (),
) -> bytes:
    """Return a map's colours over an image, grey and pale where nothing was looked at, as JPEG."""
    from matplotlib import colormaps

    seen = np.isfinite(overlay.values)
    share = np.clip(np.nan_to_num(overlay.values) / display_max, 0, 1)
    colours = colormaps[overlay.colormap](0.15 + 0.85 * share)[..., :3] * 255
    grey = photo.mean(axis=2, keepdims=True)
    # Half of the way up, a value is as good as opaque.
    part = np.where(seen, 0.9 * np.minimum(1, 2 * share), 0)[..., None]
    base = np.where(seen[..., None], 0.5 * photo + 0.5 * grey, 0.35 * grey + 150)
    picture = Image.fromarray(((1 - part) * base + part * colours).round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        pen.rectangle(box, outline=(0, 178, 255))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88, optimize=True)
    return out.getvalue()
