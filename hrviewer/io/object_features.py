"""Features of a run's detected objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hrviewer.io.exportable import Exportable
from hrviewer.io.features import Feature
from hrviewer.io.object_table import read_objects

__all__ = ["iter_objects"]


def iter_objects(run: Exportable, thresholds: Mapping[str, Any]) -> Iterator[Feature]:
    """Yield a run's objects with their outlines, the most confident first.

    Parameters
    ----------
    run : Exportable
        The run.
    thresholds : mapping
        Fields of `MergeSettings` that differ from the run's.
    """
    ids, objects, classes = read_objects(run, **thresholds)
    size = run.header["image"]["pixel_size"]
    labels = [classes[i] for i in objects.class_ids]
    columns = ids.tolist(), labels, objects.scores.tolist(), objects.areas.tolist()
    for number, label, confidence, area, ring in zip(*columns, objects.rings(), strict=True):
        measured = {"score": confidence, "area px^2": area}
        if size:
            measured["area µm^2"] = area * size[0] * size[1]
        yield Feature(
            "object",
            label,
            ((ring,),),
            name=f"{label} {number}",
            number=number,
            measurements=measured,
        )
