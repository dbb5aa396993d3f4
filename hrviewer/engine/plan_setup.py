"""Bringing an image, a pack and a strategy together, before anything is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hrviewer.engine.budget import Budget
from hrviewer.engine.device_scheduler import DeviceScheduler, Priority
from hrviewer.engine.int8_calibration import calibration_tiles, prepare_patch
from hrviewer.engine.pipeline import model_info
from hrviewer.engine.priors import Priors, validate_priors
from hrviewer.engine.roles import native_scale
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import BUILTINS, ModelBundle, Network, builtin
from hrviewer.models.network import Floats
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import ModelInfo, PlanContext, Strategy

__all__ = ["LoadedModels", "answering_network", "build_context"]


class LoadedModels(Mapping[str, Network]):
    """A pack's networks and the built-in roles, loaded when first asked for.

    Parameters
    ----------
    bundle : Pack
        Where the networks are.
    device : Device
        Networks are loaded on its thread.
    device_name : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : str
        ``float32``, ``bfloat16`` or ``int8``. In eight bits only ``main`` runs, and only on the
        image that it was calibrated on: see `for_image`. All others run in float32.

    Attributes
    ----------
    notes : list of str
        What stood in for what.
    setup_s : float
        Seconds spent loading.
    calibrated : tuple of Rect
        Where the image was looked at to calibrate ``main``.
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
        self._receptive_fields: dict[str, int] = {}
        self._image_id = ""
        self._calibrated: LoadedModels | None = None

    def __getitem__(self, role: str) -> Network:
        if role not in self._loaded:
            start = time.perf_counter()
            self._loaded[role] = self._load(role)
            self.setup_s += time.perf_counter() - start
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
            stand_in = (
                "@foreground" if "histology" in self.bundle.description.lower() else "@gradient"
            )
            self.notes.append(f"the pack has no scout: {stand_in} stands in for it")
            return builtin(stand_in)
        if role not in self.bundle.roles:
            raise HrviewerError(
                f"the pack {self.bundle.name!r} has no network for the role {role!r}; it has: "
                f"{', '.join(self.bundle.roles)}. Choose a strategy that needs only these"
            )
        eight = self.precision == "int8" and role != "main"
        return self._load_on_device(role, "float32" if eight else self.precision)

    def for_image(self, pyramid: Pyramid) -> LoadedModels:
        """Return the networks that look at an image: these, or in eight bits those made for it.

        The last image's are kept.
        """
        image = pyramid.levels[0].image_key
        if self.precision != "int8" or self._image_id == image:
            return self
        if self._calibrated is None or self._calibrated._image_id != image:
            here = LoadedModels(self.bundle, self.device, self.device_name, self.precision)
            here._calibrate_on(pyramid)
            self._calibrated = here
        return self._calibrated

    def _calibrate_on(self, pyramid: Pyramid) -> None:
        start = time.perf_counter()
        exact = self.in_float32()
        patches = calibration_tiles(pyramid, exact)
        samples = [prepare_patch(pyramid, exact, patch) for patch in patches]
        self._loaded["main"] = self._load_on_device("main", "int8", samples)
        self.calibrated = tuple(patch.core for patch in patches)
        self._image_id = pyramid.levels[0].image_key
        self.setup_s += time.perf_counter() - start

    def receptive_field(self, role: str) -> int:
        """Return the context with which a role's tiles join exactly; see `measure_sight`."""
        if role not in self._receptive_fields:
            from hrviewer.models.probe import measure_exact_halo

            start, network = time.perf_counter(), self[role]
            job = self.device.call(partial(measure_exact_halo, network), Priority.LIVE)
            self._receptive_fields[role] = job.result().output
            self.setup_s += time.perf_counter() - start
        return self._receptive_fields[role]

    def in_float32(self, role: str = "main") -> Network:
        """Return a role's network in float32, to compare with."""
        return self._load_on_device(role, "float32")

    def _load_on_device(self, role: str, precision: str, samples: Sequence[Floats] = ()) -> Network:
        def load() -> Network:
            if precision == "float32":  # a pack of one's own need not know of others
                network = self.bundle.load(role, self.device_name)
            elif samples:
                network = self.bundle.load(
                    role, self.device_name, precision=precision, samples=samples
                )
            else:
                network = self.bundle.load(role, self.device_name, precision=precision)
            if role == "main":
                self.device.autotune_batch(network)
            return network

        network: Network = self.device.call(load, Priority.LIVE).result().output
        return network


