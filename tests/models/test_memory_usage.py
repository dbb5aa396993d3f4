"""Peak memory of a process, without its parent's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hrviewer.models.memory_usage import available_memory, peak_memory, reset_peak_memory

MB = 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="others cannot reset it")
def test_the_peak_can_be_reset():
    reset_peak_memory()
    before = peak_memory()
    held = np.ones(300 * MB, np.uint8)
    assert peak_memory() - before == pytest.approx(held.nbytes, rel=0.1)
    del held
    assert peak_memory() - before > 250 * MB
    reset_peak_memory()
    assert peak_memory() - before < 50 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="others count as they like")
def test_a_child_does_not_count_its_parent():
    held = np.ones(300 * MB, np.uint8)
    ask = "from hrviewer.models.memory_usage import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert 5 * MB < int(done.stdout) < held.nbytes


def test_memory_is_available():
    assert available_memory() > 100 * MB
