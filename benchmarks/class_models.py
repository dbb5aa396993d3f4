"""Tiny networks that know the colours of stained tissue: ``python -m benchmarks.class_models DIR``.

Two ONNX files and their cards, whose weights are set by hand: ``tiles`` classifies tiles of 128
pixels by the share of pixels of each class, and ``unet`` segments pixels with a U-Net of two levels
and a skip connection. Classes are glass, stroma and nuclei, by their colour in haematoxylin and
eosin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, save_model

__all__ = ["CLASSES", "write_models"]

CLASSES = ("glass", "stroma", "nuclei")
COLOURS = np.array([[0.93, 0.92, 0.93], [0.85, 0.66, 0.78], [0.45, 0.30, 0.55]], np.float32)
SHARPNESS = 40.0
"""Logits are the negative squared distances to the colours, times this."""

TILE = 128


def write_models(folder: Path) -> dict[str, Path]:
    """Write both networks; return their files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, bias = 2 * SHARPNESS * COLOURS, -SHARPNESS * (COLOURS**2).sum(axis=1)
    node = helper.make_node
    tiles = [
        node("Conv", ["images", "w", "b"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=1),
        node("GlobalAveragePool", ["p"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("Add", ["f", "least"], ["g"]),
        node("Log", ["g"], ["output"]),
    ]
    values: dict[str, Any] = {"w": weights[..., None, None], "b": bias, "least": np.float32(1e-6)}
    tiles_path = write(folder / "tiles.onnx", tiles, values, ("n", 3, TILE, TILE), ("n", 3))
    blur = np.repeat(np.full((1, 1, 3, 3), 1 / 9, np.float32), 3, axis=0)
    unet = [
        node("Conv", ["images", "blur"], ["fine"], group=3, pads=[1] * 4),
        node("AveragePool", ["fine"], ["down"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["down", "blur"], ["coarse"], group=3, pads=[1] * 4),
        node("ConvTranspose", ["coarse", "grow"], ["up"], group=3, strides=[2, 2]),
        node("Concat", ["fine", "up"], ["both"], axis=1),
        node("Conv", ["both", "w", "b"], ["output"]),
    ]
    parts = np.concatenate([0.7 * weights, 0.3 * weights], axis=1)
    values = {
        "blur": blur,
        "grow": np.ones((3, 1, 2, 2), np.float32),
        "w": parts[..., None, None],
        "b": bias,
    }
    unet_path = write(folder / "unet.onnx", unet, values, ("n", 3, "h", "w"), ("n", 3, "h", "w"))
    shared = {"channels": "rgb", "scale": 1 / 255}
    output = {"classes": CLASSES, "activation": "softmax"}
    cards = {
        tiles_path: {
            "task": "classification",
            "input": {**shared, "tile": TILE, "fixed": True},
            "output": {**output, "stride": TILE},
        },
        unet_path: {
            "task": "segmentation",
            "input": {**shared, "tile": 256, "multiple_of": 2},
            "output": {**output, "stride": 1, "halo": 4},
        },
    }
    for path, card in cards.items():
        text = json.dumps({"name": path.stem, **card}, indent=1)
        path.with_suffix(".json").write_text(text, "utf-8")
    return {path.stem: path for path in cards}


def write(
    path: Path,
    nodes: list[Any],
    weights: dict[str, Any],
    image: tuple[int | str, ...],
    output: tuple[int | str, ...],
) -> Path:
    """Write a graph with one input and one output."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("images", 1, image)],
        [helper.make_tensor_value_info("output", 1, output)],
        [numpy_helper.from_array(np.asarray(value, np.float32), n) for n, value in weights.items()],
    )
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


if __name__ == "__main__":
    print("\n".join(map(str, write_models(Path(sys.argv[1])).values())))
