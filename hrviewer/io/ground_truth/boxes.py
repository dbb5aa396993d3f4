"""Ground truth as boxes: COCO, with polygons where it has them, and Pascal VOC.

The point of an object is its box's centre.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from hrviewer.errors import GroundTruthError, short_message
from hrviewer.ground_truth import GroundTruth, ground_truth_from_labels
from hrviewer.io.features import Polygon
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.ground_truth.object_outlines import outlines_of_polygons

__all__ = ["coco_objects", "coco_polygons", "read_coco", "read_voc"]


def read_coco(data: dict[str, Any], path: Path, image: ImageRef) -> GroundTruth:
    """Read the objects of one image in a COCO file, without groups (``iscrowd``)."""
    objects = coco_objects(data, path, image)
    boxes = np.array([entry["bbox"] for _, entry in objects], np.float64).reshape(-1, 4)
    labels = [label for label, _ in objects]
    # An image listed without objects is annotated as empty.
    outlines = outlines_of_polygons([coco_polygons(entry) for _, entry in objects])
    return ground_truth_from_labels(
        labels, boxes=boxes[:, [1, 0, 3, 2]], is_annotated=True, outlines=outlines
    )


def coco_objects(
    data: dict[str, Any], path: Path, image: ImageRef
) -> list[tuple[str, dict[str, Any]]]:
    """Return class and entry of the objects of one image, without groups (``iscrowd``)."""
    images = {str(entry["file_name"]): entry for entry in data["images"]}
    record = images[image.match(path, images)]
    if "height" in record and "width" in record:
        image.check_size(path, record["height"], record["width"])
    names = {entry["id"]: str(entry["name"]) for entry in data.get("categories", [])}
    return [
        (names.get(entry.get("category_id"), "object"), entry)
        for entry in data["annotations"]
        if entry["image_id"] == record["id"] and not entry.get("iscrowd")
    ]


def coco_polygons(entry: dict[str, Any]) -> tuple[Polygon, ...]:
    """Return the polygons of an object; empty if it has a box only, or a mask in run lengths."""
    mask = entry.get("segmentation")
    if not isinstance(mask, list):
        return ()
    return tuple((np.asarray(ring, float).reshape(-1, 2)[:, ::-1],) for ring in mask)


def read_voc(path: Path, image: ImageRef) -> GroundTruth:
    """Read a Pascal VOC annotation."""
    data = path.read_bytes()
    try:
        reject_doctype(data, path)
        root = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise GroundTruthError(f"{path.name} is not valid XML: {short_message(error)}") from None
    size = root.find("size")
    if size is not None:
        image.check_size(
            path, float(required_text(size, "height")), float(required_text(size, "width"))
        )
    labels, boxes = [], []
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        if box is None:
            raise GroundTruthError(f"{path.name} has an object without a bndbox")
        x0, y0, x1, y1 = (
            float(required_text(box, key)) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        labels.append(entry.findtext("name") or "object")
        boxes.append([y0, x0, y1 - y0, x1 - x0])
    return ground_truth_from_labels(labels, boxes=np.array(boxes))


def reject_doctype(data: bytes, path: Path) -> None:
    """Reject a document type declaration: its entities could expand without bound."""

    def refuse(*_: object) -> None:
        raise GroundTruthError(
            f"{path.name} declares a document type, which is unsafe: remove the declaration"
        )

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)


def required_text(element: ElementTree.Element, key: str) -> str:
    """Return the text of a child; raise an error if it is missing."""
    text = element.findtext(key)
    if text is None:
        raise ValueError(f"<{element.tag}> lacks <{key}>")
    return text
