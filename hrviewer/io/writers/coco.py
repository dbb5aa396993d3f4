"""COCO: a run's features as boxes and outlines, ids and categories from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from hrviewer.io.features import Feature, area_of
from hrviewer.io.ground_truth.image_ref import file_name
from hrviewer.io.run_features import FeatureSelection, iter_features, planned_patches, provenance
from hrviewer.io.writers import Exportable, ProgressCallback

__all__ = ["CocoSettings", "write"]


class CocoSettings(FeatureSelection):
    """Which features, and how large a point is."""

    point_size: float = Field(
        16.0, gt=0, title="Point size", description="px: the side of the box around a point"
    )


def write(
    run: Exportable, target: Path, settings: CocoSettings, progress: ProgressCallback
) -> None:
    """Write one annotation per feature; the categories come last, when all are known.

    COCO knows no holes: outlines are outer rings, the area is without the holes.

    Parameters
    ----------
    run, target, what, progress
        See `hrviewer.io.writers.geojson.write`.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    height, width = run.header["image"]["shape"]
    image = {"id": 1, "file_name": file_name(run.header["image"]["path"]), "height": height,
             "width": width}  # fmt: skip
    info = {"description": "made by hrviewer", "hrviewer": provenance(run)}
    categories: dict[str, int] = {}
    total = planned_patches(run)
    with target.open("w", encoding="utf-8") as out:
        out.write(f'{{"info": {json.dumps(info)}, "licenses": [], "images": [{json.dumps(image)}],')
        out.write(' "annotations": [')
        separator = "\n"
        for done, entry in enumerate(
            iter_annotations(iter_features(run, settings), settings.point_size, categories)
        ):
            out.write(separator + json.dumps({"id": done + 1, "image_id": 1, **entry}))
            separator = ",\n"
            progress(done, max(done, total))
        known = [
            {"id": number, "name": name, "supercategory": kind}
            for (kind, _, name), number in (
                (key.partition(" "), number) for key, number in categories.items()
            )
        ]
        out.write(f'\n], "categories": {json.dumps(known)}}}\n')


def iter_annotations(
    features: Iterator[Feature], side: float, categories: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield annotations without their ids; fill in the categories, a kind's and a label's each."""
    for feature in features:
        key = f"{feature.kind} {feature.label}"
        y, x, h, w = feature.box
        area = area_of(feature.polygons)
        outlines = [part[0][:, ::-1].ravel().tolist() for part in feature.polygons]
        if feature.point is not None:
            y, x, h, w, area = y - side / 2, x - side / 2, side, side, side * side
            outlines = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        entry: dict[str, Any] = {
            "category_id": categories.setdefault(key, len(categories) + 1),
            "bbox": [x, y, w, h],
            "area": area,
            "segmentation": outlines,
            "iscrowd": 0,
        }
        score = feature.measurements.get("score")
        if score is not None:
            entry["score"] = score
        yield entry | {"attributes": dict(feature.measurements) | dict(feature.metadata)}
