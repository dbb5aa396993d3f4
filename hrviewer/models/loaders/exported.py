"""Networks of torch that another back end runs on the CPU, from an exported graph.

The graph comes from the network, or from the cache (`kept_networks`): then torch is imported only
for what needs it, an attribution or FLOPs of a size that was not counted before.
"""

from __future__ import annotations

import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.kept_networks import NetworkFacts, keep_count
from hrviewer.models.loaders.onnx import run_session, session_options
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import PerThreadCount, available_cores

if TYPE_CHECKING:
    from torch import nn

    from hrviewer.models.loaders.torch import TorchNetwork

__all__ = ["EXPORTED_NETWORKS", "ExportedNetwork", "OnnxruntimeNetwork", "OpenVinoNetwork"]


class ExportedNetwork(Network):
    """A `TorchNetwork` run by another back end on the CPU.

    Parameters
    ----------
    card : ModelCard
        Its card.
    graph : bytes
        It as an ONNX graph.
    facts : NetworkFacts
        What was measured of it.
    load_torch : callable
        Loads the network of torch.
    threads : int, optional
        All cores by default.

    Raises
    ------
    Exception
        Of any kind, if the back end is missing or refuses the graph.
    """

    name = ""
    """Name of the back end."""

    def __init__(
        self,
        card: ModelCard,
        graph: bytes,
        facts: NetworkFacts,
        load_torch: Callable[[], TorchNetwork],
        threads: int | None,
    ) -> None:
        back_end = self._open(graph, threads)
        super().__init__(card, "", f"{back_end}, exported by torch {facts.torch}", "cpu")
        facts.restore(self)
        self.graph, self.facts, self._load_torch = graph, facts, load_torch

    @classmethod
    def export(cls, loaded: TorchNetwork, threads: int | None) -> ExportedNetwork:
        """Return a validated network as this back end runs it; raise if the export fails."""
        import torch

        from hrviewer.models.loaders.onnx_export import export_onnx

        graph, facts = export_onnx(loaded), NetworkFacts.of(loaded, torch.__version__)
        network = cls(loaded.card, graph, facts, lambda: loaded, threads)
        if not loaded.has_attribution:  # its weights are not needed any more
            network._meta_module = loaded.meta_module
            del network._load_torch
        return network

    @cached_property
    def _torch_network(self) -> TorchNetwork:
        """The network of torch; an ONNX graph has no gradients."""
        return self._load_torch()

    @cached_property
    def _meta_module(self) -> nn.Module:
        """The module without weights, for counting FLOPs."""
        return self._torch_network.meta_module

    @abstractmethod
    def _open(self, graph: bytes, threads: int | None) -> str:
        """Prepare inference of an ONNX graph; return the back end's name and version."""

    def attribution(self, features: Floats) -> Floats:
        """Compute the attribution with torch."""
        if not self.has_attribution:
            return super().attribution(features)
        return self._torch_network.attribution(features)

    def _count(self, h: int, w: int) -> float:
        def from_torch() -> float:
            from hrviewer.models.loaders.torch import count_flops

            return count_flops(self._meta_module, "forward", self._shape(h, w))

        return keep_count(self.facts_key, f"flops {h} {w}", from_torch)

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        def from_torch() -> float | None:
            from hrviewer.models.loaders.torch import largest_layer_bytes

            return largest_layer_bytes(self._meta_module, self._shape(h, w))

        return keep_count(self.facts_key, f"largest layer {h} {w}", from_torch)

    def _shape(self, h: int, w: int) -> tuple[int, int, int, int]:
        return 1, self.card.input.channel_count, h, w


class OnnxruntimeNetwork(ExportedNetwork):
    """A `TorchNetwork` run by onnxruntime."""

    name = "onnxruntime"

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

    name = "openvino"

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
    made.name: made for made in (OnnxruntimeNetwork, OpenVinoNetwork)
}
"""Classes by the name of the back end."""
