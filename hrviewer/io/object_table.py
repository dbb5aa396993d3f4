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
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrviewer.errors import ParameterError, RunError, short_message, validation_error
from hrviewer.escaping import printable
from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.io.run_patches import read_table
from hrviewer.objects import DetectedObjects, MergeSettings, corners_of_polygons, unite_objects

__all__ = ["OBJECTS_FILE", "has_objects", "object_frame", "object_thresholds", "read_candidates",
           "read_objects", "write_candidates"]  # fmt: skip

OBJECTS_FILE = "objects.parquet"


NO_OUTLINE, POLYGON = -1, 3
"""Of `shapely.get_type_id`."""

COLUMNS = {
    "integer": ("id", "patch"),
    "number": ("score", "y", "x", "h", "w", "center_y", "center_x", "area"),
    "truth": ("in_core", "is_object"),
    "text": ("label",),
    "bytes": ("outline",),
}
"""The columns by the kind of their values."""


class ObjectMetadata(BaseModel):
    """The classes and the region in the table's metadata, beside the `MergeSettings`."""

    model_config = ConfigDict(extra="allow")
    classes: Annotated[list[str], Field(max_length=1 << 20)]
    region: tuple[int, int, int, int]


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

    path = run.path / OBJECTS_FILE
    try:
        table, metadata = read_table(path, COLUMNS)
        about = json.loads(metadata[b"hrviewer"])
        ObjectMetadata.model_validate(about)
        stored = [value if isinstance(value, bytes) else None for value in table["outline"]]
        outlines = shapely.from_wkb(np.asarray(stored, object))
    except FileNotFoundError:
        raise RunError(f"{run.path} has no objects: its model detects none") from None
    except ValidationError as error:
        raise validation_error(error, path, kind=RunError) from None
    except (KeyError, ValueError, TypeError, RecursionError, shapely.GEOSException) as error:
        why = short_message(error)
        raise RunError(f"{run.path} has no readable table of objects: {why}") from None
    classes = tuple(about.pop("classes"))
    class_ids = pd.Index(classes).get_indexer(table["label"])
    kinds = shapely.get_type_id(outlines)
    if (class_ids < 0).any() or not np.isin(kinds, (NO_OUTLINE, POLYGON)).all():
        raise RunError(f"{path} was not written by hrviewer: an unknown class, or no outline")
    classes = tuple(map(printable, classes))
    candidates = DetectedObjects(
        table[["y", "x", "h", "w"]].to_numpy(np.float64),
        table["score"].to_numpy(np.float32),
        class_ids.astype(np.int64),
        table["patch"].to_numpy(np.int64),
        table["in_core"].to_numpy(bool),
        *corners_of_polygons(outlines),
    )
    return candidates, classes, about


def object_thresholds(run: Exportable) -> MergeSettings:
    """Return the thresholds of a run's objects."""
    from pyarrow import parquet

    about = json.loads(parquet.read_schema(run.path / OBJECTS_FILE).metadata[b"hrviewer"])
    return MergeSettings(**{name: about[name] for name in MergeSettings.model_fields})


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
