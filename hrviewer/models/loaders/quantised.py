"""A network in eight bits on the CPU: quantised by onnxruntime to the image that it will look at.

Weights are rounded per channel, and what passes between layers to the ranges that it has on
prepared inputs (Jacob et al., *Quantization and training of neural networks for efficient
integer-arithmetic-only inference*, CVPR 2018). The first product, which reads pixels, and what
follows the last one stay in float32.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import UserError
from hrviewer.models.card import Card
from hrviewer.models.network import Floats, Network
from hrviewer.models.probe import settle
from hrviewer.models.threads import ByThreads
from hrviewer.models.told import brief

__all__ = ["QuantisedNetwork", "quantised"]

TOLERATED = 0.25
"""The largest root mean square difference, as a part of the output's spread."""
_OPSET = 13
"""The first in which each channel can have a range of its own."""
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MISSING = 'int8 needs onnxruntime: pip install "hrviewer[onnx]", or choose --precision float32'


class QuantisedNetwork(Network):
    """What another network computes, in eight bits.

    Two calibrations are two networks: the digest changes with the quantised graph.

    Parameters
    ----------
    exact : Network
        The same in float32, settled.
    graph : bytes
        In ONNX, quantised.
    taken : str
        The graph's input.
    threads : int, optional
        All cores by default.
    """

    def __init__(self, exact: Network, graph: bytes, taken: str, threads: int | None) -> None:
        import onnxruntime

        from hrviewer.models.loaders.onnx import session_options

        backend = f"onnxruntime {onnxruntime.__version__}"
        super().__init__(exact.card, "", backend, exact.device, "int8")
        self.digest = hashlib.sha256(exact.digest.encode() + graph).hexdigest()
        self.halo, self.period = exact.halo, exact.period
        self.elastic, self.batch = exact.elastic, exact.batch
        self._exact, self._taken = exact, taken

        def opened(count: int) -> Any:
            options = session_options(onnxruntime, count)
            return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

        self._sessions = ByThreads(opened, threads)

    def _run(self, batch: Floats) -> Sequence[Floats]:
        from hrviewer.models.loaders.onnx import run_session

        return run_session(
            self._sessions.get(), self._taken, np.ascontiguousarray(batch, np.float32)
        )

    def _count(self, h: int, w: int) -> float:
        return self._exact.flops(h, w)


def quantised(
    path: Path, card: Card, device: str, threads: int | None, samples: Sequence[Floats]
) -> QuantisedNetwork:
    """Load a network and quantise it, in memory and in a folder that is gone afterwards.

    Parameters
    ----------
    path, card, device, threads
        As for `hrviewer.models.loaders.load`.
    samples : sequence of ndarray of float32, shape (C, h, w)
        Prepared inputs on which the ranges are measured.

    Raises
    ------
    UserError
        Where onnxruntime is missing, the network is not on a CPU or cannot be quantised, or says
        something else by more than `TOLERATED` on these very inputs.
    """
    if card.task == "embedding":
        raise UserError(
            f"{card.name} makes codes, which are kept for networks that read them in float32: "
            "choose --precision float32"
        )
    if not samples:
        raise UserError(
            f"{card.name} in int8 is calibrated on an image: give some of its inputs as samples"
        )
    try:
        import onnx
        import onnxruntime.quantization  # noqa: F401
    except ImportError:
        raise UserError(_MISSING) from None
    exact, model = _onnx(path, card, device, threads, onnx)
    batches = [_filled(exact, sample[None]) for sample in samples]
    taken = model.graph.input[0].name
    try:
        with tempfile.TemporaryDirectory(prefix="hrviewer-int8-") as folder:
            graph = _quantise(model, taken, batches, Path(folder))
        network = QuantisedNetwork(exact, graph, taken, threads)
        off = _off(exact, network, batches)
    except Exception as error:  # onnx and onnxruntime raise a dozen kinds
        raise UserError(
            f"{card.name} cannot be quantised to int8 ({brief(error)}): choose --precision float32"
        ) from None
    if not off <= TOLERATED:  # NaN is too much, too
        raise UserError(
            f"{card.name} in int8 is off by {off:.0%} of its output's spread, more than the "
            f"{TOLERATED:.0%} that is tolerated: choose --precision float32"
        )
    return network


def _onnx(
    path: Path, card: Card, device: str, threads: int | None, onnx: Any
) -> tuple[Network, Any]:
    """Return the network in float32 on a CPU, and its graph."""
    exact: Network
    if path.suffix.lower() == ".onnx":
        from hrviewer.models.loaders.onnx import OnnxNetwork

        exact = OnnxNetwork.load(path, card, device, threads)
        _must_suit(exact)
        settle(exact)
        return exact, onnx.load(path)
    from hrviewer.models.loaders.exported import export
    from hrviewer.models.loaders.torch import TorchNetwork

    exact = loaded = TorchNetwork.load(path, card, device, threads)
    _must_suit(exact)
    settle(exact)
    loaded.settle()
    try:
        return exact, onnx.load_model_from_string(export(loaded))
    except Exception as error:
        raise UserError(
            f"{card.name} cannot be exported to be quantised ({brief(error)}): "
            "choose --precision float32"
        ) from None


def _must_suit(exact: Network) -> None:
    name = exact.card.name
    if exact.device != "cpu":
        raise UserError(
            f"int8 runs on a CPU only, not on {exact.device}: choose --device cpu, or another "
            "--precision"
        )
    if exact.joint or exact.precision != "float32":
        why = "looks at patches together" if exact.joint else f"is in {exact.precision}"
        raise UserError(f"{name} {why} and cannot run in int8: choose --precision float32")


def _filled(exact: Network, batch: Floats) -> Floats:
    """Return an input at a size that the network takes."""
    h, w = batch.shape[2:]
    rows, columns = exact._size(h, w)
    full = batch if (rows, columns) == (h, w) else exact._fill(batch, rows - h, columns - w)
    return np.ascontiguousarray(full, np.float32)


def _quantise(model: Any, taken: str, batches: Sequence[Floats], folder: Path) -> bytes:
    """Return the graph in eight bits, with ranges as these inputs have them."""
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
            return None if batch is None else {taken: batch}

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
        # On x86 the quickest pair: unsigned by signed.
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_ends(ready.graph.node),
    )
    return done.read_bytes()


def _ends(nodes: Sequence[Any]) -> list[str]:
    """Return the names of the first product and of what no product follows."""
    products = [node for node in nodes if node.op_type in _PRODUCTS]
    found, needed = [node.name for node in products[:1]], set[str]()
    for node in reversed(nodes):
        if node.op_type in _PRODUCTS or not needed.isdisjoint(node.output):
            needed.update(node.input)
        else:
            found.append(node.name)
    return found


def _off(exact: Network, network: Network, batches: Sequence[Floats]) -> float:
    """Return the root mean square difference on inputs, as a part of the output's spread."""
    one, two = (
        np.concatenate([net(batch).ravel() for batch in batches]) for net in (exact, network)
    )
    spread = float(one.std()) or float(np.abs(one).max()) or 1.0
    return float(np.sqrt(np.mean((one - two) ** 2))) / spread
