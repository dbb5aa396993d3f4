"""One HTML file that explains itself: a table, plots, and pictures of the overlays."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrviewer.exchange.formats import Exportable
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.resample import Pixels

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Figure", "overlays", "page"]

Figure = tuple[str, bytes]
"""What stands below a picture, and the picture."""

SIDE = 380
"""Of an overlay's picture, in pixels."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2.5rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; } td:first-child, th:first-child, .text { text-align: left; }
figure { margin: 0; } figcaption { font-size: 12px; color: #555; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } img { max-width: 100%; }
"""


def page(
    title: str,
    about: Iterable[tuple[str, str]],
    table: pd.DataFrame,
    plots: Sequence[Figure],
    pictures: Sequence[tuple[str, Sequence[Figure]]] = (),
) -> str:
    """Return a whole page; everything is in it.

    Parameters
    ----------
    title : str
        What was compared.
    about : iterable of tuple of str
        What a reader must know: names and what they are.
    table : DataFrame
        What was found.
    plots : sequence of Figure
        Below the table.
    pictures : sequence
        Of every run a heading and its figures.
    """
    known = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about)
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(cell(value) for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    shown = "".join(
        f"<h2>{escape(name)}</h2><div class='row'>{''.join(map(figure, figures))}</div>"
        for name, figures in pictures
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><dl>{known}</dl>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{''.join(map(figure, plots))}{shown}</html>\n"
    )


def escape(text: object) -> str:
    """Return text as HTML."""
    return html.escape(str(text))


def cell(value: Any) -> str:
    """Return a table's cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "<td>–</td>"
    if isinstance(value, float):
        return f"<td>{value:,.4g}</td>"
    if isinstance(value, tuple):
        return f"<td>{' – '.join(f'{part:,.4g}' for part in value)}</td>"
    kind = "" if isinstance(value, int) else " class='text'"
    return f"<td{kind}>{escape(value)}</td>"


def figure(shown: Figure) -> str:
    """Return a picture with what stands below it."""
    caption, data = shown
    coded = base64.b64encode(data).decode()
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/png;base64,{coded}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def overlays(run: Exportable, pyramid: Pyramid) -> list[Figure]:
    """Return pictures of a run's output, saliency and cost over its region, in grey.

    Colours go from nothing to the map's 99.5th percentile; where nothing was looked at the image
    shows alone.
    """
    import zarr

    region = Rect(*run.header["region"])
    scale = max(1.0, max(region.h, region.w) / SIDE)
    grey = to_grey(pyramid.read(region, scale))
    figures: list[Figure] = []
    for name, what in (
        ("output", "what the network said"),
        ("saliency", "what seemed worth a look"),
        ("cost", "where the FLOPs went"),
    ):
        try:
            group = zarr.open_group(run.path / name, mode="r")
            about: Any = group.attrs["hrviewer"]
        except (OSError, KeyError):
            continue
        values = sample(group["0"], float(about["cell"]), region, grey.shape, first=name == "cost")
        figures.append((what, blend(grey, values)))
    return figures


def to_grey(pixels: Pixels) -> NDArray[np.uint8]:
    """Return an image as 8-bit grey, stretched where it is no 8-bit image."""
    mean = pixels[..., :3].astype(np.float64).mean(axis=2)
    if pixels.dtype != np.uint8:
        low, high = np.nanpercentile(mean, [1, 99])
        mean = 255 * (mean - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(np.nan_to_num(mean), 0, 255), np.uint8)


def sample(
    cells: Any, cell: float, region: Rect, shape: tuple[int, ...], *, first: bool
) -> NDArray[np.float64]:
    """Return a map at a picture's size: the mean of the cells in each pixel.

    Bands of rows are read one after the other; the channels are added up, or the `first` is taken.
    """
    y0, x0 = int(region.y / cell), int(region.x / cell)
    y1 = min(cells.shape[1], math.ceil(region.y1 / cell))
    x1 = min(cells.shape[2], math.ceil(region.x1 / cell))
    step = max(1, (y1 - y0) // shape[0], (x1 - x0) // shape[1])
    edges = np.arange(0, x1 - x0, step)
    # Whole chunks at a time: one that is read in slices is decoded again for each.
    high = step * max(1, 512 // step)
    parts = []
    for start in range(y0, y1, high):
        band = cells[slice(0, 1) if first else slice(None), start : min(start + high, y1), x0:x1]
        seen = ~np.isnan(band).all(axis=0)
        total = np.where(seen, np.nansum(band, axis=0, dtype=np.float64), 0)
        rows = np.arange(0, band.shape[1], step)
        counts, sums = (
            np.add.reduceat(np.add.reduceat(values, rows, axis=0), edges, axis=1)
            for values in (seen.astype(float), total)
        )
        parts.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    small = np.concatenate(parts)
    at = [np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(shape, small.shape, strict=True)]
    return small[np.ix_(*at)]


def blend(grey: NDArray[np.uint8], values: NDArray[np.float64]) -> bytes:
    """Return a map's colours over a grey image, as PNG."""
    from matplotlib import colormaps

    seen = ~np.isnan(values)
    top = float(np.percentile(values[seen], 99.5)) if seen.any() else 1.0
    share = np.clip(np.nan_to_num(values) / (top or 1.0), 0, 1)
    colours = colormaps["viridis"](share)[..., :3] * 255
    part = np.where(seen, 0.25 + 0.6 * share, 0)[..., None]
    mixed = (1 - part) * grey[..., None] + part * colours
    out = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(out, "PNG", optimize=True)
    return out.getvalue()
