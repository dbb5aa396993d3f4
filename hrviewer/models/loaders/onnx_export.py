"""Export of a torch network to an ONNX graph, in memory."""

from __future__ import annotations

import io
import warnings

import torch

from hrviewer.models.loaders.torch import TorchNetwork, example_side

__all__ = ["export_onnx"]

_OPSET = 17


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