class _ModelInfos(Mapping[str, ModelInfo]):
    """The same, as policies see them."""

    def __init__(self, models: LoadedModels) -> None:
        self._models = models

    def __getitem__(self, role: str) -> ModelInfo:
        sight = partial(self._models.receptive_field, role)
        return replace(model_info(self._models[role]), measure_halo=sight)

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, role: object) -> bool:
        return role in self._models


def answering_network(models: LoadedModels, strategy: Strategy) -> Network:
    """Return the network whose card says what a strategy's answer means."""
    return models[strategy.answering_role(models.bundle.roles)]


def build_context(
    pyramid: Pyramid,
    models: LoadedModels,
    strategy: Strategy,
    *,
    region: Rect | None = None,
    budget: Budget | None = None,
    rate: float | None = None,
    seed: int = 0,
    priors: Priors | None = None,
) -> tuple[PlanContext, list[str], float | None]:
    """Say what a policy may know, and load what it needs.

    Parameters
    ----------
    pyramid, networks, strategy
        What was chosen.
    region : Rect, optional
        The part to answer for; the whole image by default. Clipped to the image.
    budget : Budget, optional
        The strategy's default otherwise.
    rate : float, optional
        FLOPs per second, when resuming a run that measured it.
    seed : int
        Of whatever the policy draws at random.
    priors : mapping, optional
        What the person drew, or what earlier runs saw, over the whole image.

    Returns
    -------
    scene : Scene
    notes : list of str
        What a person should know.
    rate : float or None
        The rate that a budget in seconds was taken by.

    Raises
    ------
    UserError
        If the region misses the image, the pack lacks a role or the strategy takes no such hint.
    """
    clipped = pyramid.rect if region is None else region & pyramid.rect
    if clipped.empty:
        raise HrviewerError(
            f"the region {region.astuple() if region else ()} (y, x, h, w) lies outside the image "
            f"of {pyramid.shape[0]} × {pyramid.shape[1]} pixels"
        )
    for role in strategy.roles:
        models[role]
    main = model_info(models["main"])
    scale, note = native_scale(main.card, pyramid)
    notes = [*pyramid.notes, *models.notes, *([note] if note else [])]

    def measured() -> float:
        nonlocal rate
        if rate is None:
            rate = measure_flops_rate(models["main"], models.device)
        return rate

    whole = main.flops_per_pixel() * clipped.area / scale**2
    if budget is not None:
        flops = budget.flops(main, measured, whole)
    elif strategy.default_budget is not None:
        tile = main.card.input.tile
        few = strategy.default_tiles * main.flops(tile, tile)
        flops = max(strategy.default_budget * whole, min(few, whole))
    else:
        flops = math.inf
    scene = PlanContext(
        shape=pyramid.shape,
        downsamples=tuple(level.downsample[0] for level in pyramid.levels),
        pixel_size=pyramid.pixel_size,
        region=clipped,
        native_scale=scale,
        models=_ModelInfos(models),
        budget=flops,
        seed=seed,
        priors=validate_priors(strategy, priors),
        pixel_bytes=pyramid.channels * pyramid.dtype.itemsize,
    )
    return scene, notes, rate


def measure_flops_rate(network: Network, device: DeviceScheduler, times: int = 3) -> float:
    """Return the FLOPs per second that the device does with this network's tiles."""
    tile = network.card.input.tile
    channels = {"gray": 1, "rgb": 3, "bgr": 3}.get(
        str(network.card.input.channels), network.card.input.channels
    )
    array = np.zeros((int(channels), tile, tile), np.float32)
    spent = []
    for _ in range(times + 1):
        jobs = [device.submit(network, array) for _ in range(device.streams)]
        spent.append(sum(job.result().seconds for job in jobs) / device.streams)
    return network.flops(tile, tile) / min(spent[1:])
