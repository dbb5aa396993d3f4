"""Networks of a model bundle, loaded on the device when first used."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from hrviewer.engine.device_scheduler import DeviceScheduler, Priority
from hrviewer.engine.int8_calibration import calibration_tiles, prepare_patch
from hrviewer.errors import ModelError
from hrviewer.geometry import Rect
from hrviewer.models import BUILTINS, ModelBundle, Network, builtin
from hrviewer.models.loaders.kept_networks import keep_count
from hrviewer.models.network import Floats
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Strategy

__all__ = ["LoadedModels", "answering_network"]

log = logging.getLogger(__name__)

MISSING_ROLES = {
    "scanner": "a light network that predicts on every pixel what main does",
    "encoder": "which computes an embedding of each place",
    "head": "which predicts from embeddings (`hrviewer fit` trains one)",
    "transformer": "which takes patches as tokens",
    "resizer": "which downsamples an image for main",
    "policy": "which selects places",
}
"""What the networks of roles are for."""


class LoadedModels(Mapping[str, Network]):
    """Networks by role: a bundle's and the built-in ones, each loaded when first used.

    Parameters
    ----------
    bundle : ModelBundle
        The bundle that the networks are loaded from.
    device : DeviceScheduler
        Networks are loaded on its thread.
    device_name : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : str
        ``float32``, ``bfloat16`` or ``int8``. In int8 only ``main`` runs, and only on the image
        that it was calibrated on: see `for_image`. All other roles run in float32.

    Attributes
    ----------
    notes : list of str
        Substitutions that the user should know of.
    setup_s : float
        Seconds spent loading.
    calibrated : tuple of Rect
        Tiles of the image that ``main`` was calibrated on, for int8.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        device: DeviceScheduler,
        device_name: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.bundle, self.device = bundle, device
        self.device_name, self.precision = device_name, precision
        self.notes: list[str] = []
        self.setup_s = 0.0
        self.calibrated: tuple[Rect, ...] = ()
        self._loaded: dict[str, Network] = {}
        self._exact_halos: dict[str, int] = {}
        self._image_id = ""
        self._calibrated: LoadedModels | None = None

    def __getitem__(self, role: str) -> Network:
        if role not in self._loaded:
            start = time.perf_counter()
            network = self._loaded[role] = self._load(role)
            self.device.roles[id(network)] = role
            seconds = time.perf_counter() - start
            self.setup_s += seconds
            log.info("loaded %s as %s in %.2f s", network, role, seconds)
        return self._loaded[role]

    def __iter__(self) -> Iterator[str]:
        # There is always a scout: see `_load`.
        return iter(dict.fromkeys([*self.bundle.roles, "scout", *BUILTINS]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, role: object) -> bool:
        name = str(role).partition("/")[0]
        return name in self.bundle.roles or name == "scout" or name in BUILTINS

    def _load(self, role: str) -> Network:
        name, dense, k = role.partition("/")
        if dense:
            from hrviewer.models.shift_and_stitch import ShiftAndStitch

            return ShiftAndStitch(self[name], int(k))
        if role in BUILTINS:
            return builtin(role)
        if role == "scout" and role not in self.bundle.roles:
            substitute = (
                "@foreground" if "histology" in self.bundle.description.lower() else "@gradient"
            )
            self.notes.append(f"the model bundle has no scout: {substitute} is used instead")
            return builtin(substitute)
        if role not in self.bundle.roles:
            what = MISSING_ROLES.get(role, "")
            raise ModelError(
                f"the model bundle {self.bundle.name!r} has no network for the role {role!r}"
                f"{what and f', {what}'}; it has: {', '.join(self.bundle.roles)}. Give one as "
                f"main=MODEL,{role}=OTHER, train it (hrviewer distill, docs/training.md), or "
                "choose patches, uniform, zoom or nonuniform, which need main alone"
            )
        other_in_int8 = self.precision == "int8" and role != "main"
        return self._load_on_device(role, "float32" if other_in_int8 else self.precision)

    def for_image(self, pyramid: Pyramid) -> LoadedModels:
        """Return the networks for inference on an image: in int8, calibrated on it.

        In other precisions these are the same for all images. The last image's are kept.
        """
        image = f"{pyramid.image_key} {pyramid.given_range}"
        if self.precision != "int8" or self._image_id == image:
            return self
        if self._calibrated is None or self._calibrated._image_id != image:
            models = LoadedModels(self.bundle, self.device, self.device_name, self.precision)
            models._calibrate_on(pyramid)
            self._calibrated = models
        return self._calibrated

    def _calibrate_on(self, pyramid: Pyramid) -> None:
        start = time.perf_counter()
        float32 = self.in_float32()
        patches = calibration_tiles(pyramid, float32)
        samples = [prepare_patch(pyramid, float32, patch) for patch in patches]
        self._loaded["main"] = self._load_on_device("main", "int8", samples)
        self.calibrated = tuple(patch.core for patch in patches)
        self._image_id = f"{pyramid.image_key} {pyramid.given_range}"
        seconds = time.perf_counter() - start
        self.setup_s += seconds
        log.info("calibrated main for int8 on %d tiles in %.2f s", len(patches), seconds)

    def exact_halo(self, role: str) -> int:
        """Return the halo with which a role's tiles equal inference on the whole image.

        It is measured once; see `hrviewer.models.probe.measure_exact_halo`.
        """
        if role not in self._exact_halos:
            from hrviewer.models.probe import measure_exact_halo

            start, network = time.perf_counter(), self[role]
            key = "exact_halo", network.halo
            if key not in network.measurements:

                def measure() -> float:
                    job = self.device.call(partial(measure_exact_halo, network), Priority.LIVE)
                    return float(job.result().output)

                network.measurements[key] = int(
                    keep_count(network.facts_key, "exact halo", measure)
                )
            halo = self._exact_halos[role] = network.measurements[key]
            seconds = time.perf_counter() - start
            self.setup_s += seconds
            log.info("measured an exact halo of %d pixels for %s in %.2f s", halo, role, seconds)
        return self._exact_halos[role]

    def in_float32(self, role: str = "main") -> Network:
        """Return a role's network in float32, for comparison."""
        return self._load_on_device(role, "float32")

    def _load_on_device(self, role: str, precision: str, samples: Sequence[Floats] = ()) -> Network:
        def load() -> Network:
            if precision == "float32":  # a custom bundle need not support others
                network = self.bundle.load(role, self.device_name)
            elif samples:
                network = self.bundle.load(
                    role, self.device_name, precision=precision, samples=samples
                )
            else:
                network = self.bundle.load(role, self.device_name, precision=precision)
            self.notes += [note for note in network.notes if note not in self.notes]
            if role == "main":
                self.device.autotune_batch(network)
            return network

        network: Network = self.device.call(load, Priority.LIVE).result().output
        return network


def answering_network(models: LoadedModels, strategy: Strategy) -> Network:
    """Return the network whose card defines the classes and units of a strategy's estimate."""
    return models[strategy.answering_role(models.bundle.roles)]
