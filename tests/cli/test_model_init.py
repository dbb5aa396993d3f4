"""``models init`` writes a card with which the model runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from hrviewer.models import open_bundle

from .calling import call, error_of

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import tiny_models

SCALE = ("--scale", "1/255")


def read(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def test_what_cannot_be_measured_is_asked(tmp_path, monkeypatch):
    path = tiny_models.segment(tmp_path / "net.onnx")
    result = call("models", "init", path, status=1)
    assert (
        "net.onnx does not say its scale and classes: add --scale, --classes (of 2)"
        in result.stderr
    )
    assert not path.with_suffix(".json").exists()
    replies = {"Factor": "1/255", "Names": "stroma, tumour"}
    monkeypatch.setattr("hrviewer.cli.model_init.is_terminal", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda text: replies[text.split()[0]])
    call("models", "init", path)
    card = read(path)
    assert card["input"]["scale"] == pytest.approx(1 / 255)
    assert card["output"]["classes"] == ["stroma", "tumour"]


def test_a_segmentation_network(tmp_path, image):
    path = tiny_models.segment(tmp_path / "net.onnx")
    picture = tmp_path / "tile.png"
    options = (*SCALE, "--classes", "a,b", "--mean", "0.5", "--std", "0.25", "--pixel-size", "0.5")
    result = call("models", "init", path, *options, "--image", image, "--out", picture)
    assert "halo 2" in result.stdout
    assert "softmax is applied" in result.stderr
    card = read(path)
    assert card["input"] | {"scale": 0} == {
        "channels": "rgb",
        "scale": 0,
        "mean": [0.5],
        "std": [0.25],
        "tile": 256,
        "pixel_size": 0.5,
    }
    assert card["output"] == {
        "stride": 1,
        "halo": 2,
        "classes": ["a", "b"],
        "activation": "softmax",
    }
    with Image.open(picture) as both:
        assert both.size == (512, 256)
    assert open_bundle(path).load("main", "cpu").halo == 2
    assert "exists: add --force" in error_of("models", "init", path, *options)
    # A halo that is too small is measured by check.
    card["output"]["halo"] = 0
    path.with_suffix(".json").write_text(json.dumps(card))
    assert "up to 2 away" in call("models", "check", path).stderr


def test_a_detector_and_a_classifier(tmp_path, image):
    path = tiny_models.yolox(tmp_path / "yolox.onnx")
    call("models", "init", path, *SCALE, "--classes", "a,b,c", "--channels", "bgr")
    card = read(path)
    assert (card["task"], card["output"]["decode"]) == ("detection", "yolox")
    assert (card["output"]["stride"], card["input"]["channels"]) == ([8, 16, 32], "bgr")
    path = tiny_models.classify(tmp_path / "classifier.onnx")
    options = (*SCALE, "--classes", "a,b,c", "--image", image, "--out", tmp_path / "tile.png")
    text = call("models", "init", path, *options).stdout
    assert read(path)["output"]["activation"] == "softmax"
    assert "prediction" in text
    scripted = tiny_models.torchscript(tmp_path / "scripted.pt")
    options = (*SCALE, "--classes", "a,b,c", "--tile", "96")
    assert "can run arbitrary code" in error_of("models", "init", scripted, *options)
    call("models", "init", scripted, *options, "--trust")
    assert read(scripted)["input"]["tile"] == 96
    assert "scripted, stride 96" in call("models", "check", scripted, "--trust").stdout


def test_what_a_file_says_is_not_asked(tmp_path):
    path = tiny_models.ultralytics(tmp_path / "yolo.onnx", "detect")
    call("models", "init", path, "--pixel-size", "0.25")
    card = read(path)
    assert card["output"]["classes"] == list(tiny_models.CLASSES)
    assert (card["output"]["decode"], card["input"]["pixel_size"]) == ("yolov8", 0.25)


def test_answers_complete_what_a_folder_says(tmp_path):
    """Neither the graph nor the folder has a size, and no names of classes."""
    import onnx

    folder = tiny_models.transformers(tmp_path / "vit", "classify")
    graph = onnx.load(folder / "model.onnx")
    for side in graph.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "side"
    onnx.save(graph, folder / "model.onnx")
    prepared = folder / "preprocessor_config.json"
    fields = json.loads(prepared.read_text())
    del fields["size"]
    prepared.write_text(json.dumps(fields))
    config = json.loads((folder / "config.json").read_text()) | {"id2label": {}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "its tile and classes: add --tile, --classes" in error_of("models", "init", folder)
    call("models", "init", folder, "--tile", "96", "--classes", "a,b,c")
    card = json.loads((folder / "card.json").read_text())
    assert (card["input"]["tile"], card["output"]["stride"]) == (96, 96)


def test_a_halo_that_cannot_be_measured(tmp_path):
    """Every output depends on the mean of the whole input."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Mul", ["mean", "times"], ["shift"]),
        helper.make_node("Sub", ["images", "shift"], ["y"]),
    ]
    sides = (1, 3, "h", "w")
    weights = {"times": np.float32(100)}
    path = tmp_path / "net.onnx"
    tiny_models.write_graph(path, nodes, weights, {"y": sides}, shape=sides)
    result = call(
        "models", "init", path, "--scale", "1/255", "--activation", "sigmoid", "--classes", "a,b,c"
    )
    assert "a halo of 32 pixels is taken" in result.stderr
    assert read(path)["output"]["halo"] == 32


def test_a_set_of_classes_is_eighty():
    from hrviewer.models.drafting import CardAnswers

    answers = CardAnswers(classes=["coco80"])
    assert len(answers.given()["classes"]) == 80
    assert answers.given()["classes"][9] == "traffic light"


def test_without_onnx_the_package_is_named(tmp_path, monkeypatch):
    path = tiny_models.segment(tmp_path / "net.onnx")
    for name in "onnx", "onnxruntime":
        monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install "hrviewer[onnx]"' in error_of("models", "init", path)


def test_ambiguous_outputs_need_their_task(tmp_path):
    path = tiny_models.segment(tmp_path / "one.onnx", k=1)
    options = (*SCALE, "--classes", "gull")
    message = error_of("models", "init", path, *options)
    assert "give its --task, density" in message
    assert "or --decode stardist, cellpose or hovernet for instances" in message
    call("models", "init", path, *options, "--task", "regression", "--units", "m")
    assert read(path)["output"]["units"] == ["m"]
    out = open_bundle(path).load("main", "cpu")(np.zeros((1, 3, 64, 64), np.float32))
    assert out.shape == (1, 1, 64, 64)


def test_logits_between_0_and_1_are_no_probabilities(tmp_path):
    """A convolution without an activation gives logits, even where they happen to be small."""
    import onnx

    path = tiny_models.segment(tmp_path / "net.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        scaled = np.abs(onnx.numpy_helper.to_array(tensor)) * 0.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, tensor.name))
    onnx.save(model, path)
    call("models", "init", path, *SCALE, "--classes", "a,b")
    assert read(path)["output"]["activation"] == "softmax"
