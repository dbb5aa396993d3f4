"""Networks in int8 on the CPU: quantised by onnxruntime, calibrated on the current image.

Weights are rounded per channel, and activations to their ranges on calibration inputs
(Jacob et al., *Quantization and training of neural networks for efficient integer-arithmetic-only
inference*, CVPR 2018). The first product, which takes pixels, and the layers after the last one
stay in float32.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import ModelError, short_message
from hrviewer.models.card import ModelCard
from hrviewer.models.network import Floats, Network
from hrviewer.models.probe import validate_network
from hrviewer.models.threads import PerThreadCount

__all__ = ["QuantisedNetwork", "load_quantised"]

INT8_TOLERANCE = 0.25
"""Largest root mean square error, relative to the output's standard deviation."""
_OPSET = 13
"""The first operator set with a range per channel."""
_PRODUCT_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MISSING_PACKAGE = (
    'int8 needs onnxruntime: pip install "hrviewer[onnx]", or choose --precision float32'
)


class QuantisedNetwork(Network):
    """A quantised network in int8.

    The digest includes the quantised graph, so each calibration is a different network.

    Parameters
    ----------
    exact : Network
        The network in float32, validated.
    graph : bytes
        The quantised ONNX graph.
    input_name : str
        Name of the graph's input.
    threads : int, optional
        All cores by default.
    """

    def __init__(self, exact: Network, graph: bytes, input_name: str, threads: int | None) -> None:
        import onnxruntime

        from hrviewer.models.loaders.onnx import session_options

        backend = f"onnxruntime {onnxruntime.__version__}"
        super().__init__(exact.card, "", backend, exact.device, "int8")
        self.digest = hashlib.sha256(exact.digest.encode() + graph).hexdigest()
        self.halo, self.halo_note, self.period = exact.halo, exact.halo_note, exact.period
        self.accepts_any_size, self.max_batch = exact.accepts_any_size, exact.max_batch
        self.external_files = exact.external_files
        self._exact, self._input_name = exact, input_name

        def create_session(count: int) -> Any:
            options = session_options(onnxruntime, count)
            return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

        self._sessions = PerThreadCount(create_session, threads)

    def _run(self, batch: Floats) -> Sequence[Floats]:
        from hrviewer.models.loaders.onnx import run_session

        return run_session(
            self._sessions.get(), self._input_name, np.ascontiguousarray(batch, np.float32)
        )

    def _count(self, h: int, w: int) -> float:
        return self._exact.flops(h, w)

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        return self._exact._largest_layer_bytes(h, w)


def load_quantised(
    path: Path, card: ModelCard, device: str, threads: int | None, samples: Sequence[Floats]
) -> QuantisedNetwork:
    """Load a network and quantise it, in memory and a temporary folder.

    Parameters
    ----------
    path, card, device, threads
        As for `hrviewer.models.loaders.load`.
    samples : sequence of ndarray of float32, shape (C, h, w)
        Prepared inputs for the calibration.

    Raises
    ------
    ModelError
        If onnxruntime is missing, the network is not on a CPU or cannot be quantised, or its
        predictions on these inputs deviate by more than `INT8_TOLERANCE`.
    """
    if card.task == "embedding":
        raise ModelError(
            f"{card.name} computes embeddings, which are stored for heads in float32: "
            "choose --precision float32"
        )
    if not samples:
        raise ModelError(
            f"{card.name} in int8 is calibrated on an image: pass some of its inputs as samples"
        )
    try:
        import onnx
        import onnxruntime.quantization  # noqa: F401
    except ImportError:
        raise ModelError(_MISSING_PACKAGE) from None
    exact, model = _load_float32(path, card, device, threads, onnx)
    batches = [_padded(exact, sample[None]) for sample in samples]
    taken = model.graph.input[0].name
    try:
        with tempfile.TemporaryDirectory(prefix="hrviewer-int8-") as folder:
            graph = _quantise(model, taken, batches, Path(folder))
        network = QuantisedNetwork(exact, graph, taken, threads)
        deviation = _relative_deviation(exact, network, batches)
    except Exception as error:  # onnx and onnxruntime raise many kinds
        raise ModelError(
            f"{card.name} cannot be quantised to int8 ({short_message(error)}): choose "
            "--precision float32"
        ) from None
    if not deviation <= INT8_TOLERANCE:  # also refuses NaN
        raise ModelError(
            f"{card.name} in int8 deviates by {deviation:.0%} of its output's standard deviation "
            f"(limit {INT8_TOLERANCE:.0%}): choose --precision float32"
        )
    return network


