"""ONNX exports of ultralytics, whose metadata describe the model.

Only the file is read: ultralytics (AGPL) is neither imported nor needed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.formats.base import CardDraft, ModelFormat
from hrviewer.models.loaders.onnx_file import OnnxFile, read_onnx

__all__ = ["UltralyticsFormat"]

MASKS = 32
"""Prototypes of masks."""
FILL = 114
"""Grey beyond the image's border, as in training."""


class UltralyticsFormat(ModelFormat):
    """Detection, segmentation, oriented boxes and classification, YOLOv8 and later, RT-DETR."""

    id = "ultralytics"
    title = "ultralytics, ONNX"
    priority = 10

    def supports(self, path: Path) -> bool:
        """Whether an ONNX file has ultralytics' metadata."""
        if path.suffix.lower() != ".onnx" or not path.is_file():
            return False
        try:
            return {"task", "names", "imgsz"} <= read_onnx(path).metadata.keys()
        except ModelError:
            return False

    def draft(self, path: Path) -> CardDraft:
        """Return the card of the metadata and the graph's shapes."""
        graph = read_onnx(path)
        about = {key: _literal(value) for key, value in graph.metadata.items()}
        names = about["names"]
        classes = list(names.values()) if isinstance(names, dict) else list(names)
        size = about["imgsz"]
        height, width = size if isinstance(size, list | tuple) else (size, size)
        if height != width:
            raise ModelError(
                f"{path} takes {height} × {width} pixels, and tiles are square: export it with "
                f"imgsz={max(height, width)}"
            )
        channels = int(about.get("channels", 3))
        fields: dict[str, Any] = {
            "name": path.stem,
            "title": str(about.get("description", "")),
            "input": {
                "channels": {1: "gray", 3: "rgb"}.get(channels, channels),
                "scale": 1 / 255,
                "tile": int(height),
                "fixed": True,
            },
            "licence": str(about.get("license", "")),
        }
        task, k = str(about["task"]), len(classes)
        if task == "classify":
            fields |= {
                "task": "classification",
                "output": {"stride": int(height), "classes": [str(name) for name in classes]},
            }
            return CardDraft(path, fields)
        fields["input"]["letterbox"] = FILL
        fields |= {
            "task": "detection",
            "output": {
                "stride": int(about.get("stride", 32)),
                "classes": [str(name) for name in classes],
                "decode": _decode(path, task, k, graph),
            },
        }
        return CardDraft(path, fields)


def _decode(path: Path, task: str, k: int, graph: OnnxFile) -> str:
    """Return the decoder of a graph's first output, by its shape."""
    shape = graph.outputs[0].shape
    if len(shape) != 3 or task not in ("detect", "segment", "obb"):
        raise ModelError(
            f"{path} has the task {task!r}, whose output {graph.outputs[0]} is not read here: "
            "choose a model of the task detect, segment, obb or classify"
        )
    extra, suffix = {"detect": (0, ""), "segment": (MASKS, "-seg"), "obb": (1, "-obb")}[task]
    rows, columns = shape[1:]
    if columns == 6 + extra and rows != 4 + k + extra:
        return f"end2end{suffix}"
    if rows == 4 + k + extra:
        return f"yolov8{suffix}"
    if task == "detect" and columns == 4 + k:
        return "rtdetr"
    raise ModelError(
        f"{path} has an output {graph.outputs[0]} that does not fit {k} classes of the task "
        f"{task}: export it again, with fixed sizes (dynamic=False)"
    )


def _literal(text: str) -> Any:
    """Return a Python literal in the metadata, or the text itself. Runs no code."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
