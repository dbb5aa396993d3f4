"""The inference pipeline: read, prepare, infer, postprocess.

One reader thread decodes and prepares at most a few batches ahead of the device, for patches as for
joint inputs (`joint_inference`); results are postprocessed on the caller's thread as they arrive. A
patch whose inference fails is reported and left blank.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Box
from hrviewer.engine.cost import Cost
from hrviewer.engine.device_scheduler import DeviceScheduler, Priority, TimedOutput
from hrviewer.engine.feature_inference import feature_flops, feature_grid
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.inference_result import InferenceResult, release_in_order
from hrviewer.engine.joint_inference import JointInference, TokenBatch
from hrviewer.engine.missing_data import (
    blank_missing,
    fill_missing,
    output_without_data,
    with_data,
)
from hrviewer.engine.model_infos import model_info
from hrviewer.engine.object_inference import object_result, shift_and_scale
from hrviewer.engine.postprocess import (
    as_box,
    crop,
    failed_result,
    map_kind,
    skipped_result,
    summarize_core,
)
from hrviewer.engine.preprocess import prepare_input, read_input, value_range
from hrviewer.engine.region_mask import masked_results
from hrviewer.engine.run_control import RunControl, RunStopped
from hrviewer.engine.token_inference import batch_groups
from hrviewer.errors import ParameterError
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.models.detection import Detections
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.area_read import Coverage
from hrviewer.regions import Region
from hrviewer.strategies import FeatureRequest, PatchRequest, WarpRequest, input_rect

__all__ = ["InferencePipeline", "InferenceRequest", "request_digest"]

InferenceRequest = PatchRequest | WarpRequest | FeatureRequest

log = logging.getLogger(__name__)

RESULT_VERSION = 10
"""Incremented when the same request would give another result."""

READ_AHEAD_BYTES = 64 << 20
"""Bytes of inputs on a CPU that may be read before they are needed, unless two are larger."""

REGION_INDEPENDENT = (None, "embeddings")
"""Targets whose results do not depend on the region: they are not part of the estimate."""


@dataclass(frozen=True, slots=True)
class _QueuedPatch:
    """A patch in the pipeline, with its input's rectangle and its cache key."""

    index: int
    patch: Patch
    rect: Rect
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class _ProcessedPatch:
    """A patch after reading, with the pending output or the error."""

    queued: _QueuedPatch
    cost: Cost
    outcome: Future[TimedOutput] | BaseException
    array: NDArray[np.float32] | None = None
    coverage: Coverage | None = None


