"""MONAI bundles: ``configs/metadata.json`` with ONNX or TorchScript in ``models/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.formats.base import CardDraft, ModelFormat, has_fields, read_description

__all__ = ["MonaiFormat"]

ORDER = ".onnx", ".ts", ".pt2"
FREE_MULTIPLE = 32
"""Multiple of sides of which the description does not give the network's depth; it fits most."""


class MonaiFormat(ModelFormat):
    """A folder of MONAI's bundle specification, for images of two dimensions."""

    id = "monai"
    title = "MONAI bundle"
    priority = 10

    def supports(self, path: Path) -> bool:
        """Whether the folder has ``configs/metadata.json`` of MONAI."""
        return has_fields(path / "configs" / "metadata.json", "network_data_format")

    def draft(self, path: Path) -> CardDraft:
        """Return the card of ``metadata.json`` and ``inference.json``."""
        about = read_description(path / "configs" / "metadata.json")
        formats = about["network_data_format"]
        image = _only(path, formats.get("inputs", {}), "input")
        output = _only(path, formats.get("outputs", {}), "output")
        weights = _weights(path)
        sides = [_side(side) for side in image.get("spatial_shape", [])]
        if len(sides) != 2:
            raise ModelError(
                f"{path} takes images of {len(sides)} dimensions: choose a bundle for two"
            )
        tile, multiple, fixed = _tile(sides)
        channels = int(image.get("num_channels", 3))
        missing, notes = [], []
        given = image.get("value_range") or ()
        if len(given) != 2:
            missing.append("scale")
        low, high = map(float, given if len(given) == 2 else (0, 255))
        inference = _inference_text(path)
        if re.search(r"NormalizeIntensityd?\b", inference) and "subtrahend" not in inference:
            missing.append("scale")
            notes.append("NormalizeIntensity normalises each image by its own mean and deviation")
        elif re.search(r"ScaleIntensityd?\b", inference):
            notes.append("ScaleIntensity stretches each image: pixels of 0-255 are taken instead")
        k = int(output.get("num_channels", 1))
        names = output.get("channel_def", {})
        classes = [str(names.get(str(i), f"class {i}")) for i in range(k)]
        kind = str(output.get("format", "")).lower()
        task = "segmentation" if kind in ("segmentation", "labels") else kind
        if task not in ("segmentation", "classification", "regression"):
            raise ModelError(
                f"{path} has an output of the format {kind!r}, which is not read here: write the "
                f"card of its weights with `hrviewer models init {weights}`"
            )
        predicted: dict[str, Any] = {
            "stride": tile if task == "classification" else 1,
            "classes": classes,
            "activation": _activation(inference, output, k),
        }
        fields: dict[str, Any] = {
            "name": path.name,
            "title": str(about.get("name") or about.get("task") or ""),
            "task": task,
            "input": {
                "channels": {1: "gray", 3: "rgb"}.get(channels, channels),
                # 0-255 becomes the range: x · scale − mean.
                "scale": (high - low) / 255,
                "mean": [-low if low else 0.0],
                "tile": tile,
                "multiple_of": multiple,
                "fixed": fixed,
            },
            "output": predicted,
            "licence": str(about.get("license", "")),
            "citation": "; ".join(map(str, about.get("references") or [])),
        }
        return CardDraft(weights, fields, tuple(dict.fromkeys(missing)), tuple(notes))


def _only(path: Path, entries: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the only image among the inputs or outputs."""
    if len(entries) != 1:
        raise ModelError(
            f"{path} has {len(entries)} {what}s ({', '.join(entries)}): choose a bundle with one, "
            "or export it to ONNX"
        )
    found: dict[str, Any] = next(iter(entries.values()))
    return found


def _weights(path: Path) -> Path:
    """Return the first weights file that can be loaded."""
    files = sorted((path / "models").glob("*")) if (path / "models").is_dir() else []
    for suffix in ORDER:
        for file in files:
            if file.suffix.lower() == suffix:
                return file
    raise ModelError(
        f"{path} has no models/model.onnx or models/model.ts, and pickled weights are not loaded: "
        "export it with `python -m monai.bundle onnx_export` or `ckpt_export`"
    )


def _side(side: Any) -> tuple[int | None, int]:
    """Return a side and what it is a multiple of: of 256, ``"*"``, ``"16*n"`` or ``"2**p*n"``."""
    if isinstance(side, int):
        return side, side
    factors = [part.strip() for part in str(side).replace("**", "^").split("*")]
    numbers = [int(part) for part in factors if part.isdigit()]
    powers = [part for part in factors if "^" in part]
    multiple = 1
    for number in numbers:
        multiple *= number
    return None, multiple * (FREE_MULTIPLE if powers else 1)


def _tile(sides: list[tuple[int | None, int]]) -> tuple[int, int, bool]:
    """Return tile, multiple and whether the size is fixed.

    Sides that differ are an example of a network that takes any: tiles are square.
    """
    (h, m), (w, n) = sides
    if h is not None and h == w:
        return h, 1, True
    multiple = FREE_MULTIPLE if h is not None and w is not None else max(m, n)
    return max(multiple, 256 // multiple * multiple), multiple, False


def _inference_text(path: Path) -> str:
    """Return the configuration of inference, JSON or YAML."""
    text = ""
    for file in sorted((path / "configs").glob("inference.*")):
        if file.stat().st_size < 1 << 20:
            text += file.read_text("utf-8", errors="replace")
    return text


def _activation(text: str, output: dict[str, Any], k: int) -> str:
    """Return the activation of the inference's postprocessing."""
    if output.get("type") == "probabilities":
        return "none"
    for name in ("softmax", "sigmoid"):
        if f'"{name}": true' in text.lower() or f"{name}: true" in text.lower():
            return name
    return "softmax" if k > 1 else "sigmoid"
