"""Formats of detectors' raw outputs, by the name that a card gives in ``output.decode``."""

from __future__ import annotations

from typing import Literal

__all__ = ["INSTANCE_DECODES", "RELATIVE_DECODES", "Decode"]

Decode = Literal[
    "yolox",
    "yolov5",
    "yolov8",
    "yolov8-seg",
    "yolov8-obb",
    "end2end",
    "end2end-seg",
    "end2end-obb",
    "detr",
    "rtdetr",
    "stardist",
    "cellpose",
    "hovernet",
]

INSTANCE_DECODES = ("stardist", "cellpose", "hovernet")
"""Decoders of maps of instances, whose channels are not classes."""
RELATIVE_DECODES = ("yolox", "yolov8-seg", "end2end-seg", "detr", "rtdetr")
"""Those whose positions are relative to the tile, which is then of fixed size."""
