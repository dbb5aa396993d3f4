"""Folders of timm, as on the Hugging Face Hub: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.formats.base import (
    CardDraft,
    ModelFormat,
    folder_of,
    has_fields,
    read_description,
)

__all__ = ["TimmFormat"]

WEIGHTS = "model.safetensors"


class TimmFormat(ModelFormat):
    """A folder that timm's ``save_for_hf`` or ``push_to_hf_hub`` wrote."""

    id = "timm"
    title = "timm"
    priority = 10

    def supports(self, path: Path) -> bool:
        """Whether the folder's ``config.json`` names an architecture of timm."""
        config = folder_of(path, WEIGHTS) / "config.json"
        return has_fields(config, "architecture", "pretrained_cfg")

    def draft(self, path: Path) -> CardDraft:
        """Return the card of ``config.json``."""
        folder = folder_of(path, WEIGHTS)
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise ModelError(
                f"{folder} has no {WEIGHTS}, and pickled weights can run code: save them with "
                "timm.models.save_for_hf(…, safe_serialization=True)"
            )
        config = read_description(folder / "config.json")
        trained = config["pretrained_cfg"]
        channels, height, _ = trained.get("input_size", (3, 224, 224))
        k = int(config.get("num_classes", trained.get("num_classes", 0)))
        params = {"model": config["architecture"], "num_classes": k}
        params |= config.get("model_args") or {}
        output: dict[str, Any] = {"stride": height}
        if k:
            names = config.get("label_names") or [f"class {i}" for i in range(k)]
            described = config.get("label_descriptions") or {}
            if isinstance(described, dict):
                names = [described.get(name, name) for name in names]
            output |= {"classes": [str(name) for name in names]}
            output |= {"activation": "softmax" if k > 1 else "sigmoid"}
        else:
            output["width"] = int(config["num_features"])
        fields = {
            "name": folder.name,
            "title": str(config["architecture"]),
            "task": "classification" if k else "embedding",
            "input": {
                "channels": {1: "gray", 3: "rgb"}.get(channels, channels),
                "scale": 1 / 255,
                "mean": list(trained.get("mean", (0.485, 0.456, 0.406))),
                "std": list(trained.get("std", (0.229, 0.224, 0.225))),
                "tile": height,
                "fixed": True,
            },
            "output": output,
            "architecture": {"name": "timm", "params": params},
            "licence": str(trained.get("license", "")),
        }
        return CardDraft(weights, fields)
