"""Neither onnxruntime nor OpenVINO reports that it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import hrviewer, onnx, onnxruntime
from onnx import helper
value = [helper.make_tensor_value_info(n, 1, (1,)) for n in "xy"]
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
data = model.SerializeToString()
onnxruntime.InferenceSession(data)
from hrviewer.models.loaders.exported import import_openvino
try:
    openvino = import_openvino()
except ImportError:
    pass
else:
    openvino.compile_model(openvino.Core().read_model(data), "CPU")
"""


def test_inference_keeps_no_identifier_for_telemetry(tmp_path: Path) -> None:
    """onnxruntime makes one in the user's cache, OpenVINO in the home folder, when imported."""
    pytest.importorskip("onnxruntime")
    dropped = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", CODE], check=True, env=environment | home)
    assert list(tmp_path.rglob("*")) == []
