"""Files as people have them: each opens as what it is, or is refused for its own cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
from direct_loops import first_axes, run_onnx, softmax
from onnx import TensorProto, helper
from tiny_models import MEAN, SIDE, STD, cells, heads, node, random, write_graph

from hrviewer.errors import HrviewerError
from hrviewer.models import Network, open_bundle
from hrviewer.models.drafting import CardAnswers, draft_card, measure_file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def init(path: Path, **answers: Any) -> Network:
    """Load a file with the card that ``models init`` drafts."""
    found = draft_card(path, measure_file(path, 64), CardAnswers(scale=1 / 255, **answers))
    assert found.missing == ()
    path.with_suffix(".json").write_text(json.dumps(found.fields))
    return open_bundle(path).load("main", "cpu")


def retype(path: Path, kind: int) -> Path:
    """Give a graph an input of another type, which it casts to float."""
    model = onnx.load(path)
    for each in model.graph.node:
        each.input[:] = ["images_32" if name == "images" else name for name in each.input]
    model.graph.node.insert(0, node("Cast", ["images"], ["images_32"], to=1))
    model.graph.input[0].type.tensor_type.elem_type = kind
    onnx.save(model, path)
    return path


# Segmentation and classification.


def opset(path: Path, version: int) -> Path:
    tiny_models.segment(path)
    model = onnx.load(path)
    model.opset_import[0].version = version
    onnx.save(model, path)
    return path


def channels_last(path: Path) -> Path:
    """(n, h, w, 3) to (n, h, w, 2) as TensorFlow exports it, with named free axes."""
    nodes = [
        node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2]),
        node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Transpose", ["y"], ["output"], perm=[0, 2, 3, 1]),
    ]
    outputs = {"output": ("n", "h", "w", 2)}
    weights = {"w": random(2, 3, 3, 3)}
    return write_graph(path, nodes, weights, outputs, shape=("n", "h", "w", 3))


def auxiliary(path: Path) -> Path:
    """A second head of the same classes, as of deep supervision."""
    nodes = [
        node("Conv", ["images", "w"], ["out"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", ["images", "v"], ["aux"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    outputs = dict.fromkeys(("out", "aux"), ("n", 2, "h", "w"))
    weights = {"w": random(2, 3, 3, 3), "v": random(2, 3, 3, 3, seed=1)}
    return write_graph(path, nodes, weights, outputs, shape=("n", 3, "h", "w"))


def binary_heads(path: Path) -> Path:
    """Two outputs of one channel each: two classes."""
    nodes = [
        node("Conv", ["images", name], [f"{name}_map"], kernel_shape=[3, 3], pads=[1] * 4)
        for name in ("road", "roof")
    ]
    outputs = {f"{name}_map": ("n", 1, "h", "w") for name in ("road", "roof")}
    weights = {"road": random(1, 3, 3, 3), "roof": random(1, 3, 3, 3, seed=1)}
    return write_graph(path, nodes, weights, outputs, shape=("n", 3, "h", "w"))


def batch_of_four(path: Path) -> Path:
    """A classifier exported for a batch of four only."""
    nodes = [
        node("GlobalAveragePool", ["images"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("MatMul", ["f", "w"], ["logits"]),
    ]
    shape = (4, 3, SIDE, SIDE)
    return write_graph(path, nodes, {"w": random(3, 2)}, {"logits": (4, 2)}, shape=shape)


def features_beside(path: Path) -> Path:
    """Logits, and the features that they are made of."""
    nodes = [
        node("GlobalAveragePool", ["images"], ["m"]),
        node("Flatten", ["m"], ["features"]),
        node("MatMul", ["features", "w"], ["logits"]),
    ]
    outputs = {"logits": ("n", 2), "features": ("n", 3)}
    return write_graph(path, nodes, {"w": random(3, 2)}, outputs, shape=("n", 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("write", "task", "size"),
    [
        (lambda path: opset(path, 11), "segmentation", SIDE),
        (lambda path: opset(path, 21), "segmentation", SIDE),
        (channels_last, "segmentation", SIDE),
        (auxiliary, "segmentation", SIDE),
        (binary_heads, "segmentation", SIDE),
        (lambda path: retype(tiny_models.segment(path), TensorProto.FLOAT16), "segmentation", SIDE),
        (lambda path: retype(tiny_models.segment(path), TensorProto.DOUBLE), "segmentation", SIDE),
        (lambda path: retype(tiny_models.segment(path), TensorProto.UINT8), "segmentation", SIDE),
        (batch_of_four, "classification", 1),
        (features_beside, "classification", 1),
    ],
)
def test_maps_and_classifiers(
    tmp_path: Path, write: Callable[[Path], Path], task: str, size: int, pixels: np.ndarray
) -> None:
    path = write(tmp_path / "net.onnx")
    net = init(path, classes=["a", "b"])
    assert net.card.task == task
    got = net(net.card.prepare(pixels)[None])
    assert got.shape == (1, 2, size, size)
    declared = onnx.load(path).graph.input[0].type.tensor_type
    x = first_axes(pixels) if declared.elem_type != TensorProto.UINT8 else first_axes(pixels) * 255
    if net.channels_last:
        x = x.transpose(0, 2, 3, 1)
    if declared.shape.dim[0].dim_value == 4:
        x = x.repeat(4, axis=0)
    x = x.astype(helper.tensor_dtype_to_np_dtype(declared.elem_type))
    outputs = run_onnx(path, x)
    raw = np.concatenate(outputs, axis=1) if write is binary_heads else outputs[0]
    raw = np.asarray(raw.transpose(0, 3, 1, 2) if net.channels_last else raw, np.float32)[:1]
    wanted = softmax(raw).reshape(got.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert net.flops(SIDE, SIDE) > 0


def hard_classes(path: Path) -> Path:
    tiny_models.segment(path)
    model = onnx.load(path)
    model.graph.node.append(node("ArgMax", ["output"], ["class"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("class", 7, ("n", "h", "w")))
    onnx.save(model, path)
    return path


def two_inputs(path: Path) -> Path:
    """An image and its original size, as of RT-DETR's authors."""
    tiny_models.segment(path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("orig_target_sizes", 7, (1, 2)))
    onnx.save(model, path)
    return path


