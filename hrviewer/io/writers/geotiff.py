"""GeoTIFF: a heat map in its place on Earth, for images that have one. Written by rasterio."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hrviewer.io.run_features import provenance
from hrviewer.io.run_maps import MapName, open_map
from hrviewer.io.writers import Exportable, ProgressCallback, WriterSettings

__all__ = ["GeotiffSettings", "unsupported_reason", "write"]

TILE = 512
COARSEST = 512


class GeotiffSettings(WriterSettings):
    """Which map."""

    map: MapName = Field("output", title="Map", description="Which of the run's maps")


def georeference_of(run: Exportable) -> tuple[Any, Any] | None:
    """Return the affine and the coordinate system of a run's image; None if it has none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(run.header["image"]["path"]) as source:
                if source.crs is None or tuple(source.shape) != tuple(run.header["image"]["shape"]):
                    return None
                return source.transform, source.crs
    except RasterioError:
        return None


def unsupported_reason(run: Exportable) -> str | None:
    """Return why a run has no place on Earth."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return "GeoTIFF needs rasterio: pip install 'hrviewer[geo]'"
    path = run.header["image"]["path"]
    if not Path(path).exists():
        return f"{path} is no file that is there: only the image knows its place on Earth"
    if georeference_of(run) is None:
        return f"{path} has no place on Earth: choose ome-tiff"
    return None


def write(
    run: Exportable, target: Path, settings: GeotiffSettings, progress: ProgressCallback
) -> None:
    """Write a map tiled, with overviews, one band per channel; NaN is no data.

    Parameters
    ----------
    run : Exportable
        What to write; its image must still be there.
    target : Path
        The file.
    settings : Settings
        Which map.
    progress : callable
        Told how many rows are written.

    Raises
    ------
    UserError
        If the run does not hold the map.
    """
    import rasterio
    from rasterio import Affine
    from rasterio.enums import Resampling

    shown = open_map(run, settings.map)
    found = georeference_of(run)
    if found is None:
        raise ValueError("the image has no place on Earth")
    (a, b, x, d, e, y), crs = found[0][:6], found[1]
    side = shown.cell
    scaled = Affine(a * side, b * side, x, d * side, e * side, y)
    k, rows, columns = shown.cells.shape
    kind = "float64" if shown.cells.dtype == np.float64 else "float32"
    profile = {
        "driver": "GTiff", "height": rows, "width": columns, "count": k,
        "dtype": kind, "crs": crs,
        "transform": scaled, "nodata": np.nan, "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "predictor": 3,
        "bigtiff": "if_safer", "interleave": "band",
    }  # fmt: skip
    levels: list[int] = []
    while max(rows, columns) > COARSEST * 2 ** len(levels):
        levels.append(2 ** (len(levels) + 1))
    with rasterio.open(target, "w", **profile) as out:
        for start, band in shown.bands(TILE):
            window = rasterio.windows.Window(0, start, columns, band.shape[1])
            out.write(band.astype(kind, copy=False), window=window)
            progress(start + band.shape[1], rows)
        for i, (label, unit) in enumerate(zip(shown.labels, shown.units, strict=True), 1):
            out.set_band_description(i, label)
            if unit:
                out.set_band_unit(i, unit)
        out.update_tags(hrviewer=json.dumps(provenance(run)))
        if levels:
            out.build_overviews(levels, Resampling.average)
