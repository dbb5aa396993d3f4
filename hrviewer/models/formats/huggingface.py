"""Folders of Hugging Face's transformers, exported to ONNX: ``config.json`` and ``model.onnx``."""

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
from hrviewer.models.loaders.onnx_file import TensorSummary, read_onnx

__all__ = ["HuggingFaceFormat"]

WEIGHTS = "model.onnx"
SUBFOLDER = "onnx"
"""Where repositories on the Hub keep their exports."""
PROBLEMS = {
    "multi_label_classification": ("multi-label", "sigmoid"),
    "regression": ("regression", "none"),
}
"""Task and activation by a classifier's ``problem_type``."""


class HuggingFaceFormat(ModelFormat):
    """A folder that ``optimum-cli export onnx`` wrote: classification, segmentation, DETR."""

    id = "huggingface"
    title = "Hugging Face transformers, ONNX"
    priority = 5

    def supports(self, path: Path) -> bool:
        """Whether the folder's ``config.json`` is of transformers."""
        config = _folder(path) / "config.json"
        return has_fields(config, "model_type", "architectures")

    def draft(self, path: Path) -> CardDraft:
        """Return the card of ``config.json``, ``preprocessor_config.json`` and the graph."""
        folder = _folder(path)
        config = read_description(folder / "config.json")
        places = folder / WEIGHTS, folder / SUBFOLDER / WEIGHTS
        weights = next((file for file in places if file.is_file()), places[0])
        architecture = str((config.get("architectures") or ["a model"])[0])
        if not weights.is_file():
            raise ModelError(
                f"{folder} holds {architecture} of transformers without {WEIGHTS}: export it with "
                f"`optimum-cli export onnx --model {folder} OUT` and give OUT"
            )
        graph = read_onnx(weights)
        image = graph.inputs[0]
        prepared = read_description(folder / "preprocessor_config.json")
        tile, missing = _tile(image, prepared)
        labels = config.get("id2label") or {}
        classes = [str(labels[key]) for key in sorted(labels, key=int)]
        fields: dict[str, Any] = {
            "name": folder.name,
            "title": architecture,
            "input": {
                "channels": "rgb",
                **_normalization(prepared),
                "tile": tile,
                "fixed": True,
            },
        }
        missing += [] if prepared else ["scale", "mean", "std"]
        missing += [] if classes else ["classes"]
        if architecture.endswith("ForObjectDetection"):
            shapes = {output.name: output.shape for output in graph.outputs}
            logits = shapes.get("logits", ())[-1:]
            fields["task"] = "detection"
            fields["output"] = {
                "stride": 32,
                "classes": classes,
                "decode": "detr" if logits == (len(classes) + 1,) else "rtdetr",
                "names": ["logits", "pred_boxes"],
            }
        elif architecture.endswith("ForImageClassification"):
            task, activation = PROBLEMS.get(
                str(config.get("problem_type")),
                ("classification", "softmax" if len(classes) != 1 else "sigmoid"),
            )
            fields["task"] = task
            fields["output"] = {"stride": tile, "classes": classes, "activation": activation}
        elif architecture.endswith("ForSemanticSegmentation"):
            side = graph.outputs[0].shape[-1]
            stride = tile // side if isinstance(side, int) else 4
            fields["task"] = "segmentation"
            fields["output"] = {"stride": stride, "classes": classes, "activation": "softmax"}
        else:
            raise ModelError(
                f"{folder} holds {architecture}, which is not read here: choose a model for image "
                "classification, semantic segmentation or object detection, or write its card with "
                f"`hrviewer models init {weights}`"
            )
        return CardDraft(weights, fields, tuple(missing))


def _folder(path: Path) -> Path:
    """Return a model's folder, given itself or its weights, also in a subfolder."""
    folder = folder_of(path, WEIGHTS)
    return folder.parent if path.is_file() and folder.name == SUBFOLDER else folder


def _tile(image: TensorSummary, prepared: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the side of an input: the graph's, else the processor's; and what is missing."""
    side = image.shape[-1]
    if isinstance(side, int):
        return side, []
    size = prepared.get("crop_size") or prepared.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return (int(size), []) if size else (224, ["tile"])


def _normalization(prepared: dict[str, Any]) -> dict[str, Any]:
    """Return scale, mean and standard deviation of an image processor's description."""
    rescaled = prepared.get("do_rescale", True)
    found: dict[str, Any] = {
        "scale": float(prepared.get("rescale_factor", 1 / 255)) if rescaled else 1.0
    }
    if prepared.get("do_normalize") and "image_mean" in prepared:
        found |= {"mean": list(prepared["image_mean"]), "std": list(prepared["image_std"])}
    return found
