"""Draft of a model card from a measurement and the user's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import ModelError
from hrviewer.models.activation_check import PROBABILITY_TASKS, reject_class_numbers
from hrviewer.models.class_sets import CLASS_SETS
from hrviewer.models.decode_formats import INSTANCE_DECODES
from hrviewer.models.drafting.detector import recognize_detector
from hrviewer.models.drafting.measurement import Floats, MeasuredFile
from hrviewer.models.formats.base import CardDraft

__all__ = ["CardAnswers", "draft_card"]

LINEAR_OPERATIONS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operations whose outputs are no probabilities."""
MIN_VALUES = 1000
"""Values between 0 and 1 that are taken to be probabilities."""


@dataclass
class CardAnswers:
    """What only the user knows; None where nothing is given.

    Attributes
    ----------
    name, title, task, channels, scale, mean, std, pixel_size, letterbox, tile
        As in a card.
    classes, units, activation, decode, halo
        As in a card's output; classes may be one set's name.
    """

    name: str | None = None
    title: str | None = None
    task: str | None = None
    channels: str | None = None
    scale: float | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    pixel_size: float | None = None
    letterbox: float | None = None
    tile: int | None = None
    classes: Sequence[str] | None = None
    units: Sequence[str] | None = None
    activation: str | None = None
    decode: str | None = None
    halo: int | None = None

    def __post_init__(self) -> None:
        if self.classes and len(self.classes) == 1:
            self.classes = CLASS_SETS.get(self.classes[0], self.classes)

    def given(self) -> dict[str, Any]:
        """Return the answers that were given."""
        answers = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in answers.items() if value is not None}


def draft_card(path: Path, found: MeasuredFile, answers: CardAnswers) -> CardDraft:
    """Return the card of a network, with what is missing and what was assumed.

    Parameters
    ----------
    path
        The weights file.
    found
        Its measurement.
    answers
        What the user answered.

    Raises
    ------
    ModelError
        If the outputs fit no task.
    """
    notes: list[str] = []
    missing = [] if answers.scale is not None or found.is_uint8 else ["scale"]
    channels: object = answers.channels or {1: "gray", 3: "rgb"}.get(found.channels, found.channels)
    if isinstance(channels, str) and channels.isdecimal():
        channels = int(channels)
    source: dict[str, Any] = {
        "channels": channels,
        "scale": 1.0 if found.is_uint8 else answers.scale or 1.0,
        "tile": found.tile,
        "multiple_of": found.multiple_of,
        "fixed": found.fixed,
    }
    for name in "mean", "std", "pixel_size", "letterbox":
        if getattr(answers, name) is not None:
            source[name] = getattr(answers, name)
    task, output, k = _output(path, found, answers, notes)
    if task == "detection":
        source["fixed"] = True
    if output["stride"] == found.tile and task != "detection":
        source |= {"fixed": True, "multiple_of": 1}
    names = answers.classes
    if task == "embedding":
        output["width"] = k
    elif task != "saliency":
        if names is None:
            missing.append("classes")
            names = [f"class {i}" for i in range(k)]
        if len(names) != k:
            raise ModelError(
                f"{path} has {k} channels of output, but {len(names)} classes are given: name "
                "each, or, for instances, add --decode stardist, cellpose or hovernet"
            )
        output["classes"] = list(names)
    if answers.halo is not None:
        output["halo"] = answers.halo
    if answers.units is not None:
        output["units"] = list(answers.units)
    card = {
        "name": answers.name or path.stem,
        "title": answers.title or "",
        "task": task,
        "input": source,
        "output": output,
    }
    return CardDraft(path, card, tuple(missing), tuple(notes))


