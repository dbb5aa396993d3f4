"""Networks loaded in this process, shared by all bundles, runs and windows.

A network is found by its weights file, model card, device, precision and calibration inputs. A file
that has changed since is loaded again. The least recently used networks are dropped beyond a total
size of weights; objects in use stay alive.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hrviewer.models import loaders
from hrviewer.models.card import ModelCard
from hrviewer.models.network import Floats, Network
from hrviewer.models.registry import registered

__all__ = ["clear_networks", "load_network", "release_networks"]

MAX_BYTES = 4 << 30
"""Maximum total size of the weights files of cached networks."""
MAX_NETWORKS = 32
"""Maximum number of cached networks."""

Stat = tuple[int, int]


@dataclass
class _CachedNetwork:
    """A network, once it is loaded, and the state of its files at that time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    network: Network | None = None
    files: tuple[Stat, ...] = ()

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files)


_entries: OrderedDict[Hashable, _CachedNetwork] = OrderedDict()
_lock = threading.Lock()


def load_network(
    path: Path,
    card: ModelCard,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    samples: Sequence[Floats] = (),
    trust: bool = False,
) -> Network:
    """Return a network, loaded once per process; see `hrviewer.models.loaders.load`.

    Threads that request the same network wait for one load; other networks load in parallel.
    """
    loaders.check_weights_format(path, trust)
    key = _key(path, card, device, threads, precision, samples)
    with _lock:
        entry = _entries.setdefault(key, _CachedNetwork())
        _entries.move_to_end(key)
    with entry.lock:
        if entry.network is None or entry.files != _stats(_files(path, entry.network)):
            before = _stats([path])  # a file replaced while it loads is loaded again next time
            try:
                network = loaders.load(path, card, device, threads, precision, samples, trust)
            except BaseException:
                with _lock:
                    if _entries.get(key) is entry:
                        del _entries[key]
                raise
            entry.network, entry.files = network, before + _stats(network.external_files)
            _shrink()
        return entry.network


def release_networks(networks: Iterable[Network]) -> None:
    """Drop these networks from the cache; their memory is free once nobody uses them."""
    dropped = {id(network) for network in networks}
    with _lock:
        for key in [key for key, entry in _entries.items() if id(entry.network) in dropped]:
            del _entries[key]


def clear_networks() -> None:
    """Drop all networks from the cache."""
    with _lock:
        _entries.clear()


def _key(
    path: Path,
    card: ModelCard,
    device: str,
    threads: int | None,
    precision: str,
    samples: Sequence[Floats],
) -> Hashable:
    calibration = hashlib.sha256()
    for sample in samples:
        calibration.update(repr(sample.shape).encode() + sample.tobytes())
    return (
        path.absolute(),
        card.model_dump_json(),
        device,
        threads,
        precision,
        calibration.hexdigest(),
        os.environ.get("HRVIEWER_BACKEND"),
        card.architecture and registered(card.architecture.name),
    )


def _files(path: Path, network: Network) -> list[Path]:
    return [path, *network.external_files]


def _stats(files: Iterable[Path]) -> tuple[Stat, ...]:
    """Return size and time of files; a missing one has size -1."""
    found = []
    for file in files:
        try:
            stat = file.stat()
            found.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((-1, 0))
    return tuple(found)


def _shrink() -> None:
    """Drop the least recently used networks beyond the limits, but never the last one."""
    with _lock:
        loaded = [key for key, entry in _entries.items() if entry.network is not None]
        total = sum(_entries[key].size for key in loaded)
        for i, key in enumerate(loaded[:-1]):
            if total <= MAX_BYTES and len(loaded) - i <= MAX_NETWORKS:
                break
            total -= _entries.pop(key).size
