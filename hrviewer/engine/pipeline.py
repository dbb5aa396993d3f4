"""Looking: read, prepare, infer, and what comes out.

One reader thread decodes and prepares ahead of the device, a few batches at most; results are
finished on the caller's thread as they come. A look that fails is reported and left blank.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Box
from hrviewer.engine.cost import Cost
from hrviewer.engine.device_scheduler import DeviceScheduler, Priority, TimedOutput
from hrviewer.engine.feature_inference import feature_flops, feature_grid, run_on_features
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.postprocess import as_box, crop, failed_result, map_kind, summarize_core
from hrviewer.engine.run_control import RunControl, RunStopped
from hrviewer.engine.token_inference import batch_groups, infer_tokens
from hrviewer.engine.warp_inference import infer_warped
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import FeatureRequest, ModelInfo, PatchRequest, WarpRequest, input_rect

__all__ = ["InferencePipeline", "model_info"]

RESULT_VERSION = 6
"""Raised when the same request would give another result."""

REGION_INDEPENDENT = (None, "embeddings")
"""What a look paints that is not the run's answer: it is the same whatever the region."""


@dataclass(frozen=True, slots=True)
class _QueuedPatch:
    """A patch on its way through the pipeline."""

    index: int
    patch: Patch
    rect: Rect
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class _ProcessedPatch:
    """What became of it: what the network said, or why it was not asked."""

    queued: _QueuedPatch
    cost: Cost
    outcome: Future[TimedOutput] | BaseException
    array: NDArray[np.float32] | None = None


