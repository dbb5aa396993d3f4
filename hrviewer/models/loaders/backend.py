"""Choice of the back end on a CPU: the fastest whose predictions equal those of plain torch.

Measured when a network is first loaded, and cached by its digest, the versions and the machine.
``HRVIEWER_BACKEND`` selects one instead: ``torch``, ``onnxruntime`` or ``openvino`` (used where it
is installed and its predictions agree).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from hrviewer.errors import ModelError, ParameterError, short_message
from hrviewer.models.machine import machine
from hrviewer.models.measurement_cache import load_measurement, store_measurement
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import recommended_streams, share_cores
from hrviewer.phases import MEASURING, announce

if TYPE_CHECKING:
    from hrviewer.models.loaders.torch import TorchNetwork

__all__ = [
    "OUTPUT_TOLERANCE",
    "fastest_backend",
    "load_choice",
    "outputs_agree",
    "select_backend",
    "store_choice",
    "to_bfloat16",
]

log = logging.getLogger(__name__)

OUTPUT_TOLERANCE = 1e-4
"""Largest difference between equal predictions, relative to the output's maximum."""
BFLOAT16_TOLERANCE = 0.1
"""Largest root mean square error of bfloat16, relative to the output's standard deviation."""
_REQUIRED_GAIN = 0.95
"""A back end replaces torch only if it takes less than this fraction of torch's time."""
_TIMING_ROUNDS = 3
_TIMED_TILES = 3
_EXPORTED_BACKENDS = ("onnxruntime", "openvino")
_BACKEND_NAMES = ("auto", "torch", *_EXPORTED_BACKENDS)
_EXPORT_VERSION = 2
"""Incremented when networks are exported that could not be before: choices are made again."""
_choices: dict[str, str] = {}  # one choice per process, even if the file changes


def select_backend(loaded: TorchNetwork, threads: int | None = None) -> Network:
    """Return the network to run: `loaded`, or the same network exported.

    Parameters
    ----------
    loaded
        Validated.
    threads
        All cores by default.

    Raises
    ------
    ModelError
        If ``HRVIEWER_BACKEND`` is not a known back end.
    """
    requested = os.environ.get("HRVIEWER_BACKEND") or "auto"
    if requested not in _BACKEND_NAMES:
        raise ParameterError(
            f"HRVIEWER_BACKEND is {requested!r}: choose one of {', '.join(_BACKEND_NAMES)}"
        )
    if loaded.accepts_tokens or loaded.device != "cpu":
        loaded.select_module()
        return loaded
    key = backend_key(loaded, threads)
    previous = requested if requested != "auto" else load_choice(key)
    if previous in ("torch", "unfolded"):
        loaded.select_module(folded=previous == "torch")
        return loaded
    if requested == "auto" and previous is None:
        announce(MEASURING)
    tile, *small = _test_inputs(loaded)
    if requested == "auto" and previous is not None:
        # All agreed when it was chosen, but the architecture's code may have changed.
        other = _try_export(loaded, previous, threads)
        if other is not None and _matches_reference(other, loaded, small[0]):
            loaded.select_module()
            return other
        names: tuple[str, ...] = ()
    else:
        names = _EXPORTED_BACKENDS if requested == "auto" else (requested,)
    others = {
        name: other
        for name in names
        if (other := _try_export(loaded, name, threads)) is not None
        and all(_matches_reference(other, loaded, inputs) for inputs in [*small, tile])
    }
    folding_agrees = _matches_reference(loaded, loaded, tile)
    loaded.select_module(folded=folding_agrees)
    if requested != "auto":
        return others.get(requested, loaded)
    plain = "torch" if folding_agrees else "unfolded"
    candidates: dict[str, Network] = {plain: loaded, **others}
    chosen = fastest_backend(candidates, tile) if others else plain
    log.info("%s: measured %s, chose %s", loaded.card.name, ", ".join(candidates), chosen)
    store_choice(key, chosen)
    return candidates[chosen]


def to_bfloat16(loaded: TorchNetwork) -> TorchNetwork:
    """Return the network in bfloat16, if its predictions are close to those in float32.

    Parameters
    ----------
    loaded
        Validated.

    Raises
    ------
    ModelError
        If they deviate by more than `BFLOAT16_TOLERANCE` on a tile of noise, or the device does not
        support it.
    """
    name = loaded.card.name
    if loaded.accepts_tokens or loaded.device.partition(":")[0] not in ("cpu", "cuda"):
        raise ModelError(f"{name} cannot run in bfloat16 here: choose --precision float32")
    tile = _test_inputs(loaded)[0]
    exact = loaded.reference(tile)
    loaded.precision = "bfloat16"
    for one, other in zip(exact, _run_or_nothing(loaded, tile), strict=False):
        spread = float(one.std()) or float(np.abs(one).max()) or 1.0
        deviation = float(np.sqrt(np.mean((one - other) ** 2))) / spread
        if not deviation <= BFLOAT16_TOLERANCE:  # also refuses NaN
            raise ModelError(
                f"{name} in bfloat16 deviates by {deviation:.0%} of its output's standard "
                f"deviation (limit {BFLOAT16_TOLERANCE:.0%}): choose --precision float32"
            )
    loaded.select_module()
    return loaded


