"""Tiny models in the formats of other tools: the same files, outputs and metadata, random weights.

``python tests/models/tiny_models.py FOLDER`` writes all of them.
"""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, save_model

SIDE = 64
"""Side of an input, pixels."""
CLASSES = ("car", "boat", "tree")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

node = helper.make_node


def write_graph(
    path: Path,
    nodes: list[Any],
    weights: dict[str, Any],
    outputs: dict[str, tuple[int | str, ...]],
    metadata: dict[str, Any] | None = None,
    shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", 1, shape)],
        [helper.make_tensor_value_info(name, 1, sides) for name, sides in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)
    return path


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return (spread * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def cells(strides: tuple[int, ...] = (8, 16, 32)) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(2, anchors)`` as x, y, and strides, of a detector's anchors."""
    found, steps = [], []
    for stride in strides:
        y, x = (np.indices((SIDE // stride,) * 2).reshape(2, -1) + 0.5) * stride
        found.append([x, y])
        steps.append(np.full(x.size, stride))
    return np.concatenate(found, axis=1), np.concatenate(steps)


def heads(channels: int, bias: np.ndarray) -> tuple[list[Any], dict[str, Any]]:
    """Pooled pixels at three strides, a 1 × 1 convolution, and all anchors: ``raw``."""
    nodes = []
    for stride in (8, 16, 32):
        size = [stride, stride]
        nodes += [
            node("AveragePool", ["images"], [f"p{stride}"], kernel_shape=size, strides=size),
            node("Conv", [f"p{stride}", "w", "b"], [f"c{stride}"]),
            node("Reshape", [f"c{stride}", "flat"], [f"r{stride}"]),
        ]
    nodes.append(node("Concat", ["r8", "r16", "r32"], ["raw"], axis=2))
    weights = {
        "w": random(channels, 3, 1, 1, spread=2.0),
        "b": bias.astype(np.float32),
        "flat": np.array([0, channels, -1]),
    }
    return nodes, weights


ULTRALYTICS = "detect", "detect-nms", "segment", "obb", "classify", "rtdetr"


def ultralytics(path: Path, kind: str) -> Path:
    """An export of ultralytics; ``detect-nms`` has the suppression in its graph."""
    k = len(CLASSES)
    task = {"detect-nms": "detect", "rtdetr": "detect"}.get(kind, kind)
    metadata = {
        "description": "Ultralytics YOLO tiny model",
        "license": "AGPL-3.0",
        "stride": 32,
        "task": task,
        "batch": 1,
        "imgsz": [SIDE, SIDE],
        "names": dict(enumerate(CLASSES)),
        "args": {"nms": kind == "detect-nms", "dynamic": False},
    }
    if kind == "classify":
        nodes = [
            node("GlobalAveragePool", ["images"], ["m"]),
            node("Flatten", ["m"], ["f"]),
            node("MatMul", ["f", "w"], ["z"]),
            node("Softmax", ["z"], ["output0"], axis=1),
        ]
        return write_graph(path, nodes, {"w": random(3, k)}, {"output0": (1, k)}, metadata)
    extra = {"segment": 32, "obb": 1}.get(kind, 0)
    nodes, weights = heads(4 + k + extra, np.r_[np.zeros(4), np.full(k, 0.5), np.zeros(extra)])
    centers, steps = cells()
    n = len(steps)
    weights |= {
        "centers": centers[None].astype(np.float32),
        "steps": steps[None, None].astype(np.float32),
        "parts": np.array([2, 2, k, *[extra] * bool(extra)]),
    }
    rest = ["rest"] if extra else []
    nodes += [
        node("Split", ["raw", "parts"], ["xy", "wh", "z", *rest], axis=1),
        node("Add", ["xy", "centers"], ["at"]),
        node("Exp", ["wh"], ["e"]),
        node("Mul", ["e", "steps"], ["size"]),
        node("Sigmoid", ["z"], ["scores"]),
    ]
    rows = 4 + k + extra
    if kind in ("detect", "segment", "obb"):
        nodes.append(node("Concat", ["at", "size", "scores", *rest], ["output0"], axis=1))
        outputs: dict[str, tuple[int | str, ...]] = {"output0": (1, rows, n)}
        if kind == "segment":
            nodes.append(
                node("Conv", ["images", "proto"], ["output1"], kernel_shape=[4, 4], strides=[4, 4])
            )
            weights["proto"] = random(32, 3, 4, 4, seed=1)
            outputs["output1"] = (1, 32, SIDE // 4, SIDE // 4)
        return write_graph(path, nodes, weights, outputs, metadata)
    if kind == "rtdetr":
        weights["side"] = np.float32(SIDE)
        nodes += [
            node("Concat", ["at", "size"], ["xywh"], axis=1),
            node("Div", ["xywh", "side"], ["part"]),
            node("Concat", ["part", "scores"], ["columns"], axis=1),
            node("Transpose", ["columns"], ["output0"], perm=[0, 2, 1]),
        ]
        return write_graph(path, nodes, weights, {"output0": (1, n, 4 + k)}, metadata)
    # The rows of the ten best anchors, as after a suppression.
    weights |= {"half": np.float32(0.5), "ten": np.array([10])}
    nodes += [
        node("Mul", ["size", "half"], ["h"]),
        node("Sub", ["at", "h"], ["low"]),
        node("Add", ["at", "h"], ["high"]),
        node("ReduceMax", ["scores"], ["best"], axes=[1]),
        node("ArgMax", ["scores"], ["index"], axis=1),
        node("Cast", ["index"], ["class"], to=1),
        node("Concat", ["low", "high", "best", "class"], ["columns"], axis=1),
        node("Reshape", ["best", "line"], ["flat_best"]),
        node("TopK", ["flat_best", "ten"], ["top", "which"], axis=0),
        node("Gather", ["columns", "which"], ["chosen"], axis=2),
        node("Transpose", ["chosen"], ["output0"], perm=[0, 2, 1]),
    ]
    weights["line"] = np.array([n])
    return write_graph(path, nodes, weights, {"output0": (1, 10, 6)}, metadata)


def yolox(path: Path) -> Path:
    """An export of YOLOX's authors: undecoded, without metadata."""
    k = len(CLASSES)
    nodes, weights = heads(5 + k, np.r_[np.zeros(4), np.full(1 + k, 4.0)])
    weights["parts"] = np.array([4, 1 + k])
    nodes += [
        node("Split", ["raw", "parts"], ["box", "z"], axis=1),
        node("Sigmoid", ["z"], ["scores"]),
        node("Concat", ["box", "scores"], ["columns"], axis=1),
        node("Transpose", ["columns"], ["output"], perm=[0, 2, 1]),
    ]
    return write_graph(path, nodes, weights, {"output": (1, len(cells()[1]), 5 + k)})


def transformers(folder: Path, kind: str = "detr") -> Path:
    """An export of optimum: DETR with logits and boxes, a classifier, or a segmentation."""
    k = len(CLASSES)
    folder.mkdir(parents=True, exist_ok=True)
    labels = {str(i): name for i, name in enumerate(CLASSES)}
    name = {
        "detr": "DetrForObjectDetection",
        "classify": "ViTForImageClassification",
        "segment": "SegformerForSemanticSegmentation",
    }[kind]
    config = {"model_type": kind, "architectures": [name], "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    prepared = {
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": MEAN,
        "image_std": STD,
        "size": {"height": SIDE, "width": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    path = folder / "model.onnx"
    if kind != "detr":
        classify(path) if kind == "classify" else segment(path, k, side=SIDE)
        return folder
    nodes, weights = heads(4 + k + 1, np.r_[np.zeros(4 + k), -1])
    weights["parts"] = np.array([4, k + 1])
    nodes += [
        node("Transpose", ["raw"], ["queries"], perm=[0, 2, 1]),
        node("Split", ["queries", "parts"], ["box", "logits"], axis=2),
        node("Sigmoid", ["box"], ["pred_boxes"]),
    ]
    n = len(cells()[1])
    write_graph(path, nodes, weights, {"logits": (1, n, k + 1), "pred_boxes": (1, n, 4)})
    return folder


def classify(path: Path, side: int = SIDE) -> Path:
    """A classifier of tiles, to logits, in ONNX without metadata."""
    nodes = [
        node("GlobalAveragePool", ["images"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("MatMul", ["f", "w"], ["logits"]),
    ]
    weights = {"w": random(3, len(CLASSES))}
    outputs = {"logits": ("n", len(CLASSES))}
    return write_graph(path, nodes, weights, outputs, shape=("n", 3, side, side))


def segment(path: Path, k: int = 2, sigmoid: bool = False, side: int | None = None) -> Path:
    """A segmentation network of free or fixed size, to logits or probabilities, halo 2."""
    nodes = [
        node("Conv", ["images", "w"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "v"], ["z" if sigmoid else "output"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    nodes += [node("Sigmoid", ["z"], ["output"])] if sigmoid else []
    weights = {"w": random(8, 3, 3, 3), "v": random(k, 8, 3, 3, seed=1)}
    h, w = side or "h", side or "w"
    outputs = {"output": ("n", k, h, w)}
    return write_graph(path, nodes, weights, outputs, shape=("n", 3, h, w))


def instances(path: Path, decode: str) -> Path:
    """Maps of instances of free size, as StarDist, Cellpose or HoVer-Net have them, halo 1."""
    channels = {"stardist": [1, 32], "cellpose": [3], "hovernet": [2, 2]}[decode]
    nodes, weights, outputs = [], {}, {}
    for i, k in enumerate(channels):
        last = f"out{i}"
        rays = decode == "stardist" and i == 1
        raw = f"z{i}" if decode == "stardist" else last
        nodes.append(node("Conv", ["images", f"w{i}"], [raw], kernel_shape=[3, 3], pads=[1] * 4))
        if decode == "stardist":
            nodes.append(node("Softplus" if rays else "Sigmoid", [raw], [last]))
        # Long rays of noise overlap one another by the dozen.
        weights[f"w{i}"] = random(k, 3, 3, 3, seed=i, spread=0.3 if rays else 3.0)
        outputs[last] = ("n", k, "h", "w")
    return write_graph(path, nodes, weights, outputs, shape=("n", 3, "h", "w"))


def wsinfer(folder: Path) -> Path:
    """A model of the WSInfer zoo: patches of 96 pixels of 0.25 µm, resized to 64."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "spec_version": "1.0",
        "architecture": "tiny",
        "num_classes": 3,
        "class_names": CLASSES,
        "patch_size_pixels": 96,
        "spacing_um_px": 0.25,
        "transform": [
            {"name": "Resize", "arguments": {"size": SIDE}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": MEAN, "std": STD}},
        ],
    }
    (folder / "config.json").write_text(json.dumps(config))
    torchscript(folder / "torchscript_model.pt")
    return folder


def module(seed: int = 0, dense: bool = False) -> Any:
    """A network of torch: a classifier of tiles, or for segmentation."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    body: list[Any] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    if dense:
        return nn.Sequential(*body, nn.Conv2d(8, len(CLASSES), 3, padding=1)).eval()
    body += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(CLASSES))]
    return nn.Sequential(*body).eval()


def torchscript(path: Path, dense: bool = False) -> Path:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module(dense=dense), torch.zeros(1, 3, SIDE, SIDE))
        torch.jit.save(traced, str(path))
    return path


def torch_export(path: Path) -> Path:
    """A program of torch.export, of fixed size."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module(), (torch.zeros(1, 3, SIDE, SIDE),))
        torch.export.save(exported, path)
    return path


def timm_folder(folder: Path, model: str = "resnet18", classes: int = 3, side: int = SIDE) -> Path:
    """What timm writes for the Hugging Face Hub; needs timm for the weights."""
    from safetensors.torch import save_file

    from hrviewer.models.backbones import import_timm

    created = import_timm().create_model(model, num_classes=classes)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": model,
        "num_classes": classes,
        "num_features": created.num_features,
        "label_names": CLASSES[:classes],
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "mean": MEAN,
            "std": STD,
            "license": "apache-2.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(created.state_dict(), folder / "model.safetensors")
    return folder


def bioimageio(folder: Path, zipped: bool = False, version: str = "0.4") -> Path:
    """A package of the BioImage Model Zoo: segmentation in ONNX."""
    folder.mkdir(parents=True, exist_ok=True)
    segment(folder / "weights.onnx", k=2, sigmoid=True)
    linear = {"gain": 1 / 255, "offset": -0.5}
    about: dict[str, Any] = {
        "format_version": f"{version}.0",
        "type": "model",
        "name": "Tiny membranes",
        "license": "CC-BY-4.0",
        "cite": [{"text": "Nobody et al. (2024)"}],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": 17}},
    }
    if version == "0.4":
        about["inputs"] = [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 3, 64, 64], "step": [0, 0, 16, 16]},
                "preprocessing": [{"name": "scale_linear", "kwargs": linear}],
            }
        ]
        about["outputs"] = [
            {
                "name": "probability",
                "axes": "bcyx",
                "shape": {
                    "reference_tensor": "raw",
                    "scale": [1, 0, 1, 1],
                    "offset": [0, 1, 0, 0],
                },
                "halo": [0, 0, 16, 16],
            }
        ]
    else:
        side = {"min": 64, "step": 16}
        about["inputs"] = [
            {
                "id": "raw",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["r", "g", "b"]},
                    {"type": "space", "id": "y", "size": side},
                    {"type": "space", "id": "x", "size": side},
                ],
                "preprocessing": [{"id": "scale_linear", "kwargs": linear}],
            }
        ]
        same = {"tensor_id": "raw", "axis_id": "y"}
        about["outputs"] = [
            {
                "id": "probability",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["membrane", "cell"]},
                    {"type": "space", "id": "y", "size": same, "halo": 16},
                    {"type": "space", "id": "x", "size": same, "halo": 16},
                ],
            }
        ]
    import yaml

    (folder / "rdf.yaml").write_text(yaml.safe_dump(about))
    if not zipped:
        return folder
    package = folder.with_suffix(".zip")
    with zipfile.ZipFile(package, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return package


def monai(folder: Path, kind: str = "onnx") -> Path:
    """A bundle of MONAI for segmentation, in ONNX or TorchScript."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    about = {
        "name": "Tiny nuclei",
        "license": "Apache-2.0",
        "references": ["Nobody et al. (2024)"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "num_channels": 3,
                    "spatial_shape": ["16*n", "16*n"],
                    "value_range": [-1, 1],
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(CLASSES),
                    "channel_def": {str(i): name for i, name in enumerate(CLASSES)},
                }
            },
        },
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(about))
    inference = {"postprocessing": {"_target_": "Activationsd", "softmax": True}}
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    if kind == "onnx":
        segment(folder / "models" / "model.onnx", k=len(CLASSES))
    else:
        torchscript(folder / "models" / "model.ts", dense=True)
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    **{
        f"ultralytics {kind}": lambda folder, kind=kind: ultralytics(
            folder / f"yolo-{kind}.onnx", kind
        )
        for kind in ULTRALYTICS
    },
    "YOLOX": lambda folder: yolox(folder / "yolox.onnx"),
    "transformers DETR": lambda folder: transformers(folder / "detr"),
    "transformers classifier": lambda folder: transformers(folder / "vit", "classify"),
    "transformers segmentation": lambda folder: transformers(folder / "segformer", "segment"),
    "WSInfer": lambda folder: wsinfer(folder / "wsinfer"),
    "TorchScript": lambda folder: torchscript(folder / "scripted.pt"),
    "torch.export": lambda folder: torch_export(folder / "exported.pt2"),
    "bioimage.io folder": lambda folder: bioimageio(folder / "membranes"),
    "bioimage.io zip": lambda folder: bioimageio(folder / "zipped", zipped=True, version="0.5"),
    "MONAI ONNX": lambda folder: monai(folder / "monai"),
    "MONAI TorchScript": lambda folder: monai(folder / "monai-ts", "ts"),
    "ONNX classifier": lambda folder: classify(folder / "classifier.onnx"),
    **{
        name: lambda folder, name=name: instances(
            folder / f"{name.lower()}.onnx", name.lower().replace("-", "")
        )
        for name in ("StarDist", "Cellpose", "HoVer-Net")
    },
    "ONNX segmentation": lambda folder: segment(folder / "segmentation.onnx"),
}
"""Writers by kind; each takes a folder and returns the path to give as ``--model``."""


if __name__ == "__main__":
    for name, write in KINDS.items():
        print(f"{name}: {write(Path(sys.argv[1]))}")
