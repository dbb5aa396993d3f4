"""Torch networks run by onnxruntime or OpenVINO: exported in memory when loaded.

The export is repeated on every load and not stored, so that changes to an architecture's code take
effect. FLOPs are counted by torch, so they do not depend on the back end.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from hrviewer.models.loaders.onnx import run_session, session_options
from hrviewer.models.loaders.torch import (
    TorchNetwork,
    count_flops,
    example_side,
    largest_layer_bytes,
)
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import PerThreadCount, available_cores

__all__ = [
    "EXPORTED_NETWORKS",
    "ExportedNetwork",
    "OnnxruntimeNetwork",
    "OpenVinoNetwork",
    "export_onnx",
]

_OPSET = 17


class ExportedNetwork(Network):
    """A `TorchNetwork` run by another back end on the CPU.

    Parameters
    ----------
    loaded : TorchNetwork
        Validated; sizes, batch and halo are copied from it.
    threads : int, optional
        All cores by default.

    Raises
    ------
    Exception
        Of any kind, if the export fails or the back end is missing.
    """

    def __init__(self, loaded: TorchNetwork, threads: int | None) -> None:
        back_end = self._open(export_onnx(loaded), threads)
        description = f"{back_end}, exported by torch {torch.__version__}"
        super().__init__(loaded.card, "", description, loaded.device, loaded.precision)
        self.digest = loaded.digest
        self.halo, self.halo_note, self.period = loaded.halo, loaded.halo_note, loaded.period
        self.accepts_any_size, self.max_batch = loaded.accepts_any_size, loaded.max_batch
        self._meta_module = loaded.meta_module
        self.has_attribution = loaded.has_attribution
        self._attribution_network = (
            loaded if loaded.has_attribution else None
        )  # an ONNX graph has no gradients

    @abstractmethod
    def _open(self, graph: bytes, threads: int | None) -> str:
        """Prepare inference of an ONNX graph; return the back end's name and version."""

    def attribution(self, features: Floats) -> Floats:
        """Compute the attribution with torch."""
        return (
            self._attribution_network.attribution(features)
            if self._attribution_network
            else super().attribution(features)
        )

    def _count(self, h: int, w: int) -> float:
        return count_flops(self._meta_module, "forward", (1, self.card.input.channel_count, h, w))

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        return largest_layer_bytes(self._meta_module, (1, self.card.input.channel_count, h, w))


class OnnxruntimeNetwork(ExportedNetwork):
    """A `TorchNetwork` run by onnxruntime."""

    def _open(self, graph: bytes, threads: int | None) -> str:
        import onnxruntime

        def create_session(count: int) -> Any:
            options = session_options(onnxruntime, count)
            return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

        self._sessions = PerThreadCount(create_session, threads)
        self._sessions.get()
        return f"onnxruntime {onnxruntime.__version__}"

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return run_session(self._sessions.get(), "x", np.ascontiguousarray(batch, np.float32))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports the import itself."""
    name = "openvino_telemetry"
    if "openvino" not in sys.modules and name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]  # "not installed": there is a stub
        try:
            return import_module("openvino")
        finally:
            del sys.modules[name]
    return import_module("openvino")


class OpenVinoNetwork(ExportedNetwork):
    """A `TorchNetwork` run by OpenVINO."""

    def _open(self, graph: bytes, threads: int | None) -> str:
        openvino = import_openvino()
        model = openvino.Core().read_model(graph)

        def compiled(count: int) -> Any:
            streams = 1 if threads else max(1, available_cores() // count)
            settings = {
                # Otherwise OpenVINO uses bfloat16 where the hardware supports it.
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": count * streams,
                "NUM_STREAMS": streams,
            }
            return openvino.compile_model(model, "CPU", settings)

        self._models = PerThreadCount(compiled, threads)
        self._models.get()
        self._thread_state = threading.local()
        return f"openvino {version('openvino')}"

    def _run(self, batch: Floats) -> Sequence[Floats]:
        # A request serves one thread, and reuses its output buffers.
        model, requests = self._models.get(), vars(self._thread_state).setdefault("requests", {})
        if model not in requests:
            requests[model] = model.create_infer_request()
        requests[model].infer([np.ascontiguousarray(batch, np.float32)], share_inputs=True)
        return [np.array(out.data, np.float32) for out in requests[model].output_tensors]


EXPORTED_NETWORKS: dict[str, type[ExportedNetwork]] = {
    "onnxruntime": OnnxruntimeNetwork,
    "openvino": OpenVinoNetwork,
}
"""Classes by the name of the back end."""


def export_onnx(loaded: TorchNetwork) -> bytes:
    """Export a network to an ONNX graph with the input ``x``."""
    card = loaded.card
    side = example_side(card)
    example = torch.zeros(1, card.input.channel_count, side, side)
    file = io.BytesIO()
    axes = {0: "n"} if card.input.fixed else {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings(), torch.inference_mode():
        # The legacy exporter (which needs no other package) warns of its deprecation and of
        # constant sizes; the comparison of outputs afterwards detects the latter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            loaded.module,
            (example,),
            file,  # type: ignore[arg-type]  # buffers are accepted, though no longer declared
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": axes},
            opset_version=_OPSET,
        )
    return file.getvalue()
