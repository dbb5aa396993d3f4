"""Outlines in JSON files: the features of GeoJSON, COCO and the Digital Slide Archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrviewer.io.dsa import is_dsa, read_dsa
from hrviewer.io.features import Feature, rectangle
from hrviewer.io.geojson import read_geojson, read_json_file
from hrviewer.io.ground_truth.boxes import coco_objects, coco_polygons
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.run_lengths import mask_boxes, run_lengths, united_boxes

__all__ = ["read_outlines"]


def read_outlines(path: Path, image: ImageRef) -> Iterator[Feature]:
    """Yield the features of a JSON file with their outlines, where it has them.

    Raises
    ------
    HrviewerError
        If the file is none of these formats, or about another image.
    """
    data = read_json_file(path)
    if is_dsa(data):
        yield from read_dsa(data, path)
    elif isinstance(data, dict) and "annotations" in data:
        yield from read_coco_outlines(data, path, image)
    else:
        yield from read_geojson(data, path)


def read_coco_outlines(data: dict[str, Any], path: Path, image: ImageRef) -> Iterator[Feature]:
    """Yield the objects of one image in a COCO file: polygons, masks, or boxes without any."""
    for number, (label, entry) in enumerate(coco_objects(data, path, image)):
        mask = entry.get("segmentation")
        polygons = coco_polygons(entry)
        if isinstance(mask, dict):
            shape = int(mask["size"][0]), int(mask["size"][1])
            image.check_size(path, *shape)
            polygons = united_boxes(mask_boxes(run_lengths(mask["counts"]), shape))
        if not polygons:
            x, y, w, h = map(float, entry["bbox"])
            polygons = (rectangle(y, x, h, w),)
        yield Feature("annotation", label, polygons, number=number)
