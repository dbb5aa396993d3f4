"""ONNX models that hide operations in functions, or would take any time or memory to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import make_card
from onnx import TensorProto, helper, numpy_helper, save_model
from onnx.helper import make_opsetid as opset

from hrviewer.errors import ModelError
from hrviewer.models import open_bundle
from hrviewer.models.loaders.folded_graph import MAX_FOLDED_BYTES, fold_shapes
from hrviewer.models.loaders.graph import OnnxGraph
from hrviewer.models.loaders.onnx import OnnxNetwork

node = helper.make_node
OPSETS = [opset("", 17), opset("own", 1)]


def model_of(nodes: list[Any], functions: list[Any]) -> Any:
    def image(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, channels, "h", "w"))

    weights = [numpy_helper.from_array(np.ones((1, 3, 3, 3), np.float32), "w")]
    graph = helper.make_graph(nodes, "g", [image("x", 3)], [image("y", 1)], weights)
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=8)


def function(name: str, *nodes: Any, inputs: tuple[str, ...] = ("a",)) -> Any:
    return helper.make_function("own", name, list(inputs), ["b"], list(nodes), OPSETS)


CONVOLUTION = node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1])


def test_operations_in_functions_are_counted() -> None:
    inner = function("inner", CONVOLUTION, inputs=("a", "w"))
    outer = function("outer", node("inner", ["a", "w"], ["b"], domain="own"), inputs=("a", "w"))
    hidden = model_of([node("outer", ["x", "w"], ["y"], domain="own")], [inner, outer])
    plain = model_of([node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], [])
    counted = [OnnxGraph(model, "m").flops("x", (1, 3, 8, 8)) for model in (hidden, plain)]
    assert counted == [2 * 27 * 64] * 2


def test_functions_that_call_the_one_before_twice_are_refused() -> None:
    functions = [function("f0", node("Relu", ["a"], ["b"]))]
    for i in range(1, 40):
        once = node(f"f{i - 1}", ["a"], ["m"], domain="own")
        functions.append(function(f"f{i}", once, node(f"f{i - 1}", ["m"], ["b"], domain="own")))
    with pytest.raises(ModelError, match="more than 200,000 operations"):
        OnnxGraph(model_of([node("f39", ["x"], ["y"], domain="own")], functions), "m")


def test_functions_that_call_themselves_are_refused() -> None:
    functions = [
        function("f", node("g", ["a"], ["b"], domain="own")),
        function("g", node("f", ["a"], ["b"], domain="own")),
    ]
    with pytest.raises(ModelError, match="calls itself"):
        OnnxGraph(model_of([node("f", ["x"], ["y"], domain="own")], functions), "m")


def test_branches_in_functions_are_refused() -> None:
    """A loop there could run for ever."""
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    body = helper.make_graph([node("Identity", ["a"], ["b"])], "body", [], [out])
    branch = node("If", ["c"], ["b"], then_branch=body, else_branch=body)
    loop = function("f", node("Cast", ["a"], ["c"], to=TensorProto.BOOL), branch)
    with pytest.raises(ModelError, match="FLOPs of If cannot be counted"):
        OnnxGraph(model_of([node("f", ["x"], ["y"], domain="own")], [loop]), "m")


def test_a_large_constant_is_refused_before_a_back_end_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = numpy_helper.from_array(np.array([30_000, 30_000]), "sides")
    nodes = [
        node("Constant", [], ["s"], value=sides),
        node("ConstantOfShape", ["s"], ["large"]),
        node("ReduceSum", ["large"], ["sum"], keepdims=0),
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Add", ["c", "sum"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    save_model(model_of(nodes, []), path)
    opened: list[object] = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *a, **k: opened.append(a))
    with pytest.raises(ModelError, match=r"'large' takes 3\.6 GB for any input"):
        OnnxNetwork.load(path, make_card(), "cpu", 1)
    assert not opened


@pytest.mark.parametrize(
    ("sides", "times"),
    [((1, 8192, 8192), 4), ((1, 16000, 16000), 3)],  # 4.4 TFLOP; 3 GB in tensors below the limit
    ids=["time", "memory"],
)
def test_much_that_is_computed_without_an_image_is_refused(
    sides: tuple[int, ...], times: int
) -> None:
    """A back end computes it when it opens the model, and the FLOPs of one tensor are no limit."""
    value = numpy_helper.from_array(np.ones(1, np.float32))
    made = [node("ConstantOfShape", ["s"], ["c0"], value=value)]
    operation = "MatMul" if times == 4 else "Add"
    made += [node(operation, [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(times)]
    made += [node("ReduceMax", [f"c{times}"], ["r"], keepdims=0), node("Add", ["x", "r"], ["y"])]
    model = model_of(made, [])
    model.graph.initializer.append(numpy_helper.from_array(np.array(sides, np.int64), "s"))
    with pytest.raises(ModelError, match="export it with constants folded"):
        OnnxGraph(model, "m")
    assert OnnxGraph(model_of(CONVOLVED, []), "m").flops("x", (1, 3, 8, 8)) == 2 * 27 * 64


CONVOLVED = [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]


def test_flops_where_sizes_follow_from_the_input_s(save: Callable[..., Path]) -> None:
    """As transformers compute them: queries by ConstantOfShape, its size chosen by Where."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    found = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"], axis=0),
        node("Concat", ["n", "rest"], ["wanted"], axis=0),
        node("Equal", ["wanted", "minus"], ["free"]),
        node("Where", ["free", "ones", "wanted"], ["size"]),
        node("ConstantOfShape", ["size"], ["q"], value=one),
        node("MatMul", ["q", "w"], ["p"]),
        node("GlobalAveragePool", ["x"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("ReduceSum", ["p", "axes"], ["r"], keepdims=0),
        node("Mul", ["f", "r"], ["y"]),
    ]
    weights = {
        "first": np.array([0]),
        "rest": np.array([5, 4]),
        "minus": np.full(3, -1),
        "ones": np.ones(3, np.int64),
        "w": np.ones((4, 300), np.float32),
        "axes": np.array([1, 2]),
    }
    path = save(
        found, weights, shape=("n", 3, 8, 8), task="regression",
        input={"tile": 8, "fixed": True}, output={"stride": 8, "classes": ["a", "b", "c"]},
    )  # fmt: skip
    assert open_bundle(path).load().flops(8, 8) == 2 * 5 * 300 * 4


def test_folding_of_sizes_makes_no_large_constant() -> None:
    """A side of 8 pixels times 40,000, as a graph may ask for any size."""
    model = model_of(
        [
            node("Shape", ["x"], ["all"]),
            node("Slice", ["all", "three", "four"], ["side"]),
            node("Mul", ["side", "factor"], ["n"]),
            node("ConstantOfShape", ["n"], ["zeros"]),
            node("ReduceMean", ["zeros"], ["mean"], keepdims=0),
            node("Add", ["x", "mean"], ["y"]),
        ],
        [],
    )
    numbers = {"three": 3, "four": 4, "factor": 40_000}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([number]), name) for name, number in numbers.items()
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for dim, side in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 8, 8), strict=True
    ):
        dim.dim_value = side
    folded = [each.op_type for each in fold_shapes(model).graph.node]
    assert MAX_FOLDED_BYTES < 4 * 8 * 40_000
    assert folded == ["ConstantOfShape", "ReduceMean", "Add"]


def test_a_tensor_that_grows_beyond_all_measure_is_refused_before_it_is_made() -> None:
    nodes = [helper.make_node("Concat", [f"x{i}"] * 2, [f"x{i + 1}"], axis=2) for i in range(28)]
    ends = [helper.make_tensor_value_info(name, 1, ("n", 1, "h", "w")) for name in ("x0", "x28")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match="no model of images"):
        OnnxGraph(model, "m").flops("x0", (1, 1, 64, 64))
