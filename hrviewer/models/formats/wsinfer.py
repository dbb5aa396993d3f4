"""Model folders of the WSInfer zoo: TorchScript and ``config.json``.

Kaczmarzyk et al., *Open and reusable deep learning for pathology with WSInfer and QuPath*, npj
Precision Oncology 2024. Patches are read directly at the size that the network takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.formats.base import CardDraft, ModelFormat, has_fields, read_description

__all__ = ["WsinferFormat"]

WEIGHTS = "torchscript_model.pt", "model.onnx"


class WsinferFormat(ModelFormat):
    """A folder with ``torchscript_model.pt`` and ``config.json``, or that file in it."""

    id = "wsinfer"
    title = "WSInfer"
    priority = 10

    def supports(self, path: Path) -> bool:
        """Whether the folder's ``config.json`` is WSInfer's."""
        folder = path if path.is_dir() else path.parent
        if path.is_file() and path.suffix.lower() not in (".pt", ".onnx"):
            return False
        return has_fields(folder / "config.json", "patch_size_pixels", "spacing_um_px")

    def draft(self, path: Path) -> CardDraft:
        """Return the card of ``config.json``."""
        folder = path if path.is_dir() else path.parent
        weights = path if path.is_file() else _weights(folder)
        config = read_description(folder / "config.json")
        side, spacing = int(config["patch_size_pixels"]), float(config["spacing_um_px"])
        classes = [str(name) for name in config["class_names"]]
        steps = {step["name"]: step.get("arguments", {}) for step in config["transform"]}
        resized = steps.get("Resize", {}).get("size", side)
        if unknown := steps.keys() - {"Resize", "ToTensor", "Normalize"}:
            raise ModelError(
                f"{folder / 'config.json'} has the transform {min(unknown)}, which WSInfer does "
                "not define: remove it"
            )
        tile = int(resized[0] if isinstance(resized, list) else resized)
        normalize = steps.get("Normalize", {})
        fields: dict[str, Any] = {
            "name": folder.name,
            "title": str(config.get("architecture", "")),
            "task": "classification",
            "input": {
                "channels": "rgb",
                "scale": 1 / 255 if "ToTensor" in steps else 1.0,
                "mean": normalize.get("mean", [0.0]),
                "std": normalize.get("std", [1.0]),
                "tile": tile,
                "fixed": True,
                "pixel_size": spacing * side / tile,
            },
            "output": {
                "stride": tile,
                "classes": classes,
                "activation": "softmax" if len(classes) > 1 else "sigmoid",
            },
        }
        return CardDraft(weights, fields)


def _weights(folder: Path) -> Path:
    """Return the weights in a folder; raise `ModelError` if there are none."""
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    found += sorted(folder.glob("*.pt"))
    if not found:
        raise ModelError(
            f"{folder} has WSInfer's config.json but no {WEIGHTS[0]}: download it from the zoo"
        )
    return found[0]
