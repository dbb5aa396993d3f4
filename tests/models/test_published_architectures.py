"""Published architectures with random weights, exported as their users export them.

`make test-architectures` installs the packages outside of ``.venv``; elsewhere these tests skip.
Each equals the module that it was exported from to 1e-4.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from direct_loops import first_axes, run_onnx, softmax
from tiny_models import CLASSES, MEAN, STD
from torch import nn

import hrviewer
from hrviewer.engine.model_infos import model_info
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network, open_bundle
from hrviewer.models.backbones import import_timm
from hrviewer.models.drafting import CardAnswers, draft_card, measure_file
from hrviewer.strategies import input_rect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the packages themselves
]
SIDE = 128


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))


def need(package: str) -> None:
    """Skip without a package; import timm first, whose torchvision may be of another build."""
    if find_spec(package) is None or find_spec("timm") is None:
        pytest.skip(f"needs {package}: make test-architectures")
    import_timm()
    torch.manual_seed(0)


def vary(module: nn.Module) -> nn.Module:
    """Give batch normalisations statistics of their own, as after training."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return module.eval()


def export(module: nn.Module, path: Path, names: tuple[str, ...] = ("out",), free: bool = True):
    axes = {name: {0: "n"} | ({2: "h", 3: "w"} if free else {}) for name in ("image", *names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module,
        torch.zeros(1, 3, SIDE, SIDE),
        path,
        input_names=["image"],
        output_names=list(names),
        dynamic_axes=axes,
        dynamo=False,
    )
    return path


def forward(module: nn.Module, batch: np.ndarray) -> Any:
    with torch.inference_mode():
        return module(torch.from_numpy(batch))


def pixels(h: int = SIDE, w: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def check_tiles(path: Path, infer: Callable[[np.ndarray], np.ndarray], out: Path) -> None:
    """Compare a run, tile for tile, with a direct loop over an image padded by reflection."""
    image = pixels(256, 320)
    model = hrviewer.load(path, trust=True, device="cpu", progress=False)
    run = model.run(
        image, "patches", tile=SIDE, cache="off", progress=False, out=out / "a.run.zarr"
    )
    network = model.bundle.load("main", "cpu")
    margin = 2 * SIDE
    around = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    values = run.maps["output"].values
    for tile in run.patches.itertuples():
        core = Rect(tile.y, tile.x, tile.h, tile.w)
        read = input_rect(
            model_info(network), Patch(core, 1.0, network.halo), Rect(0, 0, *image.shape[:2])
        )
        y, x = read.y + margin, read.x + margin
        wanted = infer(around[y : y + read.h, x : x + read.w])[0]
        y, x = core.y - read.y, core.x - read.x
        np.testing.assert_allclose(
            values[:, core.y : core.y1, core.x : core.x1],
            wanted[:, y : y + core.h, x : x + core.w],
            atol=1e-4,
        )


def load(path: Path) -> Network:
    return open_bundle(path, trust=True).load("main", "cpu")


def init(path: Path, **answers: Any) -> Network:
    found = draft_card(path, measure_file(path, SIDE), CardAnswers(scale=1 / 255, **answers))
    assert found.missing == ()
    path.with_suffix(".json").write_text(json.dumps(found.fields))
    return load(path)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("Unet", "resnet18"),
        ("UnetPlusPlus", "mobilenet_v2"),
        ("FPN", "resnet18"),
        ("DeepLabV3Plus", "resnet18"),
    ],
)
def test_segmentation_models(tmp_path: Path, name: str, encoder: str) -> None:
    need("segmentation_models_pytorch")
    import segmentation_models_pytorch as smp

    module = vary(getattr(smp, name)(encoder, encoder_weights=None, classes=3))
    path = export(module, tmp_path / "net.onnx")
    card = init(path, classes=CLASSES, mean=MEAN, std=STD).card
    assert (card.task, card.stride, card.output.activation) == ("segmentation", 1, "softmax")
    check_tiles(
        path, lambda part: softmax(forward(module, first_axes(part, MEAN, STD)).numpy()), tmp_path
    )


@pytest.mark.parametrize("kind", ["onnx", "ts"])
def test_a_u_net_in_a_bundle_of_monai(tmp_path: Path, kind: str) -> None:
    need("monai")
    from monai.networks.nets import UNet

    module = vary(
        UNet(
            2, 3, len(CLASSES), channels=(8, 16, 32), strides=(2, 2), norm="batch", num_res_units=1
        )
    )
    bundle = tiny_models.monai(tmp_path / "monai", kind)
    weights = next((bundle / "models").iterdir())
    if kind == "onnx":
        export(module, weights)
    else:
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, SIDE, SIDE)), weights)
    check_tiles(
        bundle, lambda part: softmax(forward(module, 2 * first_axes(part) - 1).numpy()), tmp_path
    )


