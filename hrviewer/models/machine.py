"""The kind of this machine, by which measurements of speed are kept."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["machine"]


@cache
def machine() -> tuple[object, ...]:
    """Return what identifies this kind of machine."""
    model = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2] for line in lines if line.startswith("model name"))
    return platform.system(), platform.machine(), model.strip(), os.cpu_count()
