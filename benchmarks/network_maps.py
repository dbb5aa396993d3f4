"""Outputs of a bundle's networks over whole images, computed once and kept on disk.

Measurements over many images share them: the error of counts, their curve by scale, and the
predictions of a scout or scanner against those of ``main``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import (
    DeviceScheduler,
    InferencePipeline,
    InferenceRequest,
    LoadedModels,
    build_context,
    recommended_streams,
    run_plan,
)
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.geometry import Rect
from hrviewer.models import open_bundle
from hrviewer.paths import cache_folder
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import (
    Estimate,
    FeatureRequest,
    PatchRequest,
    PlanContext,
    Publish,
    Request,
    Response,
    get_strategy,
)
from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.tiling import batches, tiles

__all__ = ["NetworkMap", "NetworkMaps", "sum_blocks", "true_counts"]

Floats = NDArray[np.float64]

CELLS = {"head": 16, "transformer": 128}
"""Sides of cells where they are not those of the network's output: the largest tokens have 128."""

TILE = 1024
"""Side of the tiles, in model pixels: their predictions are those from the whole image."""


@dataclass(frozen=True, eq=False)
class NetworkMap:
    """A network's output over an image.

    Attributes
    ----------
    values : ndarray of float, shape (k, rows, columns)
        Sums in cells; with variances where the network predicts them.
    cell : int
        Side of a cell, level-0 pixels; the image's border cuts the last ones.
    """

    values: Floats
    cell: int


