"""Peak memory of this process on the host and on CUDA devices, and memory still available."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

__all__ = [
    "available_memory",
    "limit_device_memory",
    "peak_device_memory",
    "peak_memory",
    "reset_peak_memory",
]

USABLE_FRACTION = 0.8
"""Fraction of the free memory that may be used without asking."""


def peak_memory() -> int | None:
    """Return the process's peak resident size in bytes, or None where it is not available."""
    # On Linux `getrusage` includes the parent's peak, since it survives `exec`.
    with suppress(OSError, KeyError):
        return _read_sizes("/proc/self/status")["VmHWM"] * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read_sizes(path: str) -> dict[str, int]:
    """Return the sizes in a file of ``/proc`` with lines such as ``Name:  123 kB``."""
    lines = [line.split() for line in Path(path).read_text("utf-8").splitlines()]
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[2:] == ["kB"]}


def reset_peak_memory() -> None:
    """Reset `peak_memory`, where the system supports it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory() -> int:
    """Return how many bytes may be used: most of the free memory, container limits included."""
    import os

    free = []
    with suppress(OSError):
        free.append(_read_sizes("/proc/meminfo")["MemAvailable"] * 1024)
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        free.append(limit - int(Path("/sys/fs/cgroup/memory.current").read_text("ascii")))
    if not free:
        with suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return int(USABLE_FRACTION * min(free, default=4 << 30))


def peak_device_memory(device: str, *, reset: bool = False) -> int | None:
    """Return the peak number of bytes allocated on a CUDA device, or None for other devices.

    Parameters
    ----------
    device : str
        Name of the device, as in `Network.device`.
    reset : bool
        Whether to reset the peak first.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.max_memory_allocated(device))


def limit_device_memory(device: str, limit: int) -> None:
    """Limit the bytes that this process may allocate on a CUDA device."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
