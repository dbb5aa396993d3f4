"""Checks of an ONNX model before a back end opens it, at every depth of functions and subgraphs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hrviewer.errors import ModelError, short_message

__all__ = [
    "check_activations",
    "check_operations",
    "check_tensor_sizes",
    "inline_functions",
    "reporting_damage",
]

MAX_NODES = 200_000
"""Operations of a model after its functions are inlined."""

MAX_TENSOR_BYTES = 2 << 30
"""Of a tensor whose size does not depend on the input's: a back end computes it when it opens the
model."""

MAX_NUMBERS_PER_INPUT = 4096
"""Of a tensor, for each number of the input: wide layers at full resolution have a few hundred."""

MAX_NUMBERS = 1 << 26
"""Of a tensor, up to which their ratio to the input's is not limited."""

UNSUPPORTED_OPS = {
    *("Attention", "MultiHeadAttention", "QAttention", "FusedConv", "FusedMatMul", "FusedGemm"),
    *("LSTM", "GRU", "RNN", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    *("DeformConv", "If", "Loop", "Scan"),
}


@contextmanager
def reporting_damage(name: object) -> Iterator[None]:
    """Report what onnx raises for a damaged model, of a dozen kinds, in one line.

    Parameters
    ----------
    name
        Name in the message.

    Raises
    ------
    ModelError
        In place of any error but one of memory.
    """
    try:
        yield
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{name} is damaged, or not valid ONNX ({short_message(error)}): download or export "
            "it again"
        ) from None


def check_operations(model: Any, name: str) -> None:
    """Refuse operations whose FLOPs are unknown; any with a subgraph is one.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.
    name
        Name in error messages.

    Raises
    ------
    ModelError
        If there is one, in the graph or in a function.
    """
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    unknown = {node.op_type for node in nodes if node.op_type in UNSUPPORTED_OPS}
    unknown |= {node.op_type for node in nodes if any(map(_is_subgraph, node.attribute))}
    if unknown:
        raise ModelError(
            f"{name}: the FLOPs of {', '.join(sorted(unknown))} cannot be counted: "
            "export it without fused, quantised or branching operations"
        )


def _is_subgraph(attribute: Any) -> bool:
    return attribute.HasField("g") or bool(attribute.graphs)


def inline_functions(model: Any, name: str) -> Any:
    """Return the model with the bodies of its functions in place of their calls.

    Raises
    ------
    ModelError
        If functions call themselves, or the result has more than `MAX_NODES` operations.
    """
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    # Callees first, without recursion: a chain of functions may be long.
    for start in bodies:
        stack: list[tuple[tuple[str, str], Iterator[Any]]] = [(start, iter(bodies[start]))]
        open_calls = {start}
        while stack:
            key, calls = stack[-1]
            for node in calls:
                callee = node.domain, node.op_type
                if callee in open_calls:
                    raise ModelError(f"{name}: the function {callee[1]!r} calls itself")
                if callee in bodies and callee not in sizes:
                    stack.append((callee, iter(bodies[callee])))
                    open_calls.add(callee)
                    break
            else:
                sizes[key] = sum(sizes.get((n.domain, n.op_type), 1) for n in bodies[key])
                open_calls.discard(key)
                stack.pop()
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    if total > MAX_NODES:
        raise ModelError(
            f"{name} has more than {MAX_NODES:,} operations, with the functions that it calls: "
            "export it without functions"
        )
    from onnx.inliner import inline_local_functions

    return inline_local_functions(model)


def check_tensor_sizes(graph: Any, name: str) -> None:
    """Refuse a graph in which a tensor of constant size is larger than `MAX_TENSOR_BYTES`.

    Parameters
    ----------
    graph
        An ``onnx.GraphProto`` after shape inference, its input's size unknown.
    name
        Name in error messages.
    """
    import onnx

    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not (
            tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        ):
            continue
        try:
            itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
        except (KeyError, ValueError):
            itemsize = 4
        size = itemsize * math.prod(d.dim_value for d in tensor.shape.dim)
        if size > MAX_TENSOR_BYTES:
            raise ModelError(
                f"{name}: {value.name!r} takes {size / 1e9:.1f} GB for any input: export it "
                "without constants of that size"
            )


def check_activations(shapes: Mapping[str, tuple[int, ...]], numbers: int, name: str) -> None:
    """Refuse a graph in which a tensor grows beyond all measure, before it is run.

    Parameters
    ----------
    shapes : mapping
        Sizes of its tensors for an input.
    numbers : int
        Size of that input.
    name
        Name in error messages.
    """
    largest = max(map(math.prod, shapes.values()), default=0)
    if largest > max(MAX_NUMBERS, MAX_NUMBERS_PER_INPUT * numbers):
        raise ModelError(
            f"{name} makes {largest:,} numbers out of {numbers:,}: this is no model of images"
        )
