"""Tables of measured regions: a row for each, as a data frame, CSV, Parquet or GeoJSON.

Units are part of the column names: ``_px2`` for square level-0 pixels; ``_mm2``, ``_ha`` or
``_km2`` where the pixel size is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pandas as pd

from hrviewer.errors import WriteError
from hrviewer.formatting import format_part
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.geojson import as_geojson
from hrviewer.io.region_files import feature_of_region
from hrviewer.regions import Region
from hrviewer.runs.estimates import EstimateDict, format_estimate
from hrviewer.runs.region_measurement import RegionDict
from hrviewer.units import AREA_UNITS, area_unit, format_area

__all__ = [
    "TABLE_SUFFIXES",
    "describe_region",
    "estimate_columns",
    "region_frame",
    "write_region_table",
]

DENSITIES = {f"per_{unit}" for unit in AREA_UNITS}
"""Keys of densities in an estimate."""

TABLE_SUFFIXES = (".csv", ".parquet", ".geojson")


def region_frame(
    rows: Sequence[RegionDict], pixel_size: tuple[float, float] | None
) -> pd.DataFrame:
    """Return measured regions as a table.

    Parameters
    ----------
    rows : sequence of RegionDict
        The measurements.
    pixel_size : tuple of float, optional
        µm per level-0 pixel, ``(y, x)``.
    """
    return pd.DataFrame([region_columns(row, pixel_size) for row in rows])


def region_columns(row: RegionDict, pixel_size: tuple[float, float] | None) -> dict[str, Any]:
    """Return the columns of one region; those of an estimate are empty without one."""
    columns: dict[str, Any] = {"name": row["name"], "class": row["label"]}
    areas = {"area": row["area"], "data_area": row["data_area"]}
    if "tissue_area" in row:
        areas["tissue_area"] = row["tissue_area"]
    columns |= {f"{name}_px2": area for name, area in areas.items()}
    if pixel_size is not None:
        unit = area_unit(pixel_size)
        pixel = math.prod(pixel_size) / AREA_UNITS[unit][1]
        columns |= {f"{name}_{unit}": area * pixel for name, area in areas.items()}
    columns["coverage"] = row["coverage"]
    if row["estimate"] is not None:
        columns |= estimate_columns(row["estimate"]) | density_columns(row)
        if "density_of" in row["estimate"]:  # named after what they are of
            columns = {k: v for k, v in columns.items() if k not in DENSITIES}
    return columns | row["cost"]


def estimate_columns(estimate: EstimateDict) -> dict[str, Any]:
    """Return the columns of an estimate: counts, areas or shares by class, and their interval."""
    columns: dict[str, Any] = {}
    kind, per_class = estimate["kind"], estimate["per_class"]
    if kind == "count":
        columns["count"] = estimate["value"]
        if len(per_class) > 1:
            columns |= {f"count_{name}": value for name, value in per_class.items()}
        columns |= {key: value for key, value in estimate.items() if key in DENSITIES}
    elif kind == "area":
        columns |= {f"area_{name}_px2": value for name, value in per_class.items()}
        columns |= {f"fraction_{name}": part for name, part in estimate["fraction"].items()}
    else:
        columns |= {f"{kind}_{name}": value for name, value in per_class.items()}
    for key in ("ci95", "ci95_truth"):
        ends: Any = estimate.get(key) or (math.nan, math.nan)
        columns |= {f"{key}_low": ends[0], f"{key}_high": ends[1]}
    return columns | {"exhaustive": estimate["exhaustive"]}


def density_columns(row: RegionDict) -> dict[str, float]:
    """Return the density of a count, and beside that of tissue the one of the whole region."""
    estimate = dict[str, Any](row["estimate"] or {})
    columns: dict[str, float] = {}
    for name in DENSITIES & estimate.keys():
        if "density_of" in estimate:
            part = row["data_area"] / row["area"] if row["area"] else 0.0
            columns[f"{name}_of_{estimate['density_of']}"] = estimate[name]
            columns[f"{name}_of_region"] = estimate[name] * part
    return columns


def write_region_table(
    path: str | Path,
    regions: Sequence[Region],
    rows: Sequence[RegionDict],
    pixel_size: tuple[float, float] | None,
    more: Mapping[str, Sequence[float | None]] | None = None,
) -> Path:
    """Write measured regions to a new file: a table, or their outlines with measurements.

    Parameters
    ----------
    path : str or Path
        The file, ``.csv``, ``.parquet`` or ``.geojson`` (QuPath's form, in level-0 pixels).
    regions, rows : sequences
        Regions and their measurements.
    pixel_size : tuple of float, optional
        µm per level-0 pixel, ``(y, x)``.
    more : mapping, optional
        Further columns of numbers.

    Raises
    ------
    HrviewerError
        If the suffix is another one, or the file exists or cannot be written.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise WriteError(f"{path.name} is no table: name it {', '.join(TABLE_SUFFIXES)}")
    table = region_frame(rows, pixel_size)
    for name, column in (more or {}).items():
        table[name] = list(column)
    with atomic_path(path) as part:
        if suffix == ".csv":
            table.to_csv(part, index=False)
        elif suffix == ".parquet":
            table.to_parquet(part, index=False)
        else:
            part.write_text(json.dumps(as_collection(regions, table), allow_nan=False), "utf-8")
    return path


def as_collection(regions: Sequence[Region], table: pd.DataFrame) -> dict[str, Any]:
    """Return regions as a GeoJSON object, with the numbers of their rows as measurements."""
    numbers = table.select_dtypes("number")
    features = []
    for i, region in enumerate(regions):
        row = numbers.iloc[i].dropna()
        known = {str(name): float(value) for name, value in row.items()}
        feature = replace(feature_of_region(region, i), measurements=known)
        features.append(as_geojson(feature, uuid5(NAMESPACE_URL, f"hrviewer:{region.name}")))
    return {"type": "FeatureCollection", "features": features}


def describe_region(row: RegionDict, pixel_size: tuple[float, float] | None) -> str:
    """Return the estimate and the area of a region as text."""
    area = format_area(row["area"], pixel_size)
    if "tissue_area" in row:
        area += f", {format_area(row['tissue_area'], pixel_size)} of it tissue"
    if row["estimate"] is None:
        return f"no estimate: {format_part(row['coverage'])} of {area} has predictions"
    return f"{format_estimate(row['estimate'])}; in {area}"