class InferencePipeline(InferenceContext):
    """The eyes of one run.

    Parameters
    ----------
    pyramid, networks, device, region, priority
        See `Sight`.
    cache : ResultCache, optional
        What was seen before.
    control : Control
        Pause and stop.
    focus : callable, optional
        The view's centre, ``(y, x)``; patches nearest to it are looked at first.
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
    ) -> None:
        super().__init__(pyramid, models, device, region, priority)
        self.cache, self.control, self.focus = cache, control or RunControl(), focus

    # What a request costs, before it is paid.

    def flops(self, request: PatchRequest | WarpRequest | FeatureRequest) -> list[float]:
        """Return the nominal FLOPs of a request's parts, which can be paid one by one.

        Patches of a look are parts, unless they are tokens of one input: then the part that
        holds the group's last token carries the cost.
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
            network.flops(
                *self._input_shape(request.role, self._input_rect(request.role, patch), patch.scale)
            )
            for patch in self._clip(request)
        ]

    def run(
        self, request: PatchRequest | WarpRequest | FeatureRequest
    ) -> Iterator[tuple[int, InferenceResult]]:
        """Carry a request out.

        Yields
        ------
        index : int
            Which patch, in the order asked.
        seen : Seen
            What it gave; as it comes, or as prefixes for ``order="given"``.

        Raises
        ------
        Stopped
            If the person stopped the run.
        """
        if not isinstance(request, PatchRequest):
            return self._run_jointly([[[0]]], request)
        if request.group is not None:
            return self._run_jointly(batch_groups(request), request)
        seen = self._run_patches(request.role, self._clip(request))
        if request.target in REGION_INDEPENDENT and self.cache is not None:
            # What is no answer may be what other runs ask for, too: it is computed once.
            key = self._hash(self.models[request.role], request.role, request_digest(request))
            seen = self._run_once(self.cache, key, seen)
        # Several are run at once; but for a view, whose middle comes first, they come as asked.
        return release_in_order(seen) if request.order == "given" or self.focus is None else seen

    def mark_as_read(self, result: InferenceResult) -> None:
        """Remember that a look of an earlier session has already paid for its tiles."""
        if result.role in self.models:
            rect = self._input_rect(result.role, result.patch) & self.pyramid.rect
            if not rect.empty:
                self.meter.mark_paid(self.pyramid.tiles(rect, result.patch.scale))

    def _run_once(
        self, cache: ResultCache, key: str, results: Iterator[tuple[int, InferenceResult]]
    ) -> Iterator[tuple[int, InferenceResult]]:
        with cache.single_flight(key, self.control):
            yield from results

    def _clip(self, request: PatchRequest) -> list[Patch]:
        """Return patches with the cores that are answered for: what answers, in the region."""
        within = self.pyramid.rect if request.target in REGION_INDEPENDENT else self.region
        return [replace(patch, core=patch.core & within) for patch in request.patches]

    # One round of patches, each an input of its own.

    def _run_patches(
        self, role: str, patches: Sequence[Patch]
    ) -> Iterator[tuple[int, InferenceResult]]:
        network = self.models[role]
        todo: list[_QueuedPatch] = []
        for index, patch in enumerate(patches):
            rect = self._input_rect(role, patch)
            asked = _QueuedPatch(index, patch, rect, self._cache_key(network, role, patch, rect))
            found = self.cache.get(asked.key) if self.cache else None
            if found:
                self.mark_as_read(found[0])
                yield index, found[0]
            else:
                todo.append(asked)
        centre = self.focus() if self.focus else None
        if centre is not None:
            todo.sort(key=lambda asked: math.dist(asked.patch.core.center, centre))
        abandoned = threading.Event()
        ready: SimpleQueue[_ProcessedPatch] = SimpleQueue()
        room = threading.Semaphore(2 * self.device.batch * self.device.streams + 2)
        reader = threading.Thread(
            target=self._read_ahead,
            args=(network, todo, ready, room, abandoned),
            name="hrviewer-reader",
            daemon=True,
        )
        reader.start()
        try:
            for _ in todo:
                looked = ready.get()
                if isinstance(looked.outcome, RunStopped):
                    raise looked.outcome
                seen = self._collect(network, role, looked)
                room.release()
                if self.cache:
                    self.cache.put(looked.queued.key, [seen])
                yield looked.queued.index, seen
                if not self.control.wait():
                    raise RunStopped
        finally:
            abandoned.set()
            room.release(len(todo) + 1)
            reader.join()
            while not ready.empty():
                left = ready.get().outcome
                if isinstance(left, Future):
                    left.cancel()

    def _read_ahead(
        self,
        network: Network,
        todo: Sequence[_QueuedPatch],
        ready: SimpleQueue[_ProcessedPatch],
        room: threading.Semaphore,
        abandoned: threading.Event,
    ) -> None:
        """Read and prepare, ahead of the device by a few batches."""
        for asked in todo:
            room.acquire()
            if abandoned.is_set() or not self.control.wait():
                ready.put(_ProcessedPatch(asked, Cost(), RunStopped()))
                return
            charge = Cost()
            try:
                start = time.perf_counter()
                with self.meter.measure() as reading:
                    pixels = self._read(network, asked)
                charge = Cost(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
                start = time.perf_counter()
                shape = network.card.input.channel_count, *pixels.shape[:2]
                array = network.card.prepare(pixels, self.device.buffers.acquire(shape))
                charge = replace(charge, prepare_s=time.perf_counter() - start)
                future = self.device.submit(network, array, self.priority)
            except Exception as error:
                ready.put(_ProcessedPatch(asked, charge, error))
                continue
            charge = replace(charge, flops=network.flops(*array.shape[1:]))
            future.add_done_callback(partial(_enqueue_result, ready, asked, charge, array))

    def _read(self, network: Network, queued: _QueuedPatch) -> NDArray[Any]:
        """Read a patch's input; what a fixed size asks for beyond the image is reflected."""
        fill: Literal["reflect"] | None = None if queued.rect in self.pyramid.rect else "reflect"
        pixels: NDArray[Any] = self.pyramid.read(
            queued.rect,
            queued.patch.scale,
            fill=fill,
            meter=self.meter,
        )
        if network.card.input.fixed:
            pixels = pixels[: network.card.input.tile, : network.card.input.tile]
        return pixels

    def _collect(
        self,
        network: Network,
        role: str,
        processed: _ProcessedPatch,
    ) -> InferenceResult:
        """Turn an output into what the core was seen to hold."""
        asked, charge = processed.queued, processed.cost
        try:
            if isinstance(processed.outcome, BaseException):
                raise processed.outcome
            result = processed.outcome.result()
            start = time.perf_counter()
            charge = replace(charge, infer_s=result.seconds)
            output, box = self._crop_output(network, asked, np.asarray(result.output, np.float32))
            if processed.array is not None and not np.may_share_memory(output, processed.array):
                self.device.buffers.release(processed.array)
            if network.card.task == "embedding":
                # Fresh or kept, the same: rounded before anything is made of them.
                output = output.astype(np.float16)
            value = summarize_core(network.card, output, box, asked.patch.core, self.pyramid.rect)
            if not np.isfinite(value).all():
                raise ValueError("the network's output is not finite here")
        except CancelledError:
            raise RunStopped from None
        except Exception as error:
            return failed_result(asked.patch, role, charge, network.card.output_channels, error)
        charge = replace(charge, post_s=time.perf_counter() - start)
        return InferenceResult(asked.patch, role, value, output, box, charge)

    def _crop_output(
        self, network: Network, queued: _QueuedPatch, output: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating[Any]], Box]:
        """Return the part of an output that speaks of the core, and what it covers."""
        _, rows, columns = output.shape
        if rows == columns == 1 and network.card.task in ("classification", "embedding"):
            box = as_box(queued.rect)
        else:
            cell = network.stride * queued.patch.scale
            box = (float(queued.rect.y), float(queued.rect.x), rows * cell, columns * cell)
        kind = map_kind(network.card)
        return crop(output, box, queued.patch.core, self.pyramid.rect, kind)

    # Requests whose parts belong together.

    def _run_jointly(
        self, batches: list[list[list[int]]], request: PatchRequest | WarpRequest | FeatureRequest
    ) -> Iterator[tuple[int, InferenceResult]]:
        network = self.models[request.role]
        for groups in batches:
            key = self._hash(network, request.role, self.region, request_digest(request), groups)
            found = self.cache.get(key) if self.cache else None
            if found is None:
                if isinstance(request, PatchRequest):
                    found = infer_tokens(self, network, request, groups)
                elif isinstance(request, WarpRequest):
                    found = infer_warped(self, network, request)
                else:
                    found = run_on_features(self, network, request)
                if self.cache:
                    self.cache.put(key, found)
            yield from zip(chain.from_iterable(groups), found, strict=True)
            if not self.control.wait():
                raise RunStopped

    # Names of results.

    def _input_rect(self, role: str, patch: Patch) -> Rect:
        return input_rect(model_info(self.models[role]), patch, self.pyramid.rect)

    def _input_shape(self, role: str, rect: Rect, scale: float) -> tuple[int, int]:
        if self.models[role].card.input.fixed:
            tile = self.models[role].card.input.tile
            return tile, tile
        return math.ceil(rect.h / scale - 1e-9), math.ceil(rect.w / scale - 1e-9)

    def _cache_key(self, network: Network, role: str, patch: Patch, rect: Rect) -> str:
        return self._hash(
            network, role, rect.astuple(), patch.core.astuple(), patch.scale, patch.halo
        )

    def _hash(self, network: Network, *parts: object) -> str:
        everything = (
            RESULT_VERSION,
            self.pyramid.levels[0].image_key,
            network.digest,
            network.backend,
            network.device,
            network.precision,
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
    done: Future[TimedOutput],
) -> None:
    ready.put(_ProcessedPatch(queued, cost, done, array))


