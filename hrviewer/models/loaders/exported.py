"""A torch network run by onnxruntime or OpenVINO: exported when it is loaded, in memory.

It is exported anew each time, and not kept on disk: what an architecture's code says today is what
runs. Costs are counted by torch as before, so they do not depend on what runs it.
"""

from __future__ import annotations

import io
import threading
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from hrviewer.models.loaders.onnx import run_session, session_options
from hrviewer.models.loaders.torch import TorchNetwork, count_flops
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
    """What a `TorchNetwork` computes, by something else on the CPU.

    Parameters
    ----------
    loaded : TorchNetwork
        Settled; sizes, batch and halo are taken from it.
    threads : int, optional
        All cores by default.

    Raises
    ------
    Exception
        Of whatever kind, where it cannot be exported or what is to run it is missing.
    """

    def __init__(self, loaded: TorchNetwork, threads: int | None) -> None:
        runs = self._open(export_onnx(loaded), threads)
        how = f"{runs}, exported by torch {torch.__version__}"
        super().__init__(loaded.card, "", how, loaded.device, loaded.precision)
        self.digest = loaded.digest
        self.halo, self.period = loaded.halo, loaded.period
        self.accepts_any_size, self.max_batch = loaded.accepts_any_size, loaded.max_batch
        self._meta_module = loaded.meta_module
        self.has_attribution = loaded.has_attribution
        self._attribution_network = (
            loaded if loaded.has_attribution else None
        )  # of which a graph has none

    @abstractmethod
    def _open(self, graph: bytes, threads: int | None) -> str:
        """Make ready to run an ONNX graph; return what runs it, with its version."""

    def attribution(self, features: Floats) -> Floats:
        """Ask torch."""
        return (
            self._attribution_network.attribution(features)
            if self._attribution_network
            else super().attribution(features)
        )

    def _count(self, h: int, w: int) -> float:
        return count_flops(self._meta_module, "forward", (1, self.card.input.channel_count, h, w))


class OnnxruntimeNetwork(ExportedNetwork):
    """By onnxruntime."""

    def _open(self, graph: bytes, threads: int | None) -> str:
        import onnxruntime

        def opened(count: int) -> Any:
            options = session_options(onnxruntime, count)
            return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

        self._sessions = PerThreadCount(opened, threads)
        self._sessions.get()
        return f"onnxruntime {onnxruntime.__version__}"

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return run_session(self._sessions.get(), "x", np.ascontiguousarray(batch, np.float32))


class OpenVinoNetwork(ExportedNetwork):
    """By OpenVINO."""

    def _open(self, graph: bytes, threads: int | None) -> str:
        import openvino

        model = openvino.Core().read_model(graph)

        def compiled(count: int) -> Any:
            streams = 1 if threads else max(1, available_cores() // count)
            settings = {
                # Where the hardware has bfloat16, OpenVINO takes it unless told not to.
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
        # A request serves one thread, and keeps its outputs to write the next ones into.
        model, requests = self._models.get(), vars(self._thread_state).setdefault("requests", {})
        if model not in requests:
            requests[model] = model.create_infer_request()
        requests[model].infer([np.ascontiguousarray(batch, np.float32)])
        return [np.array(out.data, np.float32) for out in requests[model].output_tensors]


EXPORTED_NETWORKS: dict[str, type[ExportedNetwork]] = {
    "onnxruntime": OnnxruntimeNetwork,
    "openvino": OpenVinoNetwork,
}
"""By the name that chooses it."""


def export_onnx(loaded: TorchNetwork) -> bytes:
    """Return what a network computes as a graph in ONNX, whose input is ``x``."""
    card = loaded.card
    side = card.input.tile if card.input.fixed else min(card.input.tile, 4 * card.step)
    example = torch.zeros(1, card.input.channel_count, side, side)
    file = io.BytesIO()
    axes = {0: "n"} if card.input.fixed else {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter warns of itself (it is the one that needs no other package) and of
        # sizes taken for constants; the latter is what the comparison afterwards is for.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            loaded.module,
            (example,),
            file,  # type: ignore[arg-type]  # buffers are taken, though no longer declared
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": axes},
            opset_version=_OPSET,
        )
    return file.getvalue()