def outputs_agree(one: Sequence[Floats], two: Sequence[Floats]) -> bool:
    """Whether two back ends gave the same outputs, up to `OUTPUT_TOLERANCE` of each maximum."""
    return len(one) == len(two) and all(
        a.shape == b.shape
        and bool(np.abs(a - b).max(initial=0.0) <= OUTPUT_TOLERANCE * np.abs(a).max(initial=0.0))
        for a, b in zip(one, two, strict=True)
    )


def fastest_backend(
    candidates: Mapping[str, Network], tile: Floats, rounds: int = _TIMING_ROUNDS
) -> str:
    """Return the name of the fastest candidate; the first unless another is clearly faster.

    Several tiles are run at once, each with its share of the cores, as in a run. The candidates
    take turns, and the best turn of each counts. A turn begins with a warm-up tile, since the
    threads of the candidate before may still be spinning.
    """
    best = dict.fromkeys(candidates, np.inf)
    streams = recommended_streams()

    def run(network: Network, times: int) -> None:
        with share_cores(streams):
            for _ in range(times):
                network(tile)

    with ThreadPoolExecutor(streams) as pool:
        for _ in range(rounds):
            for name, network in candidates.items():
                for times in (1, _TIMED_TILES):
                    start = time.perf_counter()
                    list(pool.map(run, [network] * streams, [times] * streams))
                best[name] = min(best[name], (time.perf_counter() - start) / _TIMED_TILES)
    for name, seconds in best.items():
        log.debug("back end %s: %.4f s for a tile of %s", name, seconds, tile.shape)
    first = next(iter(candidates))
    chosen = min(best, key=lambda name: best[name])
    return chosen if best[chosen] < _REQUIRED_GAIN * best[first] else first


def backend_key(network: Network, threads: int | None) -> str:
    """Return the cache key of a choice."""
    parts = (
        _EXPORT_VERSION,
        network.digest,
        network.halo,
        threads,
        recommended_streams(),
        *_versions(),
        *machine(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def load_choice(key: str) -> str | None:
    """Return the back end chosen for this key, or None."""
    if key not in _choices:
        found = load_measurement("backends", key)
        if found not in ("torch", "unfolded", *_EXPORTED_BACKENDS):
            return None
        _choices[key] = found
    return _choices[key]


def store_choice(key: str, backend: str) -> None:
    """Cache a choice; if the folder cannot be written, for the lifetime of the process."""
    _choices[key] = backend
    store_measurement("backends", key, backend)


def _versions() -> tuple[str, ...]:
    found = []
    for name in ("hrviewer", "torch", *_EXPORTED_BACKENDS):
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    return tuple(found)


def _try_export(loaded: TorchNetwork, name: str, threads: int | None) -> Network | None:
    """Return the exported network, or None if the export fails."""
    try:
        from hrviewer.models.loaders.exported import EXPORTED_NETWORKS

        return EXPORTED_NETWORKS[name].export(loaded, threads)
    except Exception as error:  # exporters raise many kinds; torch runs it instead
        log.info("%s does not run %s: %s", name, loaded.card.name, short_message(error))
        return None


def _test_inputs(loaded: TorchNetwork) -> list[Floats]:
    """Return prepared noise: one full-size tile, then small inputs of other sizes."""
    card = loaded.card
    it, step = card.input, card.step
    rng = np.random.default_rng(0)

    def noise(n: int, h: int, w: int) -> Floats:
        if isinstance(it.channels, int):
            return rng.standard_normal((n, it.channels, h, w)).astype(np.float32)
        pixels = rng.integers(0, 256, (h, w, it.channel_count)).astype(np.float32)
        one: Floats = card.prepare(pixels)
        return np.ascontiguousarray(np.stack([one] * n))

    if it.fixed:
        tile = noise(1, it.tile, it.tile)
        return [tile, tile]
    side = -(-(it.tile + 2 * loaded.halo) // step) * step
    h = max(step, min(it.tile, 64) // step * step)
    small = [noise(1 if loaded.max_batch == 1 else 2, h, h + step)]
    if loaded.accepts_any_size and it.multiple_of > 1:
        small.append(noise(1, h + 1, h + step - 1))
    return [noise(1, side, side), *small]


def _matches_reference(network: Network, loaded: TorchNetwork, batch: Floats) -> bool:
    return outputs_agree(loaded.reference(batch), _run_or_nothing(network, batch))


def _run_or_nothing(network: Network, batch: Floats) -> Sequence[Floats]:
    """Return the outputs of a back end that is not validated yet; none if it fails."""
    try:
        return network._run(batch)
    except Exception:
        return []