def _output(
    path: Path, found: MeasuredFile, answers: CardAnswers, notes: list[str]
) -> tuple[str, dict[str, Any], int]:
    """Return the task, the card's output without classes, and the number of channels."""
    if answers.decode in INSTANCE_DECODES:
        maps = {"stride": int(max(1, found.stride)), "decode": answers.decode}
        return "instances", maps, len(answers.classes or ())
    if answers.task in (None, "detection"):
        given = len(answers.classes or ())
        detector = recognize_detector(path, found, answers.decode, given)
        if detector is not None:
            notes.append(f"the outputs are those of a detector: decode {detector.decode}")
            boxes: dict[str, Any] = {"stride": 32, "decode": detector.decode}
            if detector.decode == "yolox":
                boxes["stride"] = [8, 16, 32]
            if detector.names:
                boxes["names"] = list(detector.names)
            return "detection", boxes, detector.classes
    if answers.task in (None, *PROBABILITY_TASKS):
        reject_class_numbers(path.name, found.final_operations)
    outputs, chosen = _choose_outputs(found, notes)
    k = sum(1 if o.ndim in (1, 3) else o.shape[1] for o in outputs)
    per_tile = outputs[0].ndim < 3 or outputs[0].shape[-1] == 1
    task = answers.task
    if task is None:
        task = _guess_task(path, per_tile, k)
        notes.append(f"the task is taken to be {task}")
    stride = found.tile if per_tile else found.stride
    output: dict[str, Any] = {"stride": int(stride) if stride >= 1 else stride}
    if chosen:
        output["names"] = chosen
    if found.margin:
        output["margin"] = found.margin
        output["halo"] = found.margin
    if answers.activation is not None:
        output["activation"] = answers.activation
    elif task in PROBABILITY_TASKS:
        ends_linearly = bool(found.final_operations) and (
            found.final_operations <= LINEAR_OPERATIONS
        )
        output["activation"] = _activation(task, k, outputs, notes, ends_linearly)
    return task, output, k


def _choose_outputs(found: MeasuredFile, notes: list[str]) -> tuple[tuple[Floats, ...], list[str]]:
    """Return the outputs that are used, and their names unless it is all.

    Outputs of one channel and one size belong together. Of others the first one counts: the next
    are those of auxiliary heads, or features.
    """
    outputs = found.outputs
    single = all(out.ndim in (1, 3) or out.shape[1] == 1 for out in outputs)
    if len(outputs) == 1 or (single and len({out.shape[2:] for out in outputs}) == 1):
        return outputs, []
    first = outputs[0].shape
    together = [i for i, out in enumerate(outputs) if single and out.shape[2:] == first[2:]] or [0]
    names = [found.names[i] for i in together] if found.names else []
    used = ", ".join(names) or "the first"
    notes.append(f"of {len(outputs)} outputs {used} is used: the card's output.names sets others")
    return tuple(outputs[i] for i in together), names


def _guess_task(path: Path, per_tile: bool, k: int) -> str:
    """Return the usual task of such outputs; raise `ModelError` where there is none."""
    if per_tile:
        return "classification" if 1 < k <= 1024 else _ask_task(path, k, per_tile)
    return "segmentation" if k > 1 else _ask_task(path, k, per_tile)


def _ask_task(path: Path, k: int, per_tile: bool) -> str:
    what = f"{k} value{'s' * (k > 1)} per tile" if per_tile else "one map"
    tasks = (
        "classification, multi-label, regression or embedding"
        if per_tile
        else ("density (its sum is a count), segmentation, regression or saliency")
    )
    instances = "" if per_tile else "; or --decode stardist, cellpose or hovernet for instances"
    raise ModelError(
        f"{path} gives {what}, which may be several things: give its --task, {tasks}{instances}"
    )


def _activation(task: str, k: int, outputs: Sequence[Any], notes: list[str], linear: bool) -> str:
    """Return the activation that is still to be applied to outputs for noise.

    Outputs of linear operations may lie between 0 and 1 by chance.
    """
    values = np.concatenate([out.reshape(1, -1, *out.shape[2:]) for out in outputs], axis=1)
    low, high = float(values.min()), float(values.max())
    if not linear and k > 1 and low >= 0 and np.abs(values.sum(axis=1) - 1).max() < 5e-3:
        notes.append("the outputs sum to 1: no activation is applied")
        return "none"
    # A few values lie between 0 and 1 by chance.
    if (
        not linear
        and low >= 0
        and high <= 1
        and (values.size >= MIN_VALUES or task == "multi-label")
    ):
        notes.append("the outputs lie between 0 and 1: no activation is applied")
        return "none"
    chosen = "softmax" if k > 1 and task != "multi-label" else "sigmoid"
    notes.append(f"the outputs run from {low:.3g} to {high:.3g}: {chosen} is applied")
    return chosen