def model_info(network: Network) -> ModelInfo:
    """Return what a policy may know of a network."""
    return ModelInfo(
        network.card,
        network.stride,
        network.halo,
        network.flops,
        network.period,
        token_flops=network.token_flops if network.accepts_tokens else None,
        has_attribution=network.has_attribution,
    )


def release_in_order(
    results: Iterator[tuple[int, InferenceResult]],
) -> Iterator[tuple[int, InferenceResult]]:
    """Hold results back until all before them have come."""
    waiting: dict[int, InferenceResult] = {}
    following = 0
    for index, look in results:
        waiting[index] = look
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def request_digest(request: PatchRequest | WarpRequest | FeatureRequest) -> str:
    """Return a hash of what is asked."""
    hasher = hashlib.blake2b(digest_size=16)
    if isinstance(request, PatchRequest):
        hasher.update(repr(request).encode())
    elif isinstance(request, WarpRequest):
        where = request.rect, request.core, request.shape, request.grid.shape
        parts = (request.role, *where, request.target)
        hasher.update(repr(parts).encode() + np.ascontiguousarray(request.grid).tobytes())
    else:
        places = [(handle.patch, *map(float, handle.box)) for handle in request.results]
        how = request.region, request.target, request.attribution
        hasher.update(repr((request.role, places, how)).encode())
        for handle in request.results:
            hasher.update(np.ascontiguousarray(handle.map).tobytes())
    return hasher.hexdigest()