def volume(path: Path) -> Path:
    nodes = [node("Relu", ["images"], ["y"])]
    return write_graph(path, nodes, {}, {"y": (1, 3, 8, 8, 8)}, shape=(1, 3, 8, 8, 8))


def oblong(path: Path) -> Path:
    return write_graph(
        path, [node("Relu", ["images"], ["y"])], {}, {"y": (1, 3, 32, 64)}, shape=(1, 3, 32, 64)
    )


def list_of_objects(path: Path) -> Path:
    """Rows of all inputs together, as of the suppression of YOLOv7's export."""
    nodes = [
        node("GlobalAveragePool", ["images"], ["m"]),
        node("Reshape", ["m", "line"], ["r"]),
        node("Concat", ["r"] * 4, ["output"], axis=0),
    ]
    return write_graph(path, nodes, {"line": np.array([1, 3])}, {"output": ("objects", 3)})


def tokens(path: Path) -> Path:
    """The features of a transformer's tokens, without a pooling."""
    nodes = [
        node("AveragePool", ["images"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Conv", ["p", "w"], ["c"]),
        node("Reshape", ["c", "flat"], ["t"]),
        node("Transpose", ["t"], ["last_hidden_state"], perm=[0, 2, 1]),
    ]
    weights = {"w": random(24, 3, 1, 1, spread=5.0), "flat": np.array([0, 24, -1])}
    return write_graph(path, nodes, weights, {"last_hidden_state": (1, 16, 24)})


def missing_weights(path: Path) -> Path:
    tiny_models.segment(path)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="net.data", size_threshold=0
    )
    (path.parent / "net.data").unlink()
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (hard_classes, r"number of the best class \(ArgMax\)"),
        (two_inputs, r"takes 2 inputs .*orig_target_sizes.*the image as its only one"),
        (volume, r"export it with one input \(n, channels, h, w\)"),
        (oblong, "takes 32 × 64 pixels only, and tiles are square"),
        (list_of_objects, r"\(4, 3\) for one input: a list of objects"),
        (tokens, r"gives \(16, 24\), which are neither values per tile nor a map"),
        (missing_weights, "needs 'net.data' in the same folder"),
    ],
)
def test_refusals_name_the_cause(
    tmp_path: Path, write: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(HrviewerError, match=message):
        init(write(tmp_path / "net.onnx"), classes=["a", "b"])


# Detectors.


def yolov8(path: Path, k: int) -> Path:
    n = len(cells()[1])
    nodes, weights = heads(4 + k, np.r_[np.full(4, 20.0), np.full(k, 0.5)])
    nodes += [
        node("Split", ["raw", "parts"], ["box", "z"], axis=1),
        node("Sigmoid", ["z"], ["s"]),
        node("Concat", ["box", "s"], ["output0"], axis=1),
    ]
    weights |= {"w": 0.1 * weights["w"], "parts": np.array([4, k])}
    return write_graph(path, nodes, weights, {"output0": (1, 4 + k, n)})


def yolov5(path: Path) -> Path:
    """Three anchors for each cell, with objectness; boxes in pixels."""
    n = len(cells()[1])
    nodes, weights = heads(7, np.r_[np.full(4, 20.0), np.full(3, 2.0)])
    nodes += [
        node("Split", ["raw", "parts"], ["box", "z"], axis=1),
        node("Sigmoid", ["z"], ["s"]),
        node("Concat", ["box", "s"], ["columns"], axis=1),
        node("Concat", ["columns"] * 3, ["all"], axis=2),
        node("Transpose", ["all"], ["output"], perm=[0, 2, 1]),
    ]
    weights |= {"w": 0.1 * weights["w"], "parts": np.array([4, 3])}
    return write_graph(path, nodes, weights, {"output": (1, 3 * n, 7)})


def end_to_end(path: Path, columns: int) -> Path:
    """Ten rows of boxes, score and, of six columns, the class."""
    nodes, weights = heads(columns, np.r_[[10, 10, 40, 40], 0.6, np.zeros(columns - 5)])
    weights |= {"low": np.zeros(1, np.float32), "w": 0 * weights["w"], "ten": np.array([0, 10])}
    weights |= {"first": np.array([0]), "tenth": np.array([10]), "axis": np.array([1])}
    nodes += [
        node("Transpose", ["raw"], ["rows"], perm=[0, 2, 1]),
        node("Slice", ["rows", "first", "tenth", "axis"], ["output"]),
    ]
    return write_graph(path, nodes, weights, {"output": (1, 10, columns)})


def detr(path: Path, k: int, boxes_first: bool, names: tuple[str, str]) -> Path:
    """Logits of classes and none, and boxes as fractions, in either order."""
    nodes, weights = heads(4 + k + 1, np.r_[np.zeros(4), np.full(k, 3.0), 0])
    weights["parts"] = np.array([4, k + 1])
    logits, boxes = names
    nodes += [
        node("Transpose", ["raw"], ["queries"], perm=[0, 2, 1]),
        node("Split", ["queries", "parts"], ["box", logits], axis=2),
        node("Sigmoid", ["box"], [boxes]),
    ]
    n = len(cells()[1])
    outputs = {logits: (1, n, k + 1), boxes: (1, n, 4)}
    return write_graph(path, nodes, weights, dict(sorted(outputs.items(), reverse=not boxes_first)))


@pytest.mark.parametrize(
    ("write", "classes", "decode"),
    [
        (lambda path: yolov8(path, 1), 1, "yolov8"),
        (lambda path: yolov8(path, 20), 20, "yolov8"),
        (yolov5, 2, "yolov5"),
        (lambda path: end_to_end(path, 6), 2, "end2end"),
        (lambda path: end_to_end(path, 5), 1, "end2end"),
        (lambda path: detr(path, 1, False, ("logits", "pred_boxes")), 1, "detr"),
        (lambda path: detr(path, 3, True, ("scores", "boxes")), 3, "detr"),
        (lambda path: detr(path, 3, False, ("logits", "pred_boxes")), 3, "detr"),
    ],
)
def test_detectors(
    tmp_path: Path, write: Callable[[Path], Path], classes: int, decode: str, pixels: np.ndarray
) -> None:
    path = write(tmp_path / "net.onnx")
    net = init(path, classes=[f"class {i}" for i in range(classes)])
    assert (net.card.task, net.card.output.decode) == ("detection", decode)
    (found,) = net.detect(net.card.prepare(pixels)[None], 0.3, overlap=1.0)
    raw = run_onnx(path, first_axes(pixels))
    if decode == "yolov8":
        scores = raw[0][0, 4:].max(axis=0)
    elif decode == "yolov5":
        scores = (raw[0][0, :, 4:5] * raw[0][0, :, 5:]).max(axis=1)
    elif decode == "end2end":
        scores = raw[0][0, :, 4]
    else:
        logits = (
            next(o for o in raw if o.shape[2] != 4)
            if classes != 3
            else raw[[o.name for o in onnx.load(path).graph.output].index(net.card.output.names[0])]
        )
        scores = softmax(logits.transpose(0, 2, 1))[0, :-1].max(axis=0)
    wanted = np.sort(scores[scores >= 0.3])[::-1]
    assert 0 < len(found) <= len(wanted)  # those whose centre is outside are left out
    assert {*np.round(found.scores, 4)} <= {*np.round(wanted, 4)}
    assert (found.boxes >= 0).all()
    assert (found.boxes <= SIDE).all()


def test_boxes_in_pixels_beside_their_scores(tmp_path: Path) -> None:
    path = tmp_path / "nas.onnx"
    detr(path, 2, False, ("logits", "boxes"))
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "relative"
    model.graph.node.append(node("Mul", ["relative", "side"], ["boxes"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(SIDE), "side"))
    onnx.save(model, path)
    with pytest.raises(HrviewerError, match="boxes in pixels and scores as outputs of their own"):
        init(path, classes=["a", "b"])


# Files that a download left, and wrapped weights.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "is a web page, not a model"),
    ],
)
@pytest.mark.parametrize("name", ["net.onnx", "net.safetensors", "net.pt", "net.zip", "vit"])
def test_what_a_download_left(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    path = file = tmp_path / name
    if name == "vit":
        file = tiny_models.transformers(path, "classify") / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(HrviewerError, match=message):
        open_bundle(path, trust=True)


def test_an_onnx_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the recognition of its tool to the network that runs."""
    path = tiny_models.ultralytics(tmp_path / "once.onnx", "detect")
    parsed: list[int] = []
    parse = onnx.load_model_from_string
    monkeypatch.setattr(
        onnx, "load_model_from_string", lambda data: parsed.append(len(data)) or parse(data)
    )
    monkeypatch.setattr(onnx, "load", None)
    open_bundle(path).load("main", "cpu")
    assert len(parsed) == 1


def test_prefixes_of_wrapped_weights() -> None:
    torch = pytest.importorskip("torch")
    from hrviewer.models.loaders.torch import without_prefix

    wanted = {"a.weight": torch.zeros(1), "b.bias": torch.ones(1)}
    for prefix in ("module.", "model.module.", ""):
        given = {prefix + name: value for name, value in wanted.items()}
        assert without_prefix(given, wanted).keys() == wanted.keys()
    other = {"module.a.weight": torch.zeros(1), "loss": torch.zeros(1)}
    assert without_prefix(other, wanted) is other


# Folders.


def test_problems_and_places_of_transformers(tmp_path: Path, pixels: np.ndarray) -> None:
    folder = tiny_models.transformers(tmp_path / "vit", "classify")
    config = json.loads((folder / "config.json").read_text())
    (folder / "onnx").mkdir()
    shutil.move(folder / "model.onnx", folder / "onnx" / "model.onnx")
    for problem, task, activation in (
        ("single_label_classification", "classification", "softmax"),
        ("multi_label_classification", "multi-label", "sigmoid"),
        ("regression", "regression", "none"),
    ):
        described = json.dumps(config | {"problem_type": problem})
        (folder / "config.json").write_text(described)
        for path in (folder, folder / "onnx" / "model.onnx"):
            card = open_bundle(path).card
            assert (card.name, card.task, card.output.activation) == ("vit", task, activation)
    net = open_bundle(folder).load("main", "cpu")
    wanted = run_onnx(folder / "onnx" / "model.onnx", first_axes(pixels, MEAN, STD))[0]
    np.testing.assert_allclose(
        net(net.card.prepare(pixels)[None])[0, :, 0, 0], wanted[0], atol=1e-4
    )


def test_steps_of_bioimageio(tmp_path: Path) -> None:
    import yaml

    rdf = tiny_models.bioimageio(tmp_path / "bio", version="0.5") / "rdf.yaml"
    about = yaml.safe_load(rdf.read_text())
    for axis in about["outputs"][0]["axes"][2:]:
        axis["scale"] = 4.0
    rdf.write_text(yaml.safe_dump(about))
    assert open_bundle(rdf).card.output.stride == 4
    for step, message in (
        ("zero_mean_unit_variance", "which depends on the whole image"),
        ("clip", "clip, which is not applied here"),
    ):
        about["inputs"][0]["preprocessing"] = [{"id": step, "kwargs": {"min": 0, "max": 1}}]
        rdf.write_text(yaml.safe_dump(about))
        with pytest.raises(HrviewerError, match=message):
            open_bundle(rdf)
