"""What runs a network on a CPU: the quickest that says what plain torch says.

Measured when a network is first loaded, and remembered for its digest, the versions and the
machine. ``HRVIEWER_BACKEND`` names one instead: ``torch``, or ``onnxruntime`` or ``openvino``
(where it is installed and agrees).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrviewer.errors import UserError
from hrviewer.models.measurement_cache import keep, recall
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import sharing, streams_here

if TYPE_CHECKING:
    from hrviewer.models.loaders.torch import TorchNetwork

__all__ = ["AGREES", "agree", "fastest", "lowered", "quickest", "remember", "remembered"]

AGREES = 1e-4
"""The largest difference, as a part of the output's greatest value, between equal answers."""
TOLERATED = 0.1
"""The largest root mean square difference of bfloat16, as a part of the output's spread."""
_GAIN = 0.95
"""A back end must take less than this part of torch's time to be taken instead."""
_ROUNDS = 3
_TILES = 3
_EXPORTERS = ("onnxruntime", "openvino")
_KNOWN = ("auto", "torch", *_EXPORTERS)
_chosen: dict[str, str] = {}  # so that one process keeps to one choice, whatever the disk says


def quickest(loaded: TorchNetwork, threads: int | None = None) -> Network:
    """Return the network that runs: `loaded`, or the same exported.

    Parameters
    ----------
    loaded
        Settled.
    threads
        All cores by default.

    Raises
    ------
    UserError
        Where ``HRVIEWER_BACKEND`` names none that there is.
    """
    wish = os.environ.get("HRVIEWER_BACKEND") or "auto"
    if wish not in _KNOWN:
        raise UserError(f"HRVIEWER_BACKEND is {wish!r}: choose one of {', '.join(_KNOWN)}")
    if loaded.joint or loaded.device != "cpu":
        loaded.settle()
        return loaded
    key = key_of(loaded, threads)
    before = wish if wish != "auto" else remembered(key)
    if before in ("torch", "unfolded"):
        loaded.settle(folded=before == "torch")
        return loaded
    tile, *small = _sizes(loaded)
    if wish == "auto" and before is not None:
        # All agreed when it was chosen; but the architecture's code may be new.
        other = _exported(loaded, before, threads)
        if other is not None and _says(other, loaded, small[0]):
            loaded.settle()
            return other
        names: tuple[str, ...] = ()
    else:
        names = _EXPORTERS if wish == "auto" else (wish,)
    others = {
        name: other
        for name in names
        if (other := _exported(loaded, name, threads)) is not None
        and all(_says(other, loaded, inputs) for inputs in [*small, tile])
    }
    folds = _says(loaded, loaded, tile)
    loaded.settle(folded=folds)
    if wish != "auto":
        return others.get(wish, loaded)
    plain = "torch" if folds else "unfolded"
    candidates: dict[str, Network] = {plain: loaded, **others}
    chosen = fastest(candidates, tile) if others else plain
    remember(key, chosen)
    return candidates[chosen]


def lowered(loaded: TorchNetwork) -> TorchNetwork:
    """Return the network in bfloat16, if it says about what it says in float32.

    Parameters
    ----------
    loaded
        Settled.

    Raises
    ------
    UserError
        Where it differs by more than `TOLERATED` on a tile of noise, or cannot run so here.
    """
    name = loaded.card.name
    if loaded.joint or loaded.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"{name} cannot run in bfloat16 here: choose --precision float32")
    tile = _sizes(loaded)[0]
    exact = loaded.reference(tile)
    loaded.precision = "bfloat16"
    for one, other in zip(exact, _outputs(loaded, tile), strict=False):
        spread = float(one.std()) or float(np.abs(one).max()) or 1.0
        off = float(np.sqrt(np.mean((one - other) ** 2))) / spread
        if not off <= TOLERATED:  # NaN is too much, too
            raise UserError(
                f"{name} in bfloat16 is off by {off:.0%} of its output's spread, more than the "
                f"{TOLERATED:.0%} that is tolerated: choose --precision float32"
            )
    loaded.settle()
    return loaded


