"""COCO: patches and predictions of a run as boxes and outlines; ids start at 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.features import Feature, area_of
from hrviewer.io.ground_truth.image_ref import file_name
from hrviewer.io.run_features import FeatureSelection, iter_features, planned_patches, provenance
from hrviewer.io.writers.base import RunWriter

__all__ = ["CocoSettings", "CocoWriter"]


class CocoSettings(FeatureSelection):
    """Features to write, and the size of the boxes around points."""

    point_size: float = Field(
        16.0, gt=0, title="Point size", description="px: side of the box around a point"
    )


class CocoWriter(RunWriter):
    """COCO writer.

    COCO has no holes: outlines are outer rings; the area excludes holes.
    """

    suffixes = (".coco.json",)
    description = "boxes and outlines: FiftyOne, CVAT"
    Settings = CocoSettings

    def write(
        self, run: Exportable, target: Path, settings: CocoSettings, progress: ProgressCallback
    ) -> None:
        """Write one annotation per feature; the categories, known only then, come last."""
        height, width = run.header["image"]["shape"]
        image = {"id": 1, "file_name": file_name(run.header["image"]["path"]), "height": height,
                 "width": width}  # fmt: skip
        info = {"description": "made by hrviewer", "hrviewer": provenance(run)}
        categories: dict[str, int] = {}
        total = planned_patches(run)
        features = iter_features(run, settings)
        with target.open("w", encoding="utf-8") as out:
            out.write(
                f'{{"info": {json.dumps(info)}, "licenses": [], "images": [{json.dumps(image)}],'
            )
            out.write(' "annotations": [')
            separator = "\n"
            annotations = iter_annotations(features, settings.point_size, categories)
            for done, annotation in enumerate(annotations):
                out.write(separator + json.dumps({"id": done + 1, "image_id": 1, **annotation}))
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
    features: Iterator[Feature], point_size: float, categories: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield annotations without ids; add each new kind and label to `categories`."""
    for feature in features:
        key = f"{feature.kind} {feature.label}"
        y, x, h, w = feature.box
        area = area_of(feature.polygons)
        outlines = [part[0][:, ::-1].ravel().tolist() for part in feature.polygons]
        if feature.point is not None:
            y, x = y - point_size / 2, x - point_size / 2
            h, w, area = point_size, point_size, point_size**2
            outlines = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotation: dict[str, Any] = {
            "category_id": categories.setdefault(key, len(categories) + 1),
            "bbox": [x, y, w, h],
            "area": area,
            "segmentation": outlines,
            "iscrowd": 0,
        }
        score = feature.measurements.get("score")
        if score is not None:
            annotation["score"] = score
        yield annotation | {"attributes": dict(feature.measurements) | dict(feature.metadata)}
