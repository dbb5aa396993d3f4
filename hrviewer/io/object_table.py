"""The table of a run's objects, ``objects.parquet``, with all candidates.

========================== =======================================================================
column                     meaning
========================== =======================================================================
``id``                     number, from 0
``patch``                  ``id`` of the patch on which it was predicted
``label``                  class
``score``                  confidence, 0 to 1
``y``, ``x``, ``h``, ``w`` bounding box, level-0 pixels
``center_y``, ``center_x`` center of the box, or centroid of the outline, level-0 pixels
``area``                   area of the outline, square level-0 pixels
``outline``                the outline as WKB, level-0 pixels ``(x, y)``; null where it is the box
``in_core``                whether the center lies in the patch's core, not in its halo
``is_object``              whether it is an object at the thresholds of the run; else a candidate
========================== =======================================================================

The classes and the thresholds are in the file's metadata.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrviewer.errors import ParameterError, RunError, validation_error
from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.objects import DetectedObjects, MergeSettings, unite_objects

__all__ = ["OBJECTS_FILE", "has_objects", "object_frame", "read_candidates", "read_objects",
           "write_candidates"]  # fmt: skip

OBJECTS_FILE = "objects.parquet"


def has_objects(run: Exportable) -> bool:
    """Return whether a run detected objects."""
    return (run.path / OBJECTS_FILE).is_file()


def write_candidates(
    folder: Path,
    candidates: DetectedObjects,
    classes: tuple[str, ...],
    settings: MergeSettings,
    region: Rect,
) -> NDArray[np.intp]:
    """Write the table in one step; return the indices of the objects at the thresholds."""
    import pyarrow as pa
    from pyarrow import parquet

    chosen, _ = unite_objects(candidates, settings, region)
    frame = object_frame(candidates, np.arange(len(candidates)), classes)
    frame["in_core"] = candidates.in_core
    frame["is_object"] = np.isin(np.arange(len(candidates)), chosen)
    about = {"classes": list(classes), "region": region.astuple()} | settings.model_dump()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), "hrviewer": json.dumps(about)}
    )
    new = folder / f"{OBJECTS_FILE}.new"
    parquet.write_table(table, new, compression="zstd")
    os.replace(new, folder / OBJECTS_FILE)
    return chosen


def read_candidates(run: Exportable) -> tuple[DetectedObjects, tuple[str, ...], dict[str, Any]]:
    """Return a run's candidates, the classes, and the thresholds.

    Raises
    ------
    RunError
        If the run has no readable table of objects.
    """
    import shapely
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(run.path / OBJECTS_FILE)
        about = json.loads(table.schema.metadata[b"hrviewer"])
    except FileNotFoundError:
        raise RunError(f"{run.path} has no objects: its model detects none") from None
    except (OSError, KeyError, ValueError, ArrowException) as error:
        raise RunError(f"{run.path} has no readable table of objects: {error}") from None
    classes = tuple(about.pop("classes"))
    number = {name: i for i, name in enumerate(classes)}
    column = {name: table[name].to_numpy() for name in table.column_names if name != "outline"}
    outlines = shapely.from_wkb(np.asarray(table["outline"].to_pylist(), object))
    corners, index = shapely.get_coordinates(outlines, return_index=True)
    last = np.r_[index[1:] != index[:-1], True] if len(index) else np.zeros(0, bool)
    candidates = DetectedObjects(
        np.stack([column[name].astype(np.float64) for name in ("y", "x", "h", "w")], axis=1),
        column["score"].astype(np.float32),
        np.array([number[label] for label in column["label"]], np.int64),
        column["patch"].astype(np.int64),
        column["in_core"].astype(bool),
        np.bincount(index[~last], minlength=len(table)).astype(np.int64),
        corners[~last, ::-1],
    )
    return candidates, classes, about


def read_objects(
    run: Exportable, **changed: Any
) -> tuple[NDArray[np.intp], DetectedObjects, tuple[str, ...]]:
    """Return a run's objects at the thresholds of the run, or at others.

    Parameters
    ----------
    run : Exportable
        The run.
    **changed
        Fields of `MergeSettings`; None keeps that of the run.

    Returns
    -------
    ids : ndarray of int, shape (n,)
        Numbers of the objects, the best first; the same at all thresholds.
    objects : DetectedObjects
        The objects.
    classes : tuple of str
        Names of the classes.
    """
    candidates, classes, about = read_candidates(run)
    region = Rect(*about.pop("region"))
    given = {name: value for name, value in changed.items() if value is not None}
    unknown = given.keys() - MergeSettings.model_fields.keys()
    if unknown:
        raise ParameterError(f"objects have no {', '.join(sorted(unknown))}")
    try:
        settings = MergeSettings(**{**about, **given})
    except ValueError as error:
        raise validation_error(error, "objects") from None  # type: ignore[arg-type]
    chosen, objects = unite_objects(candidates, settings, region)
    return chosen, objects, classes


def object_frame(
    objects: DetectedObjects, ids: NDArray[np.intp], classes: tuple[str, ...]
) -> pd.DataFrame:
    """Return objects as a table, see the module."""
    import shapely

    y, x, h, w = objects.boxes.T
    centers = objects.centers
    outlines = np.full(len(objects), None, object)
    outlined = objects.lengths > 0
    if outlined.any():
        outlines[outlined] = shapely.to_wkb(objects.polygons()[outlined])
    names = np.asarray(classes, object)
    return pd.DataFrame(
        {
            "id": np.asarray(ids, np.int64),
            "patch": objects.patch_ids,
            "label": pd.array(names[objects.class_ids], dtype="str"),
            "score": objects.scores,
            "y": y,
            "x": x,
            "h": h,
            "w": w,
            "center_y": centers[:, 0],
            "center_x": centers[:, 1],
            "area": objects.areas,
            "outline": outlines,
        }
    )
