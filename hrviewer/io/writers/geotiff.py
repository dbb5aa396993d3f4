"""GeoTIFF: a map of a run in geographic coordinates, for georeferenced images; uses rasterio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import Field

from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.map_coordinates import georeference_of, not_georeferenced
from hrviewer.io.run_features import provenance
from hrviewer.io.run_maps import MapName, open_map
from hrviewer.io.writers.base import RunWriter

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
        return not_georeferenced(run, "ome-tiff")

    def write(
        self, run: Exportable, target: Path, settings: GeotiffSettings, progress: ProgressCallback
    ) -> None:
        """Write a map."""
        import rasterio
        from rasterio import Affine
        from rasterio.enums import Resampling

        run_map = open_map(run, settings.map)
        place = georeference_of(run)
        assert place is not None
        a, b, x, d, e, y = place.transform
        cell = run_map.cell
        k, rows, columns = run_map.cells.shape
        dtype = "float64" if run_map.cells.dtype == np.float64 else "float32"
        profile = {
            "driver": "GTiff", "height": rows, "width": columns, "count": k,
            "dtype": dtype, "crs": place.crs or None,
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
