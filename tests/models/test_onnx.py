from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import make_card
from onnx import TensorProto, helper

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard, Network, open_bundle, probe
from hrviewer.models.loaders import load
from hrviewer.models.threads import PerThreadCount

Save = Callable[..., Path]
node = helper.make_node


def mcnn(shared: Path) -> Network:
    return open_bundle(shared / "models/mcnn_shtechA_660.onnx").load("main", "cpu")


def torch_mcnn() -> Any:
    """The same network, as published, to compare costs with."""
    from torch import cat, nn

    def column(*layers: tuple[int, int]) -> nn.Sequential:
        parts: list[nn.Module] = []
        before = 1
        for i, (width, size) in enumerate(layers):
            parts += [nn.Conv2d(before, width, size, padding=size // 2), nn.ReLU()]
            parts += [nn.MaxPool2d(2)] if i < 2 else []
            before = width
        return nn.Sequential(*parts)

    class MCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.columns = nn.ModuleList(
                [
                    column((16, 9), (32, 7), (16, 7), (8, 7)),
                    column((20, 7), (40, 5), (20, 5), (10, 5)),
                    column((24, 5), (48, 3), (24, 3), (12, 3)),
                ]
            )
            self.merge = nn.Conv2d(30, 1, 1)

        def forward(self, x: Any) -> Any:
            return self.merge(cat([column(x) for column in self.columns], 1))

    return MCNN().eval()


def test_mcnn_matches_its_card(shared: Path, rng: np.random.Generator) -> None:
    net = mcnn(shared)
    assert (net.stride, net.halo, net.accepts_any_size, net.max_batch) == (4, 40, True, None)
    assert net.backend.startswith("onnxruntime ")
    assert (net.device, net.precision) == ("cpu", "float32")
    out = net(rng.uniform(0, 255, (2, 1, 64, 71)).astype(np.float32))
    assert out.shape == (2, 1, 16, 17)
    assert out.dtype == np.float32
    assert net(np.zeros((0, 1, 64, 71), np.float32)).shape[:2] == (0, 1)


def test_flops_are_torchs(shared: Path) -> None:
    from hrviewer.models.loaders.torch import count_flops

    net, module = mcnn(shared), torch_mcnn().to("meta")
    for h, w in (64, 64), (512, 512), (100, 203):
        assert net.flops(h, w) == pytest.approx(
            count_flops(module, "forward", (1, 1, h, w)), rel=1e-6
        )
    assert net.flops(512, 512) / 512**2 == pytest.approx(42.1e3, rel=0.01)


def test_flops_of_every_counted_operation(save: Save, rng: np.random.Generator) -> None:
    """Closed forms: convolutions down and up, products with and without batch."""

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    path = save(
        [
            node("ConvTranspose", ["x", "up"], ["u"], strides=[2, 2]),  # 8x8 -> 16x16
            node("Conv", ["u", "down"], ["d"], strides=[2, 2], group=2),  # -> 4, 8x8
            node("Reshape", ["d", "rows"], ["r"]),
            node("MatMul", ["r", "right"], ["m"]),  # (4, 64) x (64, 5)
            node("Einsum", ["m", "m"], ["e"], equation="nki, nkj -> nij"),  # 5 x 5 over 4
            node("Reshape", ["e", "flat"], ["f"]),
            node("Gemm", ["f", "dense"], ["y"], transB=1),
        ],
        {
            "up": weight(3, 4, 2, 2),
            "down": weight(4, 2, 2, 2),
            "right": weight(64, 5),
            "dense": weight(7, 25),
            "rows": np.array([0, 4, 64]),
            "flat": np.array([0, 25]),
        },
        task="embedding",
        input={"tile": 8, "fixed": True},
        output={"stride": 8, "width": 7},
    )
    up = 2 * 3 * 64 * 4 * 4
    down = 2 * 4 * 64 * 2 * 4
    products = 2 * 4 * 64 * 5 + 2 * 5 * 5 * 4 + 2 * 25 * 7
    network = open_bundle(path).load()
    assert network.flops(8, 8) == up + down + products
    largest = 4 * (4 * 16 * 16 + 4 * 2 * 2 * 2 + 4 * 8 * 8)  # the convolution down
    assert network._network.bytes_per_pixel == 4 * 3 + 2 * largest / 8**2


def test_flops_of_an_operation_that_is_unknown(save: Save) -> None:
    path = save(
        [
            node("Cast", ["x"], ["i"], to=TensorProto.UINT8),
            node("ConvInteger", ["i", "w"], ["c"]),
            node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
        ],
        {"w": np.ones((1, 3, 1, 1), np.uint8)},
    )
    with pytest.raises(HrviewerError, match=r"ConvInteger cannot be counted"):
        open_bundle(path).load()


def test_flops_where_sizes_depend_on_the_image(save: Save) -> None:
    found = [
        node("NonZero", ["x"], ["z"]),
        node("Cast", ["z"], ["c"], to=TensorProto.FLOAT),
        node("Transpose", ["c"], ["t"], perm=[1, 0]),
        node("MatMul", ["c", "t"], ["p"]),
        node("ReduceSum", ["p"], ["s"], keepdims=0),
        node("Mul", ["x", "s"], ["y"]),
    ]
    path = save(found, output={"classes": ["a", "b", "c"]})
    with pytest.raises(HrviewerError, match="depends on the image"):
        open_bundle(path).load()


NIC = ("nic_bigan", "nic_multitask-4")


@pytest.mark.parametrize("name", NIC)
def test_encoders_give_finite_embeddings(shared: Path, name: str, rng: np.random.Generator) -> None:
    net = open_bundle(shared / f"models/{name}.onnx").load("main", "cpu")
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    embeddings = net(np.stack([net.card.prepare(pixels)] * 3))
    assert embeddings.shape == (3, 128, 1, 1)
    assert np.isfinite(embeddings).all()
    assert (net.halo, net.stride, net.accepts_any_size) == (0, 64, False)
    # It takes one tile and no other; more of them are cut.
    assert net(np.zeros((1, 3, 64, 65), np.float32)).shape == (1, 128, 1, 2)


CONFORMANCE = [
    # file, side, output in the card, channels, batches freely
    ("dummy_recognition_model", 224, {"stride": 224, "width": 224}, True),
    ("dummy_regression_models_dummy_regression_model", 512, {}, False),
    ("dummy_regression_models_dummy_regression_model_batched", 512, {}, True),
    ("dummy_regression_models_one_output_sigmoid_bsx1x512x512", 512, {}, True),
    ("dummy_regression_models_one_output_sigmoid_bsx512x512", 512, {}, True),
    ("dummy_regression_models_two_outputs_sigmoid_bsx1x512x512", 512, {"k": 2}, True),
    ("dummy_regression_models_two_outputs_sigmoid_bsx512x512", 512, {"k": 2}, True),
    (
        "dummy_segmentation_models_different_output_size_512_to_484",
        512,
        {"k": 2, "margin": 14, "halo": 16},
        False,
    ),
    ("dummy_segmentation_models_dummy_model", 512, {"k": 3}, False),
    ("dummy_segmentation_models_one_output_sigmoid_bsx1x512x512", 512, {}, True),
    ("dummy_segmentation_models_one_output_sigmoid_bsx512x512", 512, {}, False),
    ("dummy_segmentation_models_one_output_softmax_bsx2x512x512", 512, {"k": 2}, True),
    ("dummy_segmentation_models_two_outputs_sigmoid_bsx1x512x512", 512, {"k": 2}, True),
    ("dummy_segmentation_models_two_outputs_sigmoid_bsx512x512", 512, {"k": 2}, False),
    ("dummy_segmentation_models_two_outputs_softmax_bsx2x512x512", 512, {"k": 4}, True),
    ("dummy_superresolution_model", 64, {"k": 3, "stride": 0.5}, False),
    ("one_output_sigmoid_red_detector", 512, {}, True),
]


def test_every_conformance_graph_is_listed(shared: Path) -> None:
    files = {path.stem for path in (shared / "models/adapter-conformance").glob("*.onnx")}
    assert files == {name for name, *_ in CONFORMANCE}


@pytest.mark.parametrize(("name", "side", "output", "batches"), CONFORMANCE)
def test_conformance(
    shared: Path,
    name: str,
    side: int,
    output: dict[str, Any],
    batches: bool,
    rng: np.random.Generator,
) -> None:
    import onnxruntime

    path = shared / f"models/adapter-conformance/{name}.onnx"
    output = dict(output)
    classes = [f"class {i}" for i in range(output.pop("k", 1))]
    probabilities = "sigmoid" in name or "softmax" in name
    task = "segmentation" if probabilities else "regression"
    card = make_card(
        task="embedding" if "width" in output else task,
        input={"tile": side, "fixed": True, "scale": 1 / 255},
        output={"classes": classes} | output,
    )
    net = load(path, card, "cpu")
    assert (net.max_batch is None) is batches
    tile = np.stack([card.prepare(rng.integers(0, 256, (side, side, 3), np.uint8))])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    plain = session.run(None, {session.get_inputs()[0].name: tile})
    got = net(tile)
    cells = max(1, side // card.stride)
    assert got.shape == (1, card.output_channels, cells, cells)
    margin = card.output.margin
    inner = got[:, :, margin:-margin, margin:-margin] if margin else got
    if card.output.stride == 0.5:
        plain = [plain[0].reshape(1, 3, side, 2, side, 2).mean((3, 5))]
    want = np.concatenate([o.reshape(1, -1, *inner.shape[2:]) for o in plain], axis=1)
    np.testing.assert_allclose(inner, want, rtol=1e-5, atol=1e-6)
    three = net(np.concatenate([tile, tile * 0, tile]))
    np.testing.assert_allclose(three[[0, 2]], np.concatenate([got, got]), rtol=1e-5, atol=1e-6)


def write_card(path: Path, source: Path, **changes: Any) -> Path:
    fields = json.loads(source.with_suffix(".json").read_text()) | changes
    path.with_suffix(".json").write_text(json.dumps(fields))
    return path


def test_damaged_files_are_reported_in_one_line(shared: Path, tmp_path: Path) -> None:
    source = shared / "models/mcnn_shtechA_660.onnx"
    whole = source.read_bytes()
    for data in whole[: len(whole) // 2], b"not a network\n", b"":
        path = write_card(tmp_path / "bad.onnx", source, sha256=None)
        path.write_bytes(data)
        with pytest.raises(HrviewerError, match="not an ONNX file, or is truncated") as raised:
            open_bundle(path).load()
        assert "\n" not in str(raised.value)


def test_another_file_than_the_card_describes(shared: Path, tmp_path: Path) -> None:
    source = shared / "models/mcnn_shtechA_660.onnx"
    path = write_card(tmp_path / "a.onnx", source, sha256="0" * 64)
    path.write_bytes(source.read_bytes())
    with pytest.raises(HrviewerError, match="is not the file that the card"):
        open_bundle(path).load()


def test_digest_depends_on_weights_and_card(shared: Path, tmp_path: Path) -> None:
    source = shared / "models/mcnn_shtechA_660.onnx"
    path = write_card(tmp_path / "a.onnx", source, title="another title")
    path.write_bytes(source.read_bytes())
    assert open_bundle(path).load().digest == mcnn(shared).digest
    other = ModelCard.read(source.with_suffix(".json"))
    other = other.model_copy(update={"input": other.input.model_copy(update={"scale": 0.5})})
    assert load(source, other).digest != mcnn(shared).digest
    b = open_bundle(shared / "models/mcnn_shtechB_110.onnx").load()
    assert b.digest != mcnn(shared).digest


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input": {"channels": "gray"}}, "input.channels is gray"),
        ({"output": {"classes": ["a"]}}, "output.classes"),
        ({"output": {"stride": 4, "classes": ["a", "b", "c"]}}, "output.stride"),
        ({"input": {"tile": 64}, "output": {"classes": ["a", "b", "c"], "margin": 4}}, "halo"),
    ],
)
def test_card_mismatches_are_reported(save: Save, changes: dict[str, Any], field: str) -> None:
    path = save([node("Identity", ["x"], ["y"])], **changes)
    with pytest.raises(HrviewerError, match=field) as raised:
        open_bundle(path).load()
    assert "\n" not in str(raised.value)


def test_a_graph_of_another_size_than_its_card(save: Save) -> None:
    path = save([node("Identity", ["x"], ["y"])], shape=("n", 3, 32, 32))
    with pytest.raises(HrviewerError, match=r"input\.tile 32 and input\.fixed true"):
        open_bundle(path).load()


def test_a_graph_that_takes_something_else(save: Save) -> None:
    path = save([node("Identity", ["x"], ["y"])], shape=("n", "m"))
    with pytest.raises(HrviewerError, match="with one input"):
        open_bundle(path).load()


def test_values_that_are_not_finite(save: Save) -> None:
    path = save([node("Log", ["x"], ["y"])], output={"classes": ["a", "b", "c"]})
    card = json.loads(path.with_suffix(".json").read_text())
    card["input"]["mean"] = [300]
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(HrviewerError, match="card's input"):
        open_bundle(path).load()


def test_a_network_that_takes_minutes_for_a_tile_is_refused(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MAX_TILE_FLOPS", 100)
    path = save([node("Conv", ["x", "w"], ["y"])], {"w": np.ones((1, 3, 1, 1), np.float32)})
    with pytest.raises(HrviewerError, match="set a smaller"):
        open_bundle(path).load()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(save: Save, value: float) -> None:
    """The card's input was blamed."""
    weights = np.full((1, 3, 1, 1), value, np.float32)
    path = save([node("Conv", ["x", "w"], ["y"])], {"w": weights})
    with pytest.raises(HrviewerError, match="weights or operations lead to outputs that are not"):
        open_bundle(path).load()


def test_failing_inference_is_reported(save: Save) -> None:
    path = save([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([1, 1, 1, 5])})
    with pytest.raises(
        HrviewerError, match="inference on an input of 1 × 3 × 64 × 64 fails"
    ) as raised:
        open_bundle(path).load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "message"), [([1, 3, 8, 8, 64], "5 axes"), ([1, 3, 64, 64], None)]
)
def test_output_axes(save: Save, shape: list[int], message: str | None) -> None:
    path = save(
        [node("Reshape", ["x", "s"], ["y"])],
        {"s": np.array(shape)},
        input={"fixed": True},
        output={"classes": ["a", "b", "c"]},
    )
    if message is None:
        assert open_bundle(path).load().max_batch == 1  # it cannot take two
    else:
        with pytest.raises(HrviewerError, match=message):
            open_bundle(path).load()


def test_outputs_of_several_sizes(save: Save) -> None:
    pool = node("MaxPool", ["x"], ["z"], kernel_shape=[2, 2], strides=[2, 2])
    path = save([node("Identity", ["x"], ["y"]), pool], outputs=("y", "z"))
    with pytest.raises(HrviewerError, match="several sizes"):
        open_bundle(path).load()


def test_halves(save: Save) -> None:
    path = save([node("Identity", ["x"], ["y"])], kind=10, output={"classes": ["a", "b", "c"]})
    net = open_bundle(path).load()
    assert net.precision == "float16"
    assert net(np.full((1, 3, 4, 4), 0.5, np.float32)).dtype == np.float32


def external(save: Save, tmp_path: Path, location: str) -> Path:
    import onnx

    weight = np.ones((1, 3, 1, 1), np.float32)
    path = save([node("Conv", ["x", "w"], ["y"])], {"w": weight})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_external_weights(save: Save, tmp_path: Path) -> None:
    net = open_bundle(external(save, tmp_path, "w.bin")).load()
    np.testing.assert_allclose(net(np.ones((1, 3, 8, 8), np.float32)), 3)
    assert net.flops(8, 8) == 2 * 64 * 3
    (tmp_path / "w.bin").write_bytes(np.full(3, 2, np.float32).tobytes())
    assert open_bundle(tmp_path / "net.onnx").load().digest != net.digest


def test_weights_outside_the_folder_are_not_read(save: Save, tmp_path: Path) -> None:
    for location in "../secret", "/etc/hostname":
        with pytest.raises(HrviewerError, match="outside its folder"):
            open_bundle(external(save, tmp_path, location)).load()
    with pytest.raises(HrviewerError, match="needs 'gone' in the same folder"):
        open_bundle(external(save, tmp_path, "gone")).load()


def test_too_large(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save([node("Identity", ["x"], ["y"])])
    monkeypatch.setattr("hrviewer.models.loaders.onnx.MAX_BYTES", 10)
    with pytest.raises(HrviewerError, match="larger than 2 GB"):
        open_bundle(path).load()


def test_without_onnxruntime(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save([node("Identity", ["x"], ["y"])])
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(HrviewerError, match=r'pip install "hrviewer\[onnx\]"'):
        open_bundle(path).load()


@pytest.mark.parametrize(("device", "message"), [("cuda", "CUDA"), ("mps", "cpu or cuda")])
def test_a_device_that_is_not_there(save: Save, device: str, message: str) -> None:
    import onnxruntime

    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(HrviewerError, match=message):
        open_bundle(save([node("Identity", ["x"], ["y"])])).load("main", device)


def test_memory_that_runs_out_is_a_memory_error(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mcnn(shared)

    class Full:
        def __init__(self, message: str) -> None:
            self.message = message

        def run(self, *_: object) -> None:
            raise RuntimeError(self.message)

    one = np.zeros((1, 1, 8, 8), np.float32)
    short = Full("Failed to allocate memory for requested buffer")
    monkeypatch.setattr(net, "_sessions", PerThreadCount(lambda count: short))
    with pytest.raises(MemoryError):
        net(one)
    monkeypatch.setattr(net, "_sessions", PerThreadCount(lambda count: Full("another")))
    with pytest.raises(RuntimeError, match="another"):
        net(one)


# Graphs of other layouts and types are read like the usual one.


def test_channels_last_and_8_bit_pixels(save: Save, rng: np.random.Generator) -> None:
    """The same convolution, channels first in float and channels last in 8 bits."""
    weights = {"w": rng.standard_normal((2, 3, 3, 3)).astype(np.float32)}
    conv = node("Conv", ["c", "w"], ["o"], pads=[1, 1, 1, 1])
    cases = {
        "first": ([node("Identity", ["x"], ["c"]), conv, node("Identity", ["o"], ["y"])], 1),
        "last": (
            [
                node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                node("Transpose", ["f"], ["c"], perm=[0, 3, 1, 2]),
                conv,
                node("Transpose", ["o"], ["y"], perm=[0, 2, 3, 1]),
            ],
            TensorProto.UINT8,
        ),
    }
    pixels = rng.integers(0, 256, (64, 80, 3), np.uint8)
    found, flops = {}, {}
    for name, (nodes, kind) in cases.items():
        shape = ("n", 3, "h", "w") if name == "first" else ("n", "h", "w", 3)
        path = save(nodes, weights, shape, kind=kind, output={"classes": ["a", "b"]})
        net = open_bundle(path).load("main", "cpu")
        found[name] = net(net.card.prepare(pixels)[None])
        flops[name], halo = net.flops(64, 80), net.halo
        assert halo == 1
    np.testing.assert_allclose(found["last"], found["first"], rtol=1e-5, atol=1e-3)
    assert flops["last"] == flops["first"] == 2 * 9 * 3 * 2 * 64 * 80
    path = save(nodes, weights, shape, kind=kind, input={"scale": 1 / 255})
    with pytest.raises(HrviewerError, match=r"takes 8-bit pixels.* input\.scale 1"):
        open_bundle(path).load()


def test_outputs_by_name(save: Save) -> None:
    nodes = [
        node("ReduceMean", ["x"], ["style"], axes=[2, 3], keepdims=0),
        node("ReduceSum", ["x", "axis"], ["map"], keepdims=1),
    ]
    how = {"outputs": ("style", "map"), "weights": {"axis": np.array([1])}}
    path = save(nodes, **how, output={"classes": ["a"]})
    with pytest.raises(HrviewerError, match=r"\(3,\), \(1, 64, 64\)\).* output\.names"):
        open_bundle(path).load()
    path = save(nodes, **how, output={"names": ["map"]})
    out = open_bundle(path).load("main", "cpu")(np.ones((1, 3, 64, 64), np.float32))
    assert (out == 3).all()
    path = save(nodes, **how, output={"names": ["mask"]})
    with pytest.raises(HrviewerError, match="no output 'mask', but style, map"):
        open_bundle(path).load()


def test_one_number_per_tile(save: Save) -> None:
    """An output of one axis, as of a regression."""
    path = save(
        [node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)],
        task="regression",
        input={"fixed": True},
        output={"stride": 64, "classes": ["age"], "units": ["years"], "range": [0, 120]},
    )
    net = open_bundle(path).load("main", "cpu")
    assert net(np.full((2, 3, 64, 64), 7, np.float32)).tolist() == [[[[7]]], [[[7]]]]
    assert net.card.unit(0) == "years"
