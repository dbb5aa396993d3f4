"""Models in the formats of other tools: without a card, equal to a direct loop.

The files are written by `tiny_models`, with the outputs and metadata of the tools that they are
named after.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from direct_loops import first_axes, read_objects, run_module, run_onnx, softmax
from tiny_models import CLASSES, MEAN, SIDE, STD

from hrviewer.errors import HrviewerError, UntrustedModelError
from hrviewer.models import Network, open_bundle
from hrviewer.models.formats import find_format


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def load(path: Path) -> Network:
    return open_bundle(path, trust=True).load("main", "cpu")


# Detectors: object for object.


def write_yolox_card(path: Path) -> None:
    card = {
        "name": "yolox",
        "task": "detection",
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": SIDE, "fixed": True},
        "output": {"stride": [8, 16, 32], "classes": CLASSES, "decode": "yolox"},
    }
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize("kind", ["detect", "detect-nms", "segment", "rtdetr", "detr", "yolox"])
def test_detectors_find_what_a_loop_finds(tmp_path: Path, kind: str, pixels: np.ndarray) -> None:
    graph = path = tmp_path / f"{kind}.onnx"
    batch = first_axes(pixels)
    if kind == "detr":
        path = tiny_models.transformers(tmp_path / "detr")
        graph, batch = path / "model.onnx", first_axes(pixels, MEAN, STD)
    elif kind == "yolox":
        tiny_models.yolox(path)
        write_yolox_card(path)
    else:
        tiny_models.ultralytics(path, kind)
    net = load(path)
    assert net.card.classes == CLASSES
    (found,) = net.detect(net.card.prepare(pixels)[None])
    wanted = read_objects(kind, run_onnx(graph, batch))
    assert len(wanted) > 2
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found.scores, [score for score, _, _ in wanted], atol=1e-4)
    assert found.classes.tolist() == [c for _, c, _ in wanted]
    np.testing.assert_allclose(found.boxes, [box for *_, box in wanted], atol=1e-3)
    assert len(found.outlines) == (len(found) if kind == "segment" else 0)


def test_oriented_boxes_of_ultralytics(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tiny_models.ultralytics(tmp_path / "obb.onnx", "obb")
    net = load(path)
    assert (net.card.output.decode, net.card.licence) == ("yolov8-obb", "AGPL-3.0")
    (found,) = net.detect(net.card.prepare(pixels)[None])
    assert len(found.outlines) == len(found) > 0
    # The box is that of its corners, cut at the input's border.
    for box, corners in zip(found.boxes, found.outlines, strict=True):
        low, high = corners.min(axis=0), corners.max(axis=0)
        np.testing.assert_allclose(box, np.clip([*low, *high], 0, SIDE), atol=1e-3)


# Classifiers and segmentation: to 1e-4.


@pytest.mark.parametrize(
    "kind", ["classify", "transformers", "wsinfer", "monai", "monai-ts", "bioimageio"]
)
def test_predictions_equal_a_direct_loop(tmp_path: Path, kind: str, pixels: np.ndarray) -> None:
    x = first_axes(pixels)
    if kind == "classify":
        path = tiny_models.ultralytics(tmp_path / "cls.onnx", "classify")
        wanted = run_onnx(path, x)[0]
    elif kind == "transformers":
        path = tiny_models.transformers(tmp_path / "vit", "classify")
        wanted = softmax(run_onnx(path / "model.onnx", first_axes(pixels, MEAN, STD))[0])
    elif kind == "wsinfer":
        path = tiny_models.wsinfer(tmp_path / "zoo")
        wanted = softmax(run_module(first_axes(pixels, MEAN, STD)))
    elif kind == "bioimageio":
        path = tiny_models.bioimageio(tmp_path / "bio")
        wanted = run_onnx(path / "weights.onnx", x - 0.5)[0]
    elif kind == "monai":
        path = tiny_models.monai(tmp_path / "monai")
        wanted = softmax(run_onnx(path / "models/model.onnx", 2 * x - 1)[0])
    else:
        path = tiny_models.monai(tmp_path / "monai", "ts")
        wanted = softmax(run_module(2 * x - 1, dense=True))
    net = load(path)
    got = net(net.card.prepare(pixels)[None])
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-4)


def test_what_a_wsinfer_folder_says(tmp_path: Path) -> None:
    """Patches of 96 pixels of 0.25 µm are read at the 64 pixels that the network takes."""
    folder = tiny_models.wsinfer(tmp_path / "zoo")
    with pytest.raises(UntrustedModelError, match=r"can run arbitrary code.*--trust.*trust=True"):
        open_bundle(folder)
    card = open_bundle(folder / "torchscript_model.pt", trust=True).card
    assert (card.name, card.task, card.classes) == ("zoo", "classification", CLASSES)
    assert (card.input.tile, card.input.fixed, card.stride) == (SIDE, True, SIDE)
    assert card.input.pixel_size == pytest.approx(0.25 * 96 / 64)
    config = json.loads((folder / "config.json").read_text())
    config["transform"].append({"name": "Exec", "arguments": {}})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HrviewerError, match="has the transform Exec"):
        open_bundle(folder, trust=True)


def test_packages_of_bioimageio(tmp_path: Path) -> None:
    cards = [
        open_bundle(tiny_models.bioimageio(tmp_path / name, zipped, version)).card
        for name, zipped, version in (("a", False, "0.4"), ("b", True, "0.5"))
    ]
    for card in cards:
        assert (card.input.tile, card.input.multiple_of, card.input.fixed) == (256, 16, False)
        assert (card.output.halo, card.stride, card.task) == (16, 1, "segmentation")
        assert card.citation == "Nobody et al. (2024)"
    assert cards[0].classes == ("class 0", "class 1")
    assert cards[1].classes == ("membrane", "cell")
    rdf = tmp_path / "a/rdf.yaml"
    rdf.write_text(rdf.read_text().replace("scale_linear", "scale_range"))
    with pytest.raises(HrviewerError, match="scale_range, which depends on the whole image"):
        open_bundle(tmp_path / "a")


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_a_package_does_not_leave_its_folder(tmp_path: Path, name: str) -> None:
    package = tiny_models.bioimageio(tmp_path / "evil", zipped=True)
    with zipfile.ZipFile(package, "a") as archive:
        archive.writestr(name, "boo")
    with pytest.raises(HrviewerError, match="leads out of its folder"):
        open_bundle(package)
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_package_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hrviewer.models.formats import package as module

    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(HrviewerError, match="holds too much"):
        open_bundle(tiny_models.bioimageio(tmp_path / "large", zipped=True))


def test_folders_that_cannot_be_used_name_the_cause(tmp_path: Path) -> None:
    folder = tiny_models.transformers(tmp_path / "vit", "classify")
    (folder / "model.onnx").unlink()
    with pytest.raises(HrviewerError, match=r"without model.onnx: export it with `optimum-cli"):
        open_bundle(folder)
    bundle = tiny_models.monai(tmp_path / "monai")
    (bundle / "models/model.onnx").rename(bundle / "models/model.pth")
    with pytest.raises(
        HrviewerError, match=r"no models/model.onnx or models/model.ts.*ckpt_export"
    ):
        open_bundle(bundle)
    path = tiny_models.ultralytics(tmp_path / "pose.onnx", "detect")
    import onnx

    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == "task").value = "pose"
    onnx.save(model, path)
    with pytest.raises(HrviewerError, match=r"has the task 'pose'.*choose a model of the task"):
        open_bundle(path)


def test_damaged_descriptions(tmp_path: Path) -> None:
    """A file of another kind in each format: a line, and no traceback."""
    import yaml

    timm = tmp_path / "timm"
    write_timm_config(timm, classes=0)
    (timm / "model.safetensors").touch()
    folders = {
        timm / "config.json": {"num_features": None},
        tiny_models.transformers(tmp_path / "vit", "classify") / "config.json": {
            "id2label": {"first": "car"}
        },
        tiny_models.wsinfer(tmp_path / "zoo") / "config.json": {"class_names": None},
        tiny_models.monai(tmp_path / "monai") / "configs/metadata.json": {
            "network_data_format": ["image"]
        },
    }
    for file, wrong in folders.items():
        file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
        folder = file.parent.parent if file.parent.name == "configs" else file.parent
        with pytest.raises(HrviewerError, match=f"description of {folder} .* is incomplete"):
            open_bundle(folder, trust=True)
    rdf = tiny_models.bioimageio(tmp_path / "bio") / "rdf.yaml"
    about = yaml.safe_load(rdf.read_text()) | {"inputs": ["image"]}
    rdf.write_text(yaml.safe_dump(about))
    with pytest.raises(HrviewerError, match=f"description of {rdf} .* is incomplete"):
        open_bundle(rdf)


def test_a_card_of_the_users_comes_first(tmp_path: Path) -> None:
    folder = tiny_models.transformers(tmp_path / "vit", "classify")
    fields = open_bundle(folder).card.model_dump(mode="json", exclude_defaults=True)
    (folder / "card.json").write_text(json.dumps(fields | {"title": "Mine"}))
    assert open_bundle(folder).card.title == "Mine"


def test_programs_of_torch_need_trust(tmp_path: Path, pixels: np.ndarray) -> None:
    card = {
        "name": "net",
        "task": "classification",
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": SIDE, "fixed": True},
        "output": {"stride": SIDE, "classes": CLASSES, "activation": "softmax"},
    }
    x = first_axes(pixels)
    wanted = softmax(run_module(x))
    for path in (
        tiny_models.torchscript(tmp_path / "script.pt"),
        tiny_models.torch_export(tmp_path / "export.pt2"),
    ):
        path.with_suffix(".json").write_text(json.dumps(card))
        with pytest.raises(UntrustedModelError):
            open_bundle(path)
        net = load(path)
        np.testing.assert_allclose(net(x)[0, :, 0, 0], wanted[0], atol=1e-5)
        assert net.flops(SIDE, SIDE) == 2 * (9 * 3 * 8 * SIDE**2 + 8 * 3)
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(HrviewerError, match=r"neither TorchScript nor torch.export"):
            load(path)
    import torch

    torch.save(tiny_models.module().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "weights.json").write_text(json.dumps(card))
    with pytest.raises(HrviewerError, match="pickled weights without a program"):
        load(tmp_path / "weights.pt")


# Roles from several files.


def test_roles_from_several_files(tmp_path: Path) -> None:
    one = tiny_models.ultralytics(tmp_path / "one.onnx", "classify")
    two = tiny_models.ultralytics(tmp_path / "two.onnx", "classify")
    other = tiny_models.ultralytics(tmp_path / "other.onnx", "detect")
    assert list(open_bundle(f"main={one},scanner={two}").roles) == ["main", "scanner"]
    bundle = open_bundle(f"main={one},scout={two}")
    assert list(bundle.roles) == ["main", "scout"]
    assert bundle.weights("scout") == two
    assert bundle.name == "one+two"
    for spec, message in (
        (f"main={one},main={two}", "two models have the role main"),
        (f"main={one},boss={two}", "no role is named 'boss': choose one of main, scout"),
        (f"{one}+{two}", r"two adds nothing: its main .* as main=A,scout=B"),
        (f"main={one},scout=missing.onnx", "does not exist"),
        (
            f"main={one},scanner={other}",
            "the scanner other predicts detection of car, boat, tree, ",
        ),
    ):
        with pytest.raises(HrviewerError, match=message):
            open_bundle(spec)


# Folders of timm: the card needs no timm, inference does.


def write_timm_config(folder: Path, classes: int) -> None:
    folder.mkdir(exist_ok=True)
    config = {
        "architecture": "resnet18",
        "num_classes": classes,
        "num_features": 512,
        "label_names": CLASSES,
        "pretrained_cfg": {"input_size": [3, 96, 96], "mean": MEAN, "std": STD, "license": "mit"},
    }
    (folder / "config.json").write_text(json.dumps(config))


def test_what_a_folder_of_timm_says(tmp_path: Path) -> None:
    write_timm_config(tmp_path / "net", classes=3)
    with pytest.raises(HrviewerError, match=r"no model\.safetensors, and pickled weights"):
        open_bundle(tmp_path / "net")
    (tmp_path / "net/model.safetensors").touch()
    card = open_bundle(tmp_path / "net").card
    assert (card.task, card.classes, card.output.activation) == (
        "classification",
        CLASSES,
        "softmax",
    )
    assert (card.input.tile, card.input.mean, card.licence) == (96, MEAN, "mit")
    assert card.architecture is not None
    assert card.architecture.params == {"model": "resnet18", "num_classes": 3}
    write_timm_config(tmp_path / "net", classes=0)
    encoder = open_bundle(tmp_path / "net/model.safetensors")
    assert list(encoder.roles) == ["main", "encoder"]
    assert (encoder.card.output.width, encoder.card.stride) == (512, 96)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0"])
def test_classifiers_of_timm(tmp_path: Path, name: str, rng: np.random.Generator) -> None:
    if find_spec("timm") is None:
        pytest.skip("needs timm")
    import torch
    from safetensors.torch import load_file

    from hrviewer.models.backbones import import_timm

    side = 224 if "224" in name else SIDE
    folder = tiny_models.timm_folder(tmp_path / name, name, side=side)
    module = import_timm().create_model(name, num_classes=3).eval()
    module.load_state_dict(load_file(folder / "model.safetensors"))
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(first_axes(pixels, MEAN, STD))).softmax(1).numpy()
    net = load(folder)
    got = net(net.card.prepare(pixels)[None])
    np.testing.assert_allclose(got[0, :, 0, 0], wanted[0], atol=1e-4)


def test_monai_s_normalisation_and_sizes(tmp_path: Path) -> None:
    """An empty range is asked for, as is what each image is normalised by; sides may differ."""
    bundle = tiny_models.monai(tmp_path / "monai")
    about = bundle / "configs" / "metadata.json"
    described = json.loads(about.read_text())
    image = described["network_data_format"]["inputs"]["image"]
    image["spatial_shape"] = [736, 480]
    about.write_text(json.dumps(described))
    drafted = find_format(bundle).draft(bundle)
    assert drafted.missing == ()
    assert drafted.fields["input"] | {"scale": 0} == drafted.fields["input"] | {
        "scale": 0, "tile": 256, "multiple_of": 32, "fixed": False,
    }  # fmt: skip
    image["value_range"] = []
    about.write_text(json.dumps(described))
    assert find_format(bundle).draft(bundle).missing == ("scale",)
    image["value_range"] = [0, 1]
    about.write_text(json.dumps(described))
    inference = {"preprocessing": {"_target_": "NormalizeIntensityd", "keys": "image"}}
    (bundle / "configs" / "inference.json").write_text(json.dumps(inference))
    drafted = find_format(bundle).draft(bundle)
    assert drafted.missing == ("scale",)
    assert "each image by its own mean" in drafted.notes[0]


def test_activations_of_monai_are_applied_once(tmp_path: Path) -> None:
    """Of steps in a Compose, JSON or YAML; a Sequential that ends in one is refused."""
    import torch

    bundle = tiny_models.monai(tmp_path / "monai", "ts")
    configs = bundle / "configs"
    steps = [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted"}]
    inference = {"postprocessing": {"_target_": "Compose", "transforms": steps}}
    (configs / "inference.json").write_text(json.dumps(inference))
    assert open_bundle(bundle, trust=True).card.output.activation == "softmax"
    ends_itself = torch.nn.Sequential(tiny_models.module(dense=True), torch.nn.Softmax(dim=1))
    weights = bundle / "models" / "model.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(ends_itself.eval()), str(weights))
    with pytest.raises(HrviewerError, match=r"applies a softmax itself .*: set it to none"):
        load(bundle)
    (configs / "inference.json").unlink()
    (configs / "inference.yaml").write_text(
        "postprocessing:\n  _target_: Compose\n  transforms:\n"
        "    - _target_: Activationsd\n      sigmoid: true\n"
    )
    assert open_bundle(bundle, trust=True).card.output.activation == "sigmoid"
