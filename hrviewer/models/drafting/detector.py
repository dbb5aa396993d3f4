"""Recognition of a detector's format by the shapes and numbers of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrviewer.errors import ModelError
from hrviewer.models.drafting.measurement import Floats, MeasuredFile

__all__ = ["DetectorFormat", "recognize_detector"]

STRIDES = (8, 16, 32), (8, 16, 32, 64)
"""Strides of the heads of the usual detectors: every cell of every head is an anchor."""
MASKS = 32
"""Coefficients of a mask."""
RELATIVE_LIMIT = 2.0
"""Fractions of the input are less for any box; pixels are more."""


@dataclass(frozen=True)
class DetectorFormat:
    """How a detector's outputs are read.

    Attributes
    ----------
    decode : str
        As in a card's output.
    classes : int
        Number of classes; 0 where it does not follow from the shapes.
    names : tuple of str
        The outputs that are read, where the order matters.
    """

    decode: str
    classes: int
    names: tuple[str, ...] = ()


def recognize_detector(
    path: Path, found: MeasuredFile, decode: str | None, classes: int
) -> DetectorFormat | None:
    """Return the format of a detector's outputs; None for other networks.

    Parameters
    ----------
    path
        The file, for messages.
    found
        Its measurement.
    decode, classes
        The format and the number of classes that the user gave, if any.

    Raises
    ------
    ModelError
        If the outputs are lists of boxes that no decoder reads.
    """
    outputs = found.outputs
    _reject_lists(path, outputs)
    tables = [out for out in outputs if out.ndim == 3 and out.shape[1] != out.shape[2]]
    if not tables or (len(tables) < len(outputs) and len(outputs) != 2):
        return None
    rows, columns = outputs[0].shape[1:3]
    if len(outputs) == 2 and outputs[0].ndim == 3 and outputs[1].ndim == 4:
        if columns == 6 + MASKS:
            return DetectorFormat("end2end-seg", classes)
        return DetectorFormat("yolov8-seg", rows - 4 - MASKS) if rows < columns else None
    if len(tables) < len(outputs):
        return None
    if len(outputs) > 1:
        return _queries(path, found, decode)
    if decode is not None:
        known = {"yolox": columns - 5, "yolov5": columns - 5, "rtdetr": columns - 4}
        known |= {"yolov8": rows - 4, "yolov8-obb": rows - 5}
        return DetectorFormat(decode, known.get(decode, classes))
    cells = {sum((found.tile // stride) ** 2 for stride in strides) for strides in STRIDES}
    if rows in cells and columns > 5:
        return DetectorFormat("yolox", columns - 5)
    if rows in {3 * n for n in cells} and columns > 5:
        return DetectorFormat("yolov5", columns - 5)
    if columns in cells and rows > 4:
        return DetectorFormat("yolov8", rows - 4)
    if columns in (5, 6):
        return DetectorFormat("end2end", classes or int(columns == 5))
    if columns == 7:
        return DetectorFormat("end2end-obb", classes)
    if columns > 4 and outputs[0].min() >= 0 and outputs[0].max() <= RELATIVE_LIMIT:
        return DetectorFormat("rtdetr", columns - 4)
    raise _unknown(path, outputs)


def _queries(path: Path, found: MeasuredFile, decode: str | None) -> DetectorFormat:
    """Return the format of logits and boxes in outputs of their own."""
    numbered = list(enumerate(found.outputs))
    boxes = [i for i, out in numbered if out.shape[2] == 4]
    named = [i for i in boxes if i < len(found.names) and "box" in found.names[i].lower()]
    at = (named or boxes[-1:] or [-1])[0]
    scores = [i for i, out in numbered if i != at and out.shape[1] == found.outputs[at].shape[1]]
    if at < 0 or not scores:
        raise _unknown(path, found.outputs)
    if np.abs(found.outputs[at]).max() > RELATIVE_LIMIT:
        raise ModelError(
            f"{path} gives boxes in pixels and scores as outputs of their own, which no decoder "
            "reads: export it with both in one output, or with the suppression in the graph"
        )
    decode = decode or "detr"
    k = found.outputs[scores[0]].shape[2] - (decode == "detr")
    names = (found.names[scores[0]], found.names[at]) if found.names else ()
    return DetectorFormat(decode, k, names)


def _reject_lists(path: Path, outputs: Sequence[Floats]) -> None:
    """Refuse outputs without an axis of inputs: as many rows as there are objects."""
    if any(out.ndim == 0 or out.shape[0] != 1 for out in outputs):
        shapes = ", ".join(str(out.shape) for out in outputs)
        raise ModelError(
            f"{path} gives {shapes} for one input: a list of objects without an axis of inputs. "
            "Export it without suppression in the graph, or so that each input has a fixed number "
            "of rows"
        )


def _unknown(path: Path, outputs: Sequence[Floats]) -> ModelError:
    shapes = ", ".join(str(out.shape[1:]) for out in outputs)
    return ModelError(
        f"{path} gives {shapes}, which are neither values per tile nor a map: if it detects "
        "objects, give its --decode (docs/networks.md lists them) or export it to one of them"
    )