def transformers_folder(folder: Path, model: nn.Module, names: tuple[str, ...]) -> Path:
    """Write what ``optimum-cli export onnx`` writes, of a fixed size."""
    from transformers import ViTImageProcessor

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.model(pixel_values=x)
            return tuple(found[name] for name in names)

    model.save_pretrained(folder)
    ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=list(MEAN), image_std=list(STD)
    ).save_pretrained(folder)
    export(Outputs().eval(), folder / "model.onnx", names, free=False)
    return folder


LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {n: i for i, n in enumerate(CLASSES)}}


@pytest.mark.parametrize("kind", ["ViT", "Segformer"])
def test_classes_of_transformers(tmp_path: Path, kind: str) -> None:
    need("transformers")
    import transformers

    if kind == "ViT":
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            image_size=SIDE, patch_size=16, **LABELS,
        )  # fmt: skip
        model = transformers.ViTForImageClassification(config)
    else:
        config = transformers.SegformerConfig(
            depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32,
            num_attention_heads=[1, 1, 2, 4], **LABELS,
        )  # fmt: skip
        model = transformers.SegformerForSemanticSegmentation(config)
    folder = transformers_folder(tmp_path / kind, vary(model), ("logits",))
    net = load(folder)
    batch = first_axes(pixels(), MEAN, STD)
    wanted = softmax(forward(model, batch).logits.numpy())
    assert net.card.task == ("classification" if kind == "ViT" else "segmentation")
    assert net.card.stride == (SIDE if kind == "ViT" else 4)
    got = net(net.card.prepare(pixels())[None])
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-4)


def detr(kind: str) -> nn.Module:
    import transformers

    if kind == "RTDetr":
        backbone = transformers.RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.RTDetrConfig(
            backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
            backbone=None, encoder_in_channels=[16, 24, 32], encoder_hidden_dim=32, d_model=32,
            decoder_in_channels=[32] * 3, num_queries=20, decoder_layers=1, encoder_ffn_dim=32,
            decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, **LABELS,
        )  # fmt: skip
        return transformers.RTDetrForObjectDetection(config)
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, num_queries=20, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, **LABELS,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config)


@pytest.mark.parametrize("kind", ["Detr", "RTDetr"])
def test_detectors_of_transformers(tmp_path: Path, kind: str) -> None:
    """Object for object, at a threshold that random weights reach.

    onnxruntime gives the outputs: of random weights the scores that choose RT-DETR's queries are
    equal but for rounding.
    """
    need("transformers")
    folder = transformers_folder(tmp_path / kind, vary(detr(kind)), ("logits", "pred_boxes"))
    net = load(folder)
    assert net.card.output.decode == kind.lower()
    (found,) = net.detect(net.card.prepare(pixels())[None], 0.05, overlap=1.0)
    logits, (places,) = run_onnx(folder / "model.onnx", first_axes(pixels(), MEAN, STD))
    if kind == "Detr":
        scores = softmax(logits.transpose(0, 2, 1))[0, :-1].T
        scores = np.where(scores == scores.max(axis=1, keepdims=True), scores, 0)
    else:
        scores = 1 / (1 + np.exp(-logits[0]))
    x, y, w, h = SIDE * places.T
    boxes = np.clip(np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=1), 0, SIDE)
    queries, classes = np.nonzero(scores >= 0.05)
    values = scores[queries, classes]
    assert len(found) == len(values) > 2
    # Scores that are nearly equal come in any order.
    wanted = np.c_[classes, boxes[queries], values]
    got = np.c_[found.classes, found.boxes, found.scores]
    wanted, got = (rows[np.lexsort(rows[:, :5].round(1).T)] for rows in (wanted, got))
    np.testing.assert_allclose(got, wanted, atol=1e-2)
    np.testing.assert_allclose(got[:, -1], wanted[:, -1], atol=1e-4)


def test_a_resnet_of_torchvision_in_a_folder_of_the_wsinfer_zoo(tmp_path: Path) -> None:
    need("torchvision")
    from torchvision.models import resnet18

    module = vary(resnet18(num_classes=len(CLASSES)))
    folder = tiny_models.wsinfer(tmp_path / "zoo")
    torch.jit.save(torch.jit.script(module), folder / "torchscript_model.pt")
    part = pixels(64, 64)
    net = load(folder)
    got = net(net.card.prepare(part)[None])[0, :, 0, 0]
    wanted = softmax(forward(module, first_axes(part, MEAN, STD)).numpy())[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    shutil.rmtree(folder)


def test_deeplab_of_torchvision_as_torchscript(tmp_path: Path) -> None:
    """A dictionary of a map and an auxiliary one."""
    need("torchvision")
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    module = vary(
        deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3, aux_loss=True
        )
    )
    path = tmp_path / "deeplab.pt"
    traced = torch.jit.trace(module, torch.zeros(1, 3, SIDE, SIDE), strict=False)
    torch.jit.save(traced, path)
    assert init(path, classes=CLASSES, mean=MEAN, std=STD).card.output.names == ("out",)
    check_tiles(
        path,
        lambda part: softmax(forward(module, first_axes(part, MEAN, STD))["out"].numpy()),
        tmp_path,
    )