class NetworkMaps:
    """The networks of a bundle, and their outputs, kept in a folder.

    Parameters
    ----------
    model : str
        The bundle.
    folder : Path, optional
        Where outputs are kept; in the cache by default.
    """

    def __init__(self, model: str, folder: Path | None = None) -> None:
        self.model = model
        self.folder = folder or cache_folder() / "network-maps"
        self.device = DeviceScheduler(streams=recommended_streams())
        self.networks = LoadedModels(open_bundle(model), self.device, "cpu")

    @classmethod
    @contextmanager
    def open(cls, model: str, folder: Path | None = None) -> Iterator[NetworkMaps]:
        """Load a bundle's networks, and close their device afterwards."""
        maps = cls(model, folder)
        try:
            yield maps
        finally:
            maps.device.close()

    def of(self, pyramid: Pyramid, role: str = "main", scale: float = 1.0) -> NetworkMap:
        """Return a role's output over an image, in cells of its output or of 16 pixels.

        Parameters
        ----------
        pyramid : Pyramid
            The image.
        role : str
            The network.
        scale : float
            Factor to the scale of its training.
        """
        path = self._path(f"{pyramid.fingerprint} {self._digest(role)} {role} {scale:g}")
        if path.exists():
            with np.load(path) as stored:
                return NetworkMap(stored["values"].astype(float), int(stored["cell"]))
        found = self._compute(pyramid, role, scale)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, values=found.values.astype(np.float32), cell=found.cell)
        partial.replace(path)
        return found

    def _digest(self, role: str) -> str:
        """Return what identifies a network, without loading it.

        Fields that a later version adds to cards do not change it.
        """
        card = self.networks.bundle.roles[role]
        weights = card.sha256 or hash_file(self.networks.bundle.weights(role))
        fields = {"task", "input", "output", "architecture"}
        return f"{weights} {card.model_dump_json(include=fields, exclude_defaults=True)}"

    def _path(self, key: str) -> Path:
        """Return the file of what a key identifies."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def _compute(self, pyramid: Pyramid, role: str, scale: float) -> NetworkMap:
        context, _, _ = build_context(pyramid, self.networks, get_strategy("patches"))
        model, scale = context.models[role], context.scale_of(role) * scale
        cell = CELLS.get(role) or max(16, round(model.stride * scale))
        height, width = pyramid.plane_shape
        ys, xs = (np.array([*range(0, side, cell), side]) for side in (height, width))
        total = np.zeros((model.card.output_channels, len(ys) - 1, len(xs) - 1))

        def plan() -> Generator[Request, Response, Estimate]:
            if role == "head":
                return (yield from run_head(context, add))
            if role == "transformer":
                return (yield from run_transformer(context, cell, total))
            tile = model.card.input.tile if model.card.input.fixed else TILE
            for batch in batches(tiles(model, context.region, scale, tile=tile), 16):
                response = yield PatchRequest(role, batch)
                add(response)
            return Estimate(None)

        def add(response: Response) -> None:
            total[:] += resample_onto(response.results, ys, xs, context.rect)[: len(total)]

        pipeline = InferencePipeline(pyramid, self.networks, self.device, context.region)
        run_plan(plan(), pipeline, _NoSink())
        return NetworkMap(total, cell)


def watch(
    context: PlanContext, strategy_id: str, watcher: Callable[[Request, Response], None]
) -> Generator[Request, Response, Estimate]:
    """Run a strategy, and call a function with each request and its response."""
    strategy = get_strategy(strategy_id)
    plan = strategy.plan(context, strategy.choose(context, strategy.Params()))
    request = next(plan)
    while True:
        response = yield request
        watcher(request, response)
        try:
            request = plan.send(response)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def run_head(
    context: PlanContext, add: Callable[[Response], None]
) -> Generator[Request, Response, Estimate]:
    """Run `compression`, which has the embeddings that a head takes."""

    def watcher(request: Request, response: Response) -> None:
        if isinstance(request, FeatureRequest):
            add(response)

    return (yield from watch(context, "compression", watcher))


def run_transformer(
    context: PlanContext, cell: int, total: Floats
) -> Generator[Request, Response, Estimate]:
    """Run `transformer`, which selects tokens, and sum their last predictions in cells."""

    def watcher(request: Request, response: Response) -> None:
        if not (isinstance(request, PatchRequest) and request.role == "transformer"):
            return
        for result in response.results:
            core = result.patch.core
            if core.empty:  # context
                continue
            tokens[core] = np.asarray(result.value[: len(total)], float)
            y, x = core.y // (2 * core.h) * 2 * core.h, core.x // (2 * core.w) * 2 * core.w
            tokens.pop(Rect(y, x, 2 * core.h, 2 * core.w), None)  # it was split

    tokens: dict[Rect, Floats] = {}
    estimate = yield from watch(context, "transformer", watcher)
    for core, value in tokens.items():
        total[:, core.y // cell, core.x // cell] += value
    return estimate


class _NoSink:
    """Keeps nothing."""

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        return None

    def commit(
        self, number: int, name: str, request: InferenceRequest, results: Sequence[InferenceResult]
    ) -> None:
        """Keep nothing."""

    def restore(self, request: InferenceRequest, results: Sequence[InferenceResult]) -> None:
        """Keep nothing."""

    record_partial = restore

    def publish(self, publication: Publish) -> None:
        """Keep nothing."""


def hash_file(path: Path) -> str:
    """Return the hash of a file, as cards give it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def true_counts(pyramid: Pyramid, cell: int) -> Floats:
    """Return the true counts in cells of a synthetic image, ``(rows, columns)``."""
    truth = pyramid.ground_truth(pyramid.rect)
    assert truth is not None, f"{pyramid.name} has no ground truth"
    rows, columns = (-(-side // cell) for side in pyramid.plane_shape)
    index = (truth.points // cell).astype(int)
    counts = np.zeros((rows, columns))
    np.add.at(counts, (index[:, 0].clip(0, rows - 1), index[:, 1].clip(0, columns - 1)), 1)
    return counts


def sum_blocks(values: Floats, factor: int) -> Floats:
    """Sum a map over blocks of `factor` × `factor` cells; a smaller block may end each axis."""
    down = np.add.reduceat(values, np.arange(0, values.shape[-2], factor), axis=-2)
    return np.asarray(np.add.reduceat(down, np.arange(0, down.shape[-1], factor), axis=-1))
