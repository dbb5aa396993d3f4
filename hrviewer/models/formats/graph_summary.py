"""What an ONNX file declares: inputs, outputs and metadata, without running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.loaders.graph import final_operations
from hrviewer.models.loaders.graph_check import reporting_damage

__all__ = ["GraphSummary", "TensorSummary", "summarize_graph"]

MAX_BYTES = 2**31


@dataclass(frozen=True)
class TensorSummary:
    """An input or output: its name, data type and shape, free axes by name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class GraphSummary:
    """Inputs, outputs and metadata of an ONNX file, and the operations that make the outputs."""

    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    metadata: dict[str, str]
    producer: str = ""
    final_operations: frozenset[str] = frozenset()


def summarize_graph(path: Path) -> GraphSummary:
    """Read what an ONNX file declares; its external data are not opened.

    Raises
    ------
    ModelError
        If onnx is missing, or the file is damaged or larger than 2 GB.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError('ONNX models need onnxruntime: pip install "hrviewer[onnx]"') from None
    try:
        if path.stat().st_size >= MAX_BYTES:
            raise ModelError(f"{path} is larger than 2 GB: save its weights as safetensors")
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from None
    except ModelError:
        raise
    except Exception:  # protobuf raises a dozen kinds
        model = onnx.ModelProto()
    if not model.graph.node:
        raise ModelError(
            f"{path} is not an ONNX file, or is truncated: download or export it again"
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    with reporting_damage(path):
        return GraphSummary(
            tuple(_summarize(onnx, v) for v in model.graph.input if v.name not in weights),
            tuple(_summarize(onnx, v) for v in model.graph.output),
            {entry.key: entry.value for entry in model.metadata_props},
            model.producer_name,
            final_operations(model.graph),
        )


def _summarize(onnx: Any, value: Any) -> TensorSummary:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return TensorSummary(value.name, dtype, shape)