def agree(one: Sequence[Floats], two: Sequence[Floats]) -> bool:
    """Whether two back ends gave the same outputs, to `AGREES` of each output's greatest value."""
    return len(one) == len(two) and all(
        a.shape == b.shape
        and bool(np.abs(a - b).max(initial=0.0) <= AGREES * np.abs(a).max(initial=0.0))
        for a, b in zip(one, two, strict=True)
    )


def fastest(candidates: Mapping[str, Network], tile: Floats, rounds: int = _ROUNDS) -> str:
    """Return the name of the one that runs tiles in the least time; the first where in doubt.

    Several tiles are run at once, each with its part of the cores, as runs do it. They take turns,
    and the best of each counts. A turn is several tiles, of which the first only warms up: the
    threads of the one before may still spin, and would be in the way.
    """
    best = dict.fromkeys(candidates, np.inf)
    streams = streams_here()

    def run(network: Network, times: int) -> None:
        with sharing(streams):
            for _ in range(times):
                network(tile)

    with ThreadPoolExecutor(streams) as pool:
        for _ in range(rounds):
            for name, network in candidates.items():
                for times in (1, _TILES):
                    start = time.perf_counter()
                    list(pool.map(run, [network] * streams, [times] * streams))
                best[name] = min(best[name], (time.perf_counter() - start) / _TILES)
    first = next(iter(candidates))
    chosen = min(best, key=lambda name: best[name])
    return chosen if best[chosen] < _GAIN * best[first] else first


def key_of(network: Network, threads: int | None) -> str:
    """Return what a choice depends on, as one string."""
    parts = (network.digest, network.halo, threads, streams_here(), *_versions(), *_machine())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def remembered(key: str) -> str | None:
    """Return the back end that was chosen for this key, if one was."""
    if key not in _chosen:
        found = recall("backends", key)
        if found not in ("torch", "unfolded", *_EXPORTERS):
            return None
        _chosen[key] = found
    return _chosen[key]


def remember(key: str, backend: str) -> None:
    """Keep a choice; where the folder cannot be written, as long as the process lives."""
    _chosen[key] = backend
    keep("backends", key, backend)


def _versions() -> tuple[str, ...]:
    found = []
    for name in ("hrviewer", "torch", *_EXPORTERS):
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    return tuple(found)


@cache
def _machine() -> tuple[object, ...]:
    """Return what makes one machine's times unlike another's."""
    model = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2] for line in lines if line.startswith("model name"))
    return platform.system(), platform.machine(), model.strip(), os.cpu_count()


def _exported(loaded: TorchNetwork, name: str, threads: int | None) -> Network | None:
    """Return the network exported, or None where that cannot be."""
    try:
        from hrviewer.models.loaders.exported import EXPORTERS

        return EXPORTERS[name](loaded, threads)
    except Exception:  # ImportError, and the exporter's many: torch runs it as well
        return None


def _sizes(loaded: TorchNetwork) -> list[Floats]:
    """Return prepared noise: a real tile first, then small inputs of other sizes."""
    card = loaded.card
    it, step = card.input, card.step
    rng = np.random.default_rng(0)

    def noise(n: int, h: int, w: int) -> Floats:
        if isinstance(it.channels, int):
            return rng.standard_normal((n, it.channels, h, w)).astype(np.float32)
        pixels = rng.integers(0, 256, (h, w, it.count)).astype(np.float32)
        one: Floats = card.prepare(pixels)
        return np.ascontiguousarray(np.stack([one] * n))

    if it.fixed:
        tile = noise(1, it.tile, it.tile)
        return [tile, tile]
    side = -(-(it.tile + 2 * loaded.halo) // step) * step
    h = max(step, min(it.tile, 64) // step * step)
    small = [noise(1 if loaded.batch == 1 else 2, h, h + step)]
    if loaded.elastic and it.multiple_of > 1:
        small.append(noise(1, h + 1, h + step - 1))
    return [noise(1, side, side), *small]


def _says(network: Network, loaded: TorchNetwork, batch: Floats) -> bool:
    return agree(loaded.reference(batch), _outputs(network, batch))


def _outputs(network: Network, batch: Floats) -> Sequence[Floats]:
    """Return what a back end gives, before it is settled; nothing where it fails."""
    try:
        return network._run(batch)
    except Exception:
        return []