def _load_float32(
    path: Path, card: ModelCard, device: str, threads: int | None, onnx: Any
) -> tuple[Network, Any]:
    """Return the network in float32 on a CPU, and its ONNX model."""
    exact: Network
    if path.suffix.lower() == ".onnx":
        from hrviewer.models.loaders.onnx import OnnxNetwork

        exact = OnnxNetwork.load(path, card, device, threads)
        _check_supported(exact)
        validate_network(exact)
        return exact, onnx.load(path)
    from hrviewer.models.loaders.onnx_export import export_onnx
    from hrviewer.models.loaders.torch import TorchNetwork

    exact = loaded = TorchNetwork.load(path, card, device, threads)
    _check_supported(exact)
    validate_network(exact)
    loaded.select_module()
    try:
        return exact, onnx.load_model_from_string(export_onnx(loaded))
    except Exception as error:
        raise ModelError(
            f"{card.name} cannot be exported to be quantised ({short_message(error)}): "
            "choose --precision float32"
        ) from None


def _check_supported(exact: Network) -> None:
    name = exact.card.name
    if not getattr(exact, "has_plain_input", True) or exact.card.output.names:
        raise ModelError(
            f"{name} takes 8-bit pixels or channels last, or not all of its outputs are used, and "
            "it cannot run in int8: choose --precision float32"
        )
    if exact.device != "cpu":
        raise ModelError(
            f"int8 runs on a CPU only, not on {exact.device}: choose --device cpu, or another "
            "--precision"
        )
    if exact.accepts_tokens or exact.precision != "float32":
        reason = "takes patches as tokens" if exact.accepts_tokens else f"is in {exact.precision}"
        raise ModelError(f"{name} {reason} and cannot run in int8: choose --precision float32")


def _padded(exact: Network, batch: Floats) -> Floats:
    """Pad an input to a size that the network accepts."""
    h, w = batch.shape[2:]
    rows, columns = exact._padded_size(h, w)
    full = batch if (rows, columns) == (h, w) else exact._pad(batch, rows - h, columns - w)
    return np.ascontiguousarray(full, np.float32)


def _quantise(model: Any, input_name: str, batches: Sequence[Floats], folder: Path) -> bytes:
    """Return the graph in int8, with the ranges measured on these inputs."""
    import onnx.version_converter
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Inputs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, Floats] | None:
            batch = next(self._left, None)
            return None if batch is None else {input_name: batch}

    given, plain, done = (folder / f"{name}.onnx" for name in ("given", "plain", "int8"))
    old = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < _OPSET
    onnx.save(onnx.version_converter.convert_version(model, _OPSET) if old else model, given)
    quant_pre_process(given, plain, skip_symbolic_shape=True)
    ready = onnx.load(plain)
    for i, node in enumerate(ready.graph.node):
        node.name = node.name or f"node-{i}"
    onnx.save(ready, plain)
    quantize_static(
        plain,
        done,
        Inputs(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        # The fastest pair on x86: unsigned activations, signed weights.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_unquantised_nodes(ready.graph.node),
    )
    return done.read_bytes()


def _unquantised_nodes(nodes: Sequence[Any]) -> list[str]:
    """Return the names of the first product and of all nodes after the last one."""
    products = [node for node in nodes if node.op_type in _PRODUCT_OPS]
    found, needed = [node.name for node in products[:1]], set[str]()
    for node in reversed(nodes):
        if node.op_type in _PRODUCT_OPS or not needed.isdisjoint(node.output):
            needed.update(node.input)
        else:
            found.append(node.name)
    return found


def _relative_deviation(exact: Network, network: Network, batches: Sequence[Floats]) -> float:
    """Return the root mean square error relative to the output's standard deviation."""
    one, two = (
        np.concatenate([net(batch).ravel() for batch in batches]) for net in (exact, network)
    )
    spread = float(one.std()) or float(np.abs(one).max()) or 1.0
    return float(np.sqrt(np.mean((one - two) ** 2))) / spread
