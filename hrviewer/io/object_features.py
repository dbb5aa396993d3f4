"""Features of a run's detected objects."""

from __future__ import annotations

from collections.abc import Iterator

from hrviewer.io.exportable import Exportable
from hrviewer.io.features import Feature
from hrviewer.io.object_table import read_objects

__all__ = ["iter_objects"]


def iter_objects(
    run: Exportable, score: float | None, overlap: float | None, merging: str | None
) -> Iterator[Feature]:
    """Yield a run's objects with their outlines, the most confident first.

    Parameters
    ----------
    run : Exportable
        The run.
    score, overlap, merging
        See `MergeSettings`; None keeps that of the run.
    """
    ids, objects, classes = read_objects(run, score=score, overlap=overlap, merging=merging)
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
