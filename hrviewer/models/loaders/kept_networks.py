"""What was measured of a network, and its exported graph, in the cache.

A second process finds what the first one measured: neither probes the network again, nor exports
it, nor imports torch where another back end runs it. Found by the weights, the card, the source of
the architecture, the versions of all libraries, the threads and the machine.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard
from hrviewer.models.machine import machine
from hrviewer.models.measurement_cache import (
    load_data,
    load_measurement,
    store_data,
    store_measurement,
)
from hrviewer.models.network import Network
from hrviewer.models.registry import ENTRY_POINT_GROUP, registered
from hrviewer.models.threads import recommended_streams

__all__ = ["NetworkFacts", "keep_count", "load_facts", "load_graph", "network_key", "store_facts"]

log = logging.getLogger(__name__)

_VERSION = 1
"""Incremented when the same network would be measured or exported differently."""
_LIBRARIES = "hrviewer", "torch", "onnxruntime", "openvino", "timm", "numpy"
_FOLDER = "networks"
_T = TypeVar("_T", float, float | None)


@dataclass(frozen=True)
class NetworkFacts:
    """What was measured of a network when it was validated; see `Network`.

    Attributes
    ----------
    backend : str
        The back end that was chosen for it, or an empty string.
    torch : str
        The version of torch that exported it, or an empty string.
    """

    digest: str
    halo: int
    halo_note: str
    period: int
    accepts_any_size: bool
    max_batch: int | None
    has_attribution: bool
    torch: str = ""
    backend: str = ""

    @staticmethod
    def of(network: Network, torch: str = "", backend: str = "") -> NetworkFacts:
        """Return the facts of a validated network."""
        return NetworkFacts(
            network.digest,
            network.halo,
            network.halo_note,
            network.period,
            network.accepts_any_size,
            network.max_batch,
            network.has_attribution,
            torch,
            backend,
        )

    def restore(self, network: Network) -> None:
        """Set what was measured, instead of validating a network."""
        network.digest = self.digest
        network.halo, network.halo_note, network.period = self.halo, self.halo_note, self.period
        network.accepts_any_size, network.max_batch = self.accepts_any_size, self.max_batch
        network.has_attribution = self.has_attribution


def network_key(sha256: str, card: ModelCard, threads: int | None) -> str:
    """Return the key of a network on the CPU in float32; empty if it cannot be kept.

    An architecture that was registered in this process, as in a notebook, has no source that could
    be compared.
    """
    name = card.architecture.name if card.architecture else None
    if name is not None and registered(name) is not None:
        return ""
    parts = (
        _VERSION,
        sha256,
        card.model_dump_json(),
        os.environ.get("HRVIEWER_BACKEND") or "auto",
        threads,
        recommended_streams(),
        [_version(library) for library in _LIBRARIES],
        machine(),
        sorted(_sources(name)) if name else None,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def load_facts(key: str) -> NetworkFacts | None:
    """Return what was kept under a key, or None."""
    found = load_measurement(f"{_FOLDER}/{key}", "facts") if key else None
    if not isinstance(found, dict) or found.keys() != {
        field.name for field in fields(NetworkFacts)
    }:
        return None
    return NetworkFacts(**found)


def load_graph(key: str) -> bytes | None:
    """Return the exported graph that was kept under a key, or None."""
    return load_data(_FOLDER, key) if key else None


def store_facts(key: str, facts: NetworkFacts, graph: bytes | None = None) -> None:
    """Keep what was measured of a network, and its graph."""
    if not key:
        return
    if graph is not None:
        store_data(_FOLDER, key, graph)
    store_measurement(f"{_FOLDER}/{key}", "facts", asdict(facts))


def keep_count(key: str, name: str, count: Callable[[], _T]) -> _T:
    """Return a count of a network, kept under its key, or raise the kept error of counting.

    Raises
    ------
    ModelError
        As `count` does, for example for a size that the network does not take.
    """
    kept: Any = load_measurement(f"{_FOLDER}/{key}", name) if key else None
    if not isinstance(kept, dict):
        try:
            kept = {"value": count()}
        except ModelError as error:
            kept = {"error": str(error)}
        if key:
            store_measurement(f"{_FOLDER}/{key}", name, kept)
    if "error" in kept:
        raise ModelError(kept["error"])
    found: _T = kept["value"]
    return found


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _sources(architecture: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of the files that may build an architecture, importing none."""
    folders = [Path(__file__).parents[1]]
    for entry in entry_points(group=ENTRY_POINT_GROUP).select(name=architecture):
        spec = find_spec(entry.module.partition(".")[0])
        if spec is not None:
            places = spec.submodule_search_locations
            folders += map(Path, places or ([spec.origin] if spec.origin else []))
    for folder in folders:
        for file in [folder] if folder.is_file() else folder.rglob("*.py"):
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns


def may_have_gpu() -> bool:
    """Return whether torch might find a GPU here, without importing it."""
    if _version("torch").endswith("+cpu"):
        return False
    if sys.platform == "linux":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return True
