"""Tables of a run's patches with their predictions, points, contours or annotations.

Units are part of the column names: ``_px`` for level-0 pixels, ``_um`` where the pixel size is
known, ``_s`` for seconds. Rows are produced a few thousand at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hrviewer.errors import ParameterError
from hrviewer.io.anonymous import AnonymousRun
from hrviewer.io.exportable import Exportable
from hrviewer.io.features import Feature, area_of
from hrviewer.io.run_features import (
    FeatureOptions,
    FeatureSelection,
    iter_features,
    patch_rows,
    prediction_columns,
    provenance,
)

if TYPE_CHECKING:
    import pyarrow

__all__ = ["TableSettings", "record_batches", "table_schema"]

BATCH_ROWS = 4096

LENGTHS = ("y", "x", "h", "w")
PATCH_COLUMNS = {
    "id": ("int64", ""),
    "role": ("string", ""),
    "order": ("int64", ""),
    "scale": ("float64", "level-0 px per model px"),
    "score": ("float64", ""),
    "value": ("float64", ""),
    "flops": ("float64", "FLOP"),
    "read_s": ("float64", "s"),
    "prepare_s": ("float64", "s"),
    "infer_s": ("float64", "s"),
    "post_s": ("float64", "s"),
    "bytes": ("float64", "byte"),
    "pixels": ("float64", "px"),
    "status": ("string", ""),
    "error": ("string", ""),
}
FEATURE_COLUMNS = {
    "id": ("int64", ""),
    "label": ("string", ""),
    "area_px2": ("float64", "px^2"),
    "sum": ("float64", ""),
    "mean": ("float64", ""),
    "max": ("float64", ""),
    "mass": ("float64", "count"),
    "score": ("float64", ""),
    "author": ("string", ""),
    "time": ("string", "ISO 8601"),
}


class TableSettings(FeatureOptions):
    """Rows of the table."""

    rows: Literal["patches", "points", "objects", "contours", "annotations"] = Field(
        "patches",
        title="Rows",
        description="Patches with predictions, points, detected objects, outlines, or annotations",
    )


def table_schema(run: Exportable, settings: TableSettings) -> pyarrow.Schema:
    """Return the columns with their units, and the run's provenance as metadata."""
    import pyarrow as pa

    types = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    units = [("px", "level-0 px")] + [("um", "µm")] * bool(run.header["image"]["pixel_size"])
    columns = [(f"{name}_{end}", "float64", unit) for end, unit in units for name in LENGTHS]
    more = PATCH_COLUMNS if settings.rows == "patches" else FEATURE_COLUMNS
    columns += [(name, kind, unit) for name, (kind, unit) in more.items()]
    if settings.rows == "patches":
        columns += [(name, "float64", "") for name in prediction_columns(run)]
    fields = [
        pa.field(name, types[kind], metadata={"unit": unit} if unit else None)
        for name, kind, unit in columns
    ]
    return pa.schema(fields, metadata={"hrviewer": json.dumps(provenance(run))})


def record_batches(run: Exportable, settings: TableSettings) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows in batches of a few thousand.

    Raises
    ------
    HrviewerError
        If the run lacks the data.
    """
    import pyarrow as pa

    schema = table_schema(run, settings)
    size = run.header["image"]["pixel_size"]
    source = with_lengths(iter_rows(run, settings), size)
    while rows := list(islice(source, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def iter_rows(run: Exportable, settings: TableSettings) -> Iterator[dict[str, Any]]:
    """Yield rows with ``y, x, h, w`` in pixels."""
    if settings.rows == "patches":
        for row in patch_rows(run.path / "patches.parquet"):
            if isinstance(run, AnonymousRun) and row["error"]:
                row["error"] = run.clean(row["error"])
            yield row
        return
    kinds = {
        kind: kind == settings.rows
        for kind in ("patches", "contours", "points", "objects", "annotations")
    }
    selection = FeatureSelection(**settings.model_dump(exclude={"rows"}), **kinds)
    if settings.rows == "objects" and not selection.check_objects(run):
        raise ParameterError("this run has no objects: its model detects none")
    for feature in iter_features(run, selection):
        yield feature_row(feature)


def feature_row(feature: Feature) -> dict[str, Any]:
    """Return a feature's row: centre, size of its bounding box, and properties."""
    _, _, h, w = feature.box
    y, x = feature.center
    row: dict[str, Any] = {
        "id": feature.number, "label": feature.label, "y": y, "x": x, "h": h, "w": w,
    }  # fmt: skip
    if feature.polygons:
        row["area_px2"] = area_of(feature.polygons)
    measured = ("sum", "mean", "max", "mass", "score")
    known = {name: feature.measurements.get(name) for name in measured}
    return row | known | {name: feature.metadata.get(name) for name in ("author", "time")}


def with_lengths(
    rows: Iterator[dict[str, Any]], size: tuple[float, float] | None
) -> Iterator[dict[str, Any]]:
    """Yield rows with lengths in pixels and, if the pixel size is known, in µm."""
    for row in rows:
        lengths = {name: float(row[name]) for name in LENGTHS}
        row |= {f"{name}_px": value for name, value in lengths.items()}
        if size is not None:
            for name, value in lengths.items():
                row[f"{name}_um"] = value * size[name in "xw"]
        yield row
