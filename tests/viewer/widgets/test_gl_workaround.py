"""Layers may go without taking the window with them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vispy.gloo import gl, glir

from hrviewer.viewer.widgets import gl_workaround

COME_AND_GO = """
import napari
import numpy as np
from hrviewer.viewer.widgets.gl_workaround import avoid_llvmpipe_crash
from hrviewer.viewer.demo.window_driver import process_events_for

avoid_llvmpipe_crash()
viewer = napari.Viewer()
viewer.add_image(np.zeros((512, 512)))
process_events_for(0.5)
for _ in range(3):
    layers = [viewer.add_image(np.zeros((64, 64)), visible=i == 0) for i in range(4)]
    layers.append(viewer.add_vectors(np.ones((5, 2, 2)), edge_width=3))
    process_events_for(0.1)
    for layer in layers:
        viewer.layers.remove(layer)
    process_events_for(0.1)
viewer.close()
print("still here")
"""


@pytest.mark.slow
def test_layers_come_and_go():
    done = subprocess.run(
        [sys.executable, "-c", COME_AND_GO], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "still here\n", done.returncode


def test_gpus_delete_and_llvmpipe_keeps(monkeypatch):
    gone = []
    monkeypatch.setattr(gl_workaround, "_original_delete", gone.append)
    monkeypatch.setattr(glir.GlirProgram, "delete", None)
    gl_workaround.avoid_llvmpipe_crash()
    for renderer in ("llvmpipe (LLVM 15.0.6, 256 bits)", "NVIDIA H200"):
        monkeypatch.setattr(gl, "glGetParameter", lambda name, value=renderer: value)
        glir.GlirProgram.delete(renderer)
    assert gone == ["NVIDIA H200"]
