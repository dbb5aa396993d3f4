"""An ONNX graph in which what follows from the input's size is computed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

__all__ = ["fold_shapes"]

MAX_FOLDED_BYTES = 1 << 20
"""Of a constant; sizes are a few numbers."""


def fold_shapes(model: Any) -> Any:
    """Return a graph for an input of known size, without the operations on shapes.

    Exports of transformers compute sizes step by step, from ``Shape`` on, with operations of which
    ONNX's own inference knows no values. onnxruntime folds them when it opens a graph. The weights
    may be inputs: then nothing else is folded.

    Parameters
    ----------
    model
        An ``onnx.ModelProto``.

    Raises
    ------
    Exception
        Of onnxruntime's many kinds, where it does not take the graph.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # A file that is not trusted may ask for a constant of any size.
    options.add_session_config_entry(
        "optimization.constant_folding_max_output_size_in_bytes", str(MAX_FOLDED_BYTES)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(file)
