"""ONNX files: what they declare, and their operations without the weights, parsed once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.models.loaders.graph import OnnxGraph, final_operations, remove_weights
from hrviewer.models.loaders.graph_check import reporting_damage
from hrviewer.models.weights import reject_wrong_content

__all__ = ["OnnxFile", "TensorSummary", "parse_onnx", "read_onnx"]

MAX_BYTES = 2**31
MAX_PARSED = 8
"""Files that are kept parsed, without their weights."""

_parsed: OrderedDict[tuple[str, str], OnnxFile] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class TensorSummary:
    """An input or output: its name, data type and shape, free axes by name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class OnnxFile:
    """Inputs, outputs and metadata of an ONNX file, and the operations that make the outputs.

    Attributes
    ----------
    path : str
        Name in error messages.
    model
        The ``onnx.ModelProto`` without its weights.
    inputs, outputs : tuple of TensorSummary
        What it takes and gives.
    metadata : dict of str
        What the exporter wrote.
    external : tuple of str
        Names of files with weights, as the file gives them.
    final_operations : frozenset of str
        See `hrviewer.models.loaders.graph.final_operations`.
    """

    path: str
    model: Any
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    metadata: dict[str, str]
    external: tuple[str, ...]
    final_operations: frozenset[str]

    @cached_property
    def graph(self) -> OnnxGraph:
        """The checked graph; raises `ModelError` if it cannot be opened safely."""
        return OnnxGraph(self.model, self.path, [image.name for image in self.inputs])

    def external_files(self) -> list[Path]:
        """Return the files with weights.

        Raises
        ------
        ModelError
            If one is missing, or lies outside the graph's folder.
        """
        path, found = Path(self.path), []
        folder = path.parent.resolve()
        for name in self.external:
            file = (folder / name).resolve()
            if not file.is_relative_to(folder):
                raise ModelError(
                    f"{path} reads {name!r}, outside its folder: export it into one file"
                )
            if not file.is_file():
                raise ModelError(f"{path} needs {name!r} in the same folder: copy it there")
            found.append(file)
        return found


def read_onnx(path: Path) -> OnnxFile:
    """Read what an ONNX file declares; its external data are not opened.

    Raises
    ------
    ModelError
        If onnx is missing, or the file is damaged or larger than 2 GB.
    """
    try:
        if path.stat().st_size >= MAX_BYTES:
            raise ModelError(f"{path} is larger than 2 GB: save its weights as safetensors")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from None
    return parse_onnx(path, data, hashlib.sha256(data).hexdigest())


def parse_onnx(path: Path, data: bytes, sha256: str) -> OnnxFile:
    """Parse an ONNX file; the same bytes are parsed once in a process.

    Parameters
    ----------
    path
        Its path.
    data, sha256
        Its bytes and their SHA-256.

    Raises
    ------
    ModelError
        If onnx is missing, or the bytes are no ONNX graph.
    """
    key = str(path), sha256
    with _lock:
        if key in _parsed:
            _parsed.move_to_end(key)
            return _parsed[key]
    found = _parse(path, data)
    with _lock:
        _parsed[key] = found
        while len(_parsed) > MAX_PARSED:
            _parsed.popitem(last=False)
    return found


def _parse(path: Path, data: bytes) -> OnnxFile:
    try:
        import onnx
    except ImportError:
        raise ModelError('ONNX models need onnxruntime: pip install "hrviewer[onnx]"') from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises a dozen kinds
        model = onnx.ModelProto()
    if not model.graph.node:
        reject_wrong_content(path, data)
        raise ModelError(
            f"{path} is not an ONNX file, or is truncated: download or export it again"
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    with reporting_damage(path):
        external = tuple(sorted(set(_external_names(model))))
        return OnnxFile(
            str(path),
            remove_weights(model),
            tuple(_summarize(onnx, v) for v in model.graph.input if v.name not in weights),
            tuple(_summarize(onnx, v) for v in model.graph.output),
            {entry.key: entry.value for entry in model.metadata_props},
            external,
            final_operations(model.graph),
        )


def _summarize(onnx: Any, value: Any) -> TensorSummary:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return TensorSummary(value.name, dtype, shape)


def _external_names(message: Any) -> Iterator[str]:
    """Yield the names of external data files of tensors at any depth."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            yield from (entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            repeated = not hasattr(value, "ListFields")
            for part in value if repeated else [value]:
                if hasattr(part, "ListFields"):
                    yield from _external_names(part)
