"""FLOPs of an ONNX graph: a sum over its nodes, exact for each input size.

Only convolutions and matrix products are counted, as in torch's FlopCounterMode; a multiply-add is
2 FLOPs. Unknown operations that multiply matrices are refused, since the cost would be too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.loaders.folded_graph import fold_shapes
from hrviewer.models.loaders.graph_check import (
    MAX_TENSOR_BYTES,
    check_activations,
    check_operations,
    check_tensor_sizes,
    inline_functions,
    reporting_damage,
)

__all__ = ["OnnxGraph", "final_operations", "remove_weights"]

Shape = tuple[int, ...]

MAX_CONSTANT_FLOPS = 2e11
"""Of what a back end computes when it opens a model: some seconds."""

_WEIGHT_BYTES = 4096
"""Larger tensors, in bytes, are weights and irrelevant to shape inference."""


def _conv(node: Any, ins: Sequence[Shape], out: Shape) -> float:
    return 2.0 * math.prod(out) * math.prod(ins[1][1:])


def _conv_transpose(node: Any, ins: Sequence[Shape], out: Shape) -> float:
    return 2.0 * math.prod(ins[0]) * math.prod(ins[1][1:])


def _gemm(node: Any, ins: Sequence[Shape], out: Shape) -> float:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return 2.0 * math.prod(out) * ins[0][0 if transposed else 1]


def _matmul(node: Any, ins: Sequence[Shape], out: Shape) -> float:
    return 2.0 * math.prod(out) * ins[0][-1]


def _einsum(node: Any, ins: Sequence[Shape], out: Shape) -> float:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes = {
        axis: size
        for term, shape in zip(terms, ins, strict=True)
        for axis, size in zip(term, shape, strict=True)
    }
    return 2.0 * math.prod(sizes.values())


_OP_FLOPS: dict[str, Callable[[Any, Sequence[Shape], Shape], float]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
}

_TRIVIAL_OPS = {
    *("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice"),
}
"""Operations that change no value."""


def final_operations(graph: Any, names: Sequence[str] = ()) -> frozenset[str]:
    """Return the operations that make a graph's outputs, past reshapes, casts and the like.

    Parameters
    ----------
    graph
        An ``onnx.GraphProto``.
    names
        Names of outputs; all by default.
    """
    made = {name: node for node in graph.node for name in node.output}
    found = set()
    for name in names or [value.name for value in graph.output]:
        node = made.get(name)
        for _ in made:  # at most, also where a damaged graph has a cycle
            if node is None or node.op_type not in _TRIVIAL_OPS or not node.input:
                break
            node = made.get(node.input[0])
        if node is not None:
            found.add(str(node.op_type))
    return frozenset(found)


class OnnxGraph:
    """Nodes of a model, without its weights.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``; its weights are removed.
    name
        Name in error messages.
    images
        Names of its inputs, where its weights were removed before; else those that are no weights.

    Raises
    ------
    ModelError
        If the FLOPs of an operation are unknown, or the model is larger than can be opened safely.
    """

    def __init__(self, model: Any, name: str, images: Collection[str] | None = None) -> None:
        import onnx

        self._name = name
        with reporting_damage(name):
            check_operations(model, name)
            whole = inline_functions(model, name)
            if images is None:
                weights = {tensor.name for tensor in whole.graph.initializer}
                images = {value.name for value in whole.graph.input} - weights
            self._model = remove_weights(whole)
            inferred = onnx.shape_inference.infer_shapes(self._model, data_prop=True)
            check_tensor_sizes(inferred.graph, name)
            self._check_constants(inferred.graph, images)

    def flops(self, input_name: str, shape: Shape) -> float:
        """Return the FLOPs of the graph for an input of a shape."""
        with reporting_damage(self._name):
            nodes, shapes = self._sized(input_name, shape)
            check_activations(shapes, math.prod(shape), self._name)
            return sum(self._node_flops(node, shapes) for node in nodes)

    def _check_constants(self, graph: Any, images: Collection[str]) -> None:
        """Refuse a graph of which much is computed when it is opened, since it needs no image."""
        shapes, varying = _known_shapes(graph), set(images)
        flops, numbers = 0.0, 0
        for node in graph.node:
            if varying.intersection(node.input):
                varying.update(node.output)
            elif node.op_type != "Constant":
                flops += self._node_flops(node, shapes)
                numbers += sum(math.prod(shapes[name]) for name in node.output if name in shapes)
        if flops > MAX_CONSTANT_FLOPS or 4 * numbers > MAX_TENSOR_BYTES:
            raise ModelError(
                f"{self._name} computes constants of {4 * numbers / 1e9:.1f} GB with "
                f"{flops / 1e12:.1f} TFLOP when it is opened: export it with constants folded"
            )

    def _node_flops(self, node: Any, shapes: dict[str, Shape]) -> float:
        cost = _OP_FLOPS.get(node.op_type)
        if cost is None:
            return 0.0
        try:
            ins = [shapes[name] for name in node.input if name]
            return cost(node, ins, shapes[node.output[0]])
        except KeyError:
            raise ModelError(
                f"{self._name}: the size of {node.output[0]!r} depends on the image, "
                "so its FLOPs are unknown: export it with static shapes or simplify it"
            ) from None

    def final_operations(self, names: Sequence[str] = ()) -> frozenset[str]:
        """Return the operations that make the outputs; see `final_operations`."""
        return final_operations(self._model.graph, names)

    def largest_layer_bytes(self, input_name: str, shape: Shape) -> float | None:
        """Return the bytes that one node reads and writes, at most; None if sizes are unknown."""
        nodes, shapes = self._sized(input_name, shape)
        largest = 0
        for node in nodes:
            names = {*filter(None, node.input), *filter(None, node.output)}
            if not names <= shapes.keys():
                return None
            largest = max(largest, sum(math.prod(shapes[name]) for name in names))
        return 4.0 * largest

    def _sized(self, input_name: str, shape: Shape) -> tuple[Sequence[Any], dict[str, Shape]]:
        """Return the nodes for an input of a shape, and the shapes of their tensors."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        for value in graph.input:
            if value.name == input_name:
                _set_shape(value, shape)
        # Remove shapes inferred for another size.
        del graph.value_info[:]
        for value in graph.output:
            if value.HasField("type"):
                value.type.tensor_type.ClearField("shape")
        shapes = _inferred_shapes(model)
        if not _are_known(graph.node, shapes):
            with suppress(Exception):  # then the size that is unknown is named
                folded = fold_shapes(model)
                return folded.graph.node, _inferred_shapes(folded)
        return graph.node, shapes


def _inferred_shapes(model: Any) -> dict[str, Shape]:
    import onnx

    return _known_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)


def _are_known(nodes: Sequence[Any], shapes: dict[str, Shape]) -> bool:
    """Whether the sizes are known that operations with FLOPs have."""
    return all(
        shapes.keys() >= {node.output[0], *filter(None, node.input)}
        for node in nodes
        if node.op_type in _OP_FLOPS
    )


def _known_shapes(graph: Any) -> dict[str, Shape]:
    """Return the shapes of tensors of known size."""
    known = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            known[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return known


def remove_weights(model: Any) -> Any:
    """Replace large tensors by inputs of their shape, so that shape inference copies none.

    The ``onnx.ModelProto`` is changed and returned.
    """
    import onnx

    graph = model.graph
    small = []
    for tensor in graph.initializer:
        if tensor.ByteSize() <= _WEIGHT_BYTES and not tensor.external_data:
            small.append(tensor)
        elif tensor.name not in {value.name for value in graph.input}:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    constants = [onnx.TensorProto.FromString(t.SerializeToString()) for t in small]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return model


def _set_shape(value: Any, shape: Shape) -> None:
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
