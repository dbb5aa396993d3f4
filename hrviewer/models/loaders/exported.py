"""A torch network run by onnxruntime: exported when it is loaded, in memory.

It is exported anew each time, and not kept on disk: what an architecture's code says today is what
runs. Costs are counted by torch as before, so they do not depend on what runs it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from hrviewer.models.loaders.onnx import run_session, session_options
from hrviewer.models.loaders.torch import TorchNetwork, count_flops
from hrviewer.models.network import Floats, Network

__all__ = ["ExportedNetwork"]

_OPSET = 17


class ExportedNetwork(Network):
    """What a `TorchNetwork` computes, by onnxruntime on the CPU.

    Parameters
    ----------
    loaded : TorchNetwork
        Settled; sizes, batch and halo are taken from it.
    threads : int, optional
        All cores by default.

    Raises
    ------
    Exception
        Of whatever kind, where it cannot be exported or onnxruntime is missing.
    """

    def __init__(self, loaded: TorchNetwork, threads: int | None) -> None:
        import onnxruntime

        card = loaded.card
        super().__init__(
            card,
            "",
            f"onnxruntime {onnxruntime.__version__}, exported by torch {torch.__version__}",
            loaded.device,
            loaded.precision,
        )
        self.digest = loaded.digest
        self.halo, self.period = loaded.halo, loaded.period
        self.elastic, self.batch = loaded.elastic, loaded.batch
        self._hollow = loaded.hollow
        self._session = onnxruntime.InferenceSession(
            _export(loaded), session_options(onnxruntime, threads), ["CPUExecutionProvider"]
        )

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return run_session(self._session, "x", np.ascontiguousarray(batch, np.float32))

    def _count(self, h: int, w: int) -> float:
        return count_flops(self._hollow, "forward", (1, self.card.input.count, h, w))


def _export(loaded: TorchNetwork) -> bytes:
    card = loaded.card
    side = card.input.tile if card.input.fixed else min(card.input.tile, 4 * card.step)
    example = torch.zeros(1, card.input.count, side, side)
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