class InferencePipeline(InferenceContext):
    """Runs the requests of a plan on one image.

    Parameters
    ----------
    pyramid, models, device, region, priority, mask
        See `InferenceContext`.
    cache : ResultCache, optional
        Results of earlier inference.
    control : RunControl
        Pauses and stops the run.
    focus : callable, optional
        Returns the view's centre, ``(y, x)``; the patches nearest to it are processed first.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        models: Mapping[str, Network],
        device: DeviceScheduler,
        region: Rect,
        *,
        cache: ResultCache | None = None,
        control: RunControl | None = None,
        priority: Priority = Priority.RUN,
        focus: Callable[[], tuple[float, float] | None] | None = None,
        mask: Region | None = None,
    ) -> None:
        super().__init__(pyramid, models, device, region, priority, mask)
        self.cache, self.control, self.focus = cache, control or RunControl(), focus
        self._joint = JointInference(self, self.control, cache, self._joint_key)

    def close(self) -> None:
        """End the thread that reads joint requests, and drop what it started."""
        self._joint.close()

    # Cost of a request, before it is run.

    def flops(self, request: InferenceRequest) -> list[float]:
        """Return the nominal FLOPs of each of a request's parts.

        The parts of a `PatchRequest` are its patches; tokens share their group's FLOPs evenly. Any
        other request is one part.
        """
        network = self.models[request.role]
        if isinstance(request, WarpRequest):
            return [network.flops(*request.shape)]
        if isinstance(request, FeatureRequest):
            return [feature_flops(network, request, feature_grid(request, network).shape)]
        if request.group is not None:
            sizes = Counter(request.group)
            costs = {g: network.token_flops(n, request.merge) / n for g, n in sizes.items()}
            return [costs[g] for g in request.group]
        return [
            0.0
            if self._is_outside(request, patch)
            else network.flops(*self._input_shape(request.role, rect, patch.scale))
            for patch, rect in self._clip(request)
        ]

    def _is_outside(self, request: PatchRequest, patch: Patch) -> bool:
        """Return whether nothing of a patch counts, so that it needs no inference."""
        if self.mask is None or request.target in REGION_INDEPENDENT:
            return False
        return not self.mask.touches(patch.core)

    def run(
        self, request: InferenceRequest, following: WarpRequest | None = None
    ) -> Iterator[tuple[int, InferenceResult]]:
        """Run inference for a request.

        Parameters
        ----------
        request
            The request.
        following
            The warp that is requested next: it is read and given to the device meanwhile.

        Yields
        ------
        index : int
            Index of the patch in the request.
        result : InferenceResult
            Its result; in order of arrival, or in the given order for ``order="given"``.

        Raises
        ------
        RunStopped
            If the user stopped the run.
        """
        results = self._run_unmasked(request, following)
        if self.mask is None or request.target in REGION_INDEPENDENT:
            return results
        card, saliency = self.models[request.role].card, request.target == "saliency"
        return masked_results(results, card, self.mask, self.pyramid.rect, saliency=saliency)

    def _run_unmasked(
        self, request: InferenceRequest, following: WarpRequest | None
    ) -> Iterator[tuple[int, InferenceResult]]:
        """Run inference for a request; its results also count what lies outside the mask."""
        if not isinstance(request, PatchRequest):
            return self._joint.run(request, [[[0]]], following)
        if request.group is not None:
            return self._joint.run(request, batch_groups(request))
        patches = self._clip(request)
        outside = {i for i, (patch, _) in enumerate(patches) if self._is_outside(request, patch)}
        results = self._run_patches(request.role, patches, outside)
        if request.target in REGION_INDEPENDENT and self.cache is not None:
            # Other runs may make the same request: it is computed once.
            key = self._hash(self.models[request.role], request.role, request_digest(request))
            results = self._run_once(self.cache, key, results)
        # Several patches run at once; only for a view are results released as they arrive.
        in_order = request.order == "given" or self.focus is None
        return release_in_order(results) if in_order else results

    def mark_as_read(self, result: InferenceResult) -> None:
        """Count the tiles of a result that needs no reading as already read."""
        if result.role in self.models:
            rect = self._input_rect(result.role, result.patch) & self.pyramid.rect
            if not rect.empty:
                self.meter.mark_paid(self.pyramid.tiles(rect, result.patch.scale))

    def _run_once(
        self, cache: ResultCache, key: str, results: Iterator[tuple[int, InferenceResult]]
    ) -> Iterator[tuple[int, InferenceResult]]:
        with cache.single_flight(key, self.control):
            yield from results

    def _clip(self, request: PatchRequest) -> list[tuple[Patch, Rect]]:
        """Return the patches with their cores clipped, and the rectangles of their inputs.

        Cores are clipped to the region, if they count for it. Where predictions depend on how an
        image is cut into tiles, the input remains that of the whole core. A core that does not fit
        an input of a fixed size is refused: no pixel is left out.
        """
        within = self.pyramid.rect if request.target in REGION_INDEPENDENT else self.region
        card = self.models[request.role].card
        found = []
        for patch in request.patches:
            clipped = replace(patch, core=patch.core & within)
            whole = patch if card.input.fixed or card.detects else clipped
            found.append((clipped, self._input_rect(request.role, whole)))
        for patch, rect in found if card.input.fixed else ():
            if patch.core not in rect:
                raise ParameterError(
                    f"{card.name} takes {card.input.tile} pixels a side only, but a patch has "
                    f"{patch.core.h} × {patch.core.w} at a scale of {patch.scale:g} with a halo "
                    f"of {patch.halo}: choose a smaller halo, or smaller patches"
                )
        return found

    # Patches that are separate inputs.

    def _run_patches(
        self, role: str, patches: Sequence[tuple[Patch, Rect]], outside: Container[int] = ()
    ) -> Iterator[tuple[int, InferenceResult]]:
        network = self.models[role]
        todo: list[_QueuedPatch] = []
        for index, (patch, rect) in enumerate(patches):
            if index in outside:
                yield index, skipped_result(patch, role, network.card)
                continue
            queued = _QueuedPatch(index, patch, rect, self._cache_key(network, role, patch, rect))
            cached = self.cache.get(queued.key) if self.cache else None
            if cached:
                self.mark_as_read(cached[0])
                yield index, cached[0]
            else:
                todo.append(queued)
        centre = self.focus() if self.focus else None
        if centre is not None:
            todo.sort(key=lambda queued: math.dist(queued.patch.core.center, centre))
        abandoned = threading.Event()
        ready: SimpleQueue[_ProcessedPatch] = SimpleQueue()
        room = threading.Semaphore(self._read_ahead_count(role, todo))
        reader = threading.Thread(
            target=self._read_ahead,
            args=(network, todo, ready, room, abandoned),
            name="hrviewer-reader",
            daemon=True,
        )
        reader.start()
        try:
            for _ in todo:
                processed = ready.get()
                if isinstance(processed.outcome, RunStopped):
                    raise processed.outcome
                result = self._collect(network, role, processed)
                room.release()
                if self.cache:
                    self.cache.put(processed.queued.key, [result])
                yield processed.queued.index, result
                if not self.control.wait():
                    raise RunStopped
        finally:
            abandoned.set()
            room.release(len(todo) + 1)
            reader.join()
            while not ready.empty():
                pending = ready.get().outcome
                if isinstance(pending, Future):
                    pending.cancel()

    def _read_ahead_count(self, role: str, todo: Sequence[_QueuedPatch]) -> int:
        """Return how many inputs may be read before they are needed."""
        count = 2 * self.device.in_flight + 2
        if self.models[role].device != "cpu" or not todo:
            return count
        shapes = (self._input_shape(role, each.rect, each.patch.scale) for each in todo)
        nbytes = 4 * self.models[role].card.input.channel_count * max(map(math.prod, shapes))
        return max(2, min(count, READ_AHEAD_BYTES // nbytes))

    def _read_ahead(
        self,
        network: Network,
        todo: Sequence[_QueuedPatch],
        ready: SimpleQueue[_ProcessedPatch],
        room: threading.Semaphore,
        abandoned: threading.Event,
    ) -> None:
        """Read and prepare inputs, a few batches ahead of the device."""
        for queued in todo:
            room.acquire()
            if abandoned.is_set() or not self.control.wait():
                ready.put(_ProcessedPatch(queued, Cost(), RunStopped()))
                return
            cost = Cost()
            try:
                start = time.perf_counter()
                with self.meter.measure() as reading:
                    pixels, coverage = read_input(
                        self.pyramid, network.card, queued.rect, queued.patch.scale, self.meter
                    )
                cost = Cost(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
                start = time.perf_counter()
                shape = network.card.input.channel_count, *pixels.shape[:2]
                array = prepare_input(
                    self.pyramid, network.card, pixels, self.device.buffers.acquire(shape)
                )
                fill_missing(network.card, array, coverage)
                cost = replace(cost, prepare_s=time.perf_counter() - start)
                if coverage is not None and not coverage.any():
                    self.device.buffers.release(array)
                    empty: Future[TimedOutput] = Future()
                    empty.set_result(TimedOutput(output_without_data(network, shape[1:]), 0.0))
                    ready.put(_ProcessedPatch(queued, cost, empty, None, coverage))
                    continue
                future = self.device.submit(network, array, self.priority)
            except Exception as error:
                ready.put(_ProcessedPatch(queued, cost, error))
                continue
            cost = replace(cost, flops=network.flops(*array.shape[1:]))
            future.add_done_callback(partial(_enqueue_result, ready, queued, cost, array, coverage))

    def _collect(
        self,
        network: Network,
        role: str,
        processed: _ProcessedPatch,
    ) -> InferenceResult:
        """Postprocess an output into a patch's result."""
        queued, cost = processed.queued, processed.cost
        try:
            if isinstance(processed.outcome, BaseException):
                raise processed.outcome
            timed = processed.outcome.result()
            start = time.perf_counter()
            cost = replace(cost, infer_s=timed.seconds)
            if isinstance(timed.output, Detections):
                result = self._locate_objects(network, role, timed.output, processed)
                return replace(result, cost=replace(cost, post_s=time.perf_counter() - start))
            whole = np.asarray(timed.output, np.float32)
            output, box = self._crop_output(network, queued, whole)
            if not np.isfinite(output).all():
                raise ValueError("the network's output is not finite here")
            if processed.coverage is not None:
                whole = blank_missing(whole, processed.coverage, network.stride)
                output, box = self._crop_output(network, queued, whole)
            if processed.array is not None and not np.may_share_memory(output, processed.array):
                self.device.buffers.release(processed.array)
            if network.card.task == "embedding":
                # Rounded first, so that fresh and stored embeddings give the same results.
                output = output.astype(np.float16)
            value = summarize_core(network.card, output, box, queued.patch.core, self.pyramid.rect)
            if not np.isfinite(value).all():
                raise ValueError("the network's output is not finite here")
        except CancelledError:
            raise RunStopped from None
        except Exception as error:
            log.debug("inference failed at %s", queued.patch.core, exc_info=True)
            return failed_result(queued.patch, role, cost, network.card.output_channels, error)
        cost = replace(cost, post_s=time.perf_counter() - start)
        return InferenceResult(queued.patch, role, value, output, box, cost)

    def _locate_objects(
        self, network: Network, role: str, found: Detections, processed: _ProcessedPatch
    ) -> InferenceResult:
        """Return a detector's result; objects whose center has no data are left out."""
        queued, coverage = processed.queued, processed.coverage
        if coverage is not None:
            found = with_data(found, coverage)
        result = object_result(
            found,
            shift_and_scale(queued.rect, queued.patch.scale),
            as_box(queued.rect),
            network.stride * queued.patch.scale,
            queued.patch,
            role,
            network.card,
            self.pyramid.rect,
        )
        if coverage is None:
            return result
        y, x = result.box[:2]
        corner = (y - queued.rect.y) / queued.patch.scale, (x - queued.rect.x) / queued.patch.scale
        counts = np.asarray(result.map, np.float32)
        return replace(result, map=blank_missing(counts, coverage, network.stride, corner))

    def _crop_output(
        self, network: Network, queued: _QueuedPatch, output: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating[Any]], Box]:
        """Return the part of an output that covers the core, and its box."""
        _, rows, columns = output.shape
        if rows == columns == 1 and (network.card.averaged or network.card.task == "embedding"):
            box = as_box(queued.rect)
        else:
            cell = network.stride * queued.patch.scale
            box = (float(queued.rect.y), float(queued.rect.x), rows * cell, columns * cell)
        kind = map_kind(network.card)
        return crop(output, box, queued.patch.core, self.pyramid.rect, kind)

    # Keys of results in the cache.

    def _input_rect(self, role: str, patch: Patch) -> Rect:
        return input_rect(model_info(self.models[role]), patch, self.pyramid.rect)

    def _input_shape(self, role: str, rect: Rect, scale: float) -> tuple[int, int]:
        if self.models[role].card.input.fixed:
            tile = self.models[role].card.input.tile
            return tile, tile
        return math.ceil(rect.h / scale - 1e-9), math.ceil(rect.w / scale - 1e-9)

    def _joint_key(self, request: InferenceRequest, groups: TokenBatch) -> str:
        digest = request_digest(request)
        return self._hash(self.models[request.role], request.role, self.region, digest, groups)

    def _cache_key(self, network: Network, role: str, patch: Patch, rect: Rect) -> str:
        return self._hash(
            network, role, rect.astuple(), patch.core.astuple(), patch.scale, patch.halo
        )

    def _hash(self, network: Network, *parts: object) -> str:
        everything = (
            RESULT_VERSION,
            self.pyramid.image_key,
            network.digest,
            network.backend,
            network.device,
            network.precision,
            value_range(network.card, self.pyramid),
            self.device.batch,
            self.device.streams,
            *parts,
        )
        return hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest()


def _enqueue_result(
    ready: SimpleQueue[_ProcessedPatch],
    queued: _QueuedPatch,
    cost: Cost,
    array: NDArray[np.float32],
    coverage: Coverage | None,
    done: Future[TimedOutput],
) -> None:
    ready.put(_ProcessedPatch(queued, cost, done, array, coverage))


def request_digest(request: InferenceRequest) -> str:
    """Return a hash of a request."""
    hasher = hashlib.blake2b(digest_size=16)
    if isinstance(request, PatchRequest):
        hasher.update(repr(request).encode())
    elif isinstance(request, WarpRequest):
        geometry = request.rect, request.core, request.shape, request.grid.shape
        parts = (request.role, *geometry, request.target)
        hasher.update(repr(parts).encode() + np.ascontiguousarray(request.grid).tobytes())
    else:
        boxes = [(result.patch, *map(float, result.box)) for result in request.results]
        options = request.region, request.target, request.attribution
        hasher.update(repr((request.role, boxes, options)).encode())
        for result in request.results:
            hasher.update(np.ascontiguousarray(result.map).tobytes())
    return hasher.hexdigest()
