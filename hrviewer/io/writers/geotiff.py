"""GeoTIFF: a map of a run in geographic coordinates, for georeferenced images; uses rasterio."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.run_features import provenance
from hrviewer.io.run_maps import MapName, open_map
from hrviewer.io.writers.base import RunWriter
from hrviewer.pyramid.georeference import Georeference

__all__ = ["GeotiffSettings", "GeotiffWriter"]

TILE = 512
COARSEST = 512


class GeotiffSettings(WriterSettings):
    """Map to write."""

    map: MapName = Field("output", title="Map", description="One of the run's maps")


class GeotiffWriter(RunWriter):
    """GeoTIFF writer: tiled, with overviews, one band per channel; NaN is no data."""

    suffixes = (".tif", ".tiff")
    description = "a georeferenced heat map: QGIS"
    Settings = GeotiffSettings

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return why a run has no geographic coordinates."""
        try:
            import rasterio  # noqa: F401
        except ImportError:
            return "GeoTIFF needs rasterio: pip install 'hrviewer[geo]'"
        if georeference_of(run) is not None:
            return None
        path = run.header["image"]["path"]
        if not Path(path).exists():
            return f"{path} is not there, and the run has no georeference: restore the image"
        return f"{path} is not georeferenced: choose ome-tiff"

    def write(
        self, run: Exportable, target: Path, settings: GeotiffSettings, progress: ProgressCallback
    ) -> None:
        """Write a map; the run's image must still exist."""
        import rasterio
        from rasterio import Affine
        from rasterio.enums import Resampling

        run_map = open_map(run, settings.map)
        georeference = georeference_of(run)
        if georeference is None:
            raise ValueError("the image is not georeferenced")
        (a, b, x, d, e, y), crs = georeference[0][:6], georeference[1]
        cell = run_map.cell
        k, rows, columns = run_map.cells.shape
        dtype = "float64" if run_map.cells.dtype == np.float64 else "float32"
        profile = {
            "driver": "GTiff", "height": rows, "width": columns, "count": k,
            "dtype": dtype, "crs": crs,
            "transform": Affine(a * cell, b * cell, x, d * cell, e * cell, y),
            "nodata": np.nan, "tiled": True,
            "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "predictor": 3,
            "bigtiff": "if_safer", "interleave": "band",
        }  # fmt: skip
        levels: list[int] = []
        while max(rows, columns) > COARSEST * 2 ** len(levels):
            levels.append(2 ** (len(levels) + 1))
        with rasterio.open(target, "w", **profile) as out:
            for start, band in run_map.bands(TILE):
                window = rasterio.windows.Window(0, start, columns, band.shape[1])
                out.write(band.astype(dtype, copy=False), window=window)
                progress(start + band.shape[1], rows)
            for i, (label, unit) in enumerate(zip(run_map.labels, run_map.units, strict=True), 1):
                out.set_band_description(i, label)
                if unit:
                    out.set_band_unit(i, unit)
            out.update_tags(hrviewer=json.dumps(provenance(run)))
            if levels:
                out.build_overviews(levels, Resampling.average)


def georeference_of(run: Exportable) -> tuple[Any, Any] | None:
    """Return the affine transform and coordinate system of a run's image; None without one.

    They are the run's; those of formats whose reader does not know them are read from the image.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    place = Georeference.from_record(run.header["image"].get("georeference"))
    if place is not None and place.crs:
        return rasterio.Affine(*place.transform), rasterio.crs.CRS.from_user_input(place.crs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(run.header["image"]["path"]) as source:
                if source.crs is None or tuple(source.shape) != tuple(run.header["image"]["shape"]):
                    return None
                return source.transform, source.crs
    except RasterioError:
        return None
