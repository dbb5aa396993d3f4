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
from hrviewer.engine.cost import Charge
from hrviewer.engine.device_scheduler import Device, Inferred, Priority
from hrviewer.engine.feature_inference import spanned, think, thinking
from hrviewer.engine.inference_context import Sight
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.postprocess import answer, as_box, crop, failed, kind_of
from hrviewer.engine.run_control import Control, Stopped
from hrviewer.engine.token_inference import packs, see_tokens
from hrviewer.engine.warp_inference import see_warped
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Look, Role, Think, Warp, input_rect

__all__ = ["Looker", "role_of"]

VERSION = 5
"""Raised when the same request would give another result."""

SHARED = (None, "codes")
"""What a look paints that is not the run's answer: it is the same whatever the region."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A patch on its way through the pipeline."""

    index: int
    patch: Patch
    rect: Rect
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """What became of it: what the network said, or why it was not asked."""

    asked: _Asked
    charge: Charge
    inferred: Future[Inferred] | BaseException
    array: NDArray[np.float32] | None = None


class Looker(Sight):
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
        networks: Mapping[str, Network],
        device: Device,
        region: Rect,
        *,
        cache: ResultCache | None = None,
        control: Control | None = None,
        priority: Priority = Priority.RUN,
        focus: Callable[[], tuple[float, float] | None] | None = None,
    ) -> None:
        super().__init__(pyramid, networks, device, region, priority)
        self.cache, self.control, self.focus = cache, control or Control(), focus

    # What a request costs, before it is paid.

    def flops(self, request: Look | Warp | Think) -> list[float]:
        """Return the nominal FLOPs of a request's parts, which can be paid one by one.

        Patches of a look are parts, unless they are tokens of one input: then the part that
        holds the group's last token carries the cost.
        """
        network = self.networks[request.role]
        if isinstance(request, Warp):
            return [network.flops(*request.shape)]
        if isinstance(request, Think):
            return [thinking(network, request, spanned(request, network).shape)]
        if request.group is not None:
            sizes = Counter(request.group)
            costs = {g: network.join_flops(n, request.merge) / n for g, n in sizes.items()}
            return [costs[g] for g in request.group]
        return [
            network.flops(*self._shape(request.role, self._rect(request.role, patch), patch.scale))
            for patch in self._clipped(request)
        ]

    def look(self, request: Look | Warp | Think) -> Iterator[tuple[int, Seen]]:
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
        if not isinstance(request, Look):
            return self._joint([[[0]]], request)
        if request.group is not None:
            return self._joint(packs(request), request)
        seen = self._round(request.role, self._clipped(request))
        if request.into in SHARED and self.cache is not None:
            # What is no answer may be what other runs ask for, too: it is computed once.
            key = self._hash(self.networks[request.role], request.role, digest(request))
            seen = self._in_turn(self.cache, key, seen)
        # Several are run at once; but for a view, whose middle comes first, they come as asked.
        return in_order(seen) if request.order == "given" or self.focus is None else seen

    def mark_read(self, seen: Seen) -> None:
        """Remember that a look of an earlier session has already paid for its tiles."""
        if seen.role in self.networks:
            rect = self._rect(seen.role, seen.patch) & self.pyramid.rect
            if not rect.empty:
                self.meter.seen(self.pyramid.tiles(rect, seen.patch.scale))

    def _in_turn(
        self, cache: ResultCache, key: str, seen: Iterator[tuple[int, Seen]]
    ) -> Iterator[tuple[int, Seen]]:
        with cache.turn(key, self.control):
            yield from seen

    def _clipped(self, request: Look) -> list[Patch]:
        """Return patches with the cores that are answered for: what answers, in the region."""
        within = self.pyramid.rect if request.into in SHARED else self.region
        return [replace(patch, core=patch.core & within) for patch in request.patches]

    # One round of patches, each an input of its own.

    def _round(self, role: str, patches: Sequence[Patch]) -> Iterator[tuple[int, Seen]]:
        network = self.networks[role]
        todo: list[_Asked] = []
        for index, patch in enumerate(patches):
            rect = self._rect(role, patch)
            asked = _Asked(index, patch, rect, self._key(network, role, patch, rect))
            found = self.cache.get(asked.key) if self.cache else None
            if found:
                self.mark_read(found[0])
                yield index, found[0]
            else:
                todo.append(asked)
        centre = self.focus() if self.focus else None
        if centre is not None:
            todo.sort(key=lambda asked: math.dist(asked.patch.core.center, centre))
        abandoned = threading.Event()
        ready: SimpleQueue[_Looked] = SimpleQueue()
        room = threading.Semaphore(2 * self.device.batch * self.device.streams + 2)
        reader = threading.Thread(
            target=self._feed,
            args=(network, todo, ready, room, abandoned),
            name="hrviewer-reader",
            daemon=True,
        )
        reader.start()
        try:
            for _ in todo:
                looked = ready.get()
                if isinstance(looked.inferred, Stopped):
                    raise looked.inferred
                seen = self._finish(network, role, looked)
                room.release()
                if self.cache:
                    self.cache.put(looked.asked.key, [seen])
                yield looked.asked.index, seen
                if not self.control.wait():
                    raise Stopped
        finally:
            abandoned.set()
            room.release(len(todo) + 1)
            reader.join()
            while not ready.empty():
                left = ready.get().inferred
                if isinstance(left, Future):
                    left.cancel()

    def _feed(
        self,
        network: Network,
        todo: Sequence[_Asked],
        ready: SimpleQueue[_Looked],
        room: threading.Semaphore,
        abandoned: threading.Event,
    ) -> None:
        """Read and prepare, ahead of the device by a few batches."""
        for asked in todo:
            room.acquire()
            if abandoned.is_set() or not self.control.wait():
                ready.put(_Looked(asked, Charge(), Stopped()))
                return
            charge = Charge()
            try:
                start = time.perf_counter()
                with self.meter.reading() as reading:
                    pixels = self._read(network, asked)
                charge = Charge(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
                start = time.perf_counter()
                shape = network.card.input.count, *pixels.shape[:2]
                array = network.card.prepare(pixels, self.device.spares.take(shape))
                charge = replace(charge, prepare_s=time.perf_counter() - start)
                future = self.device.submit(network, array, self.priority)
            except Exception as error:
                ready.put(_Looked(asked, charge, error))
                continue
            charge = replace(charge, flops=network.flops(*array.shape[1:]))
            future.add_done_callback(partial(_deliver, ready, asked, charge, array))

    def _read(self, network: Network, asked: _Asked) -> NDArray[Any]:
        """Read a patch's input; what a fixed size asks for beyond the image is reflected."""
        fill: Literal["reflect"] | None = None if asked.rect in self.pyramid.rect else "reflect"
        pixels: NDArray[Any] = self.pyramid.read(
            asked.rect,
            asked.patch.scale,
            fill=fill,
            meter=self.meter,
        )
        if network.card.input.fixed:
            pixels = pixels[: network.card.input.tile, : network.card.input.tile]
        return pixels

    def _finish(
        self,
        network: Network,
        role: str,
        looked: _Looked,
    ) -> Seen:
        """Turn an output into what the core was seen to hold."""
        asked, charge = looked.asked, looked.charge
        try:
            if isinstance(looked.inferred, BaseException):
                raise looked.inferred
            result = looked.inferred.result()
            start = time.perf_counter()
            charge = replace(charge, infer_s=result.seconds)
            output, box = self._place(network, asked, np.asarray(result.output, np.float32))
            if looked.array is not None and not np.may_share_memory(output, looked.array):
                self.device.spares.give(looked.array)
            if network.card.task == "embedding":
                # Fresh or kept, the same: rounded before anything is made of them.
                output = output.astype(np.float16)
            value = answer(network.card, output, box, asked.patch.core, self.pyramid.rect)
            if not np.isfinite(value).all():
                raise ValueError("the network's output is not finite here")
        except CancelledError:
            raise Stopped from None
        except Exception as error:
            return failed(asked.patch, role, charge, network.card.outputs, error)
        charge = replace(charge, post_s=time.perf_counter() - start)
        return Seen(asked.patch, role, value, output, box, charge)

    def _place(
        self, network: Network, asked: _Asked, output: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating[Any]], Box]:
        """Return the part of an output that speaks of the core, and what it covers."""
        _, rows, columns = output.shape
        if rows == columns == 1 and network.card.task in ("classification", "embedding"):
            box = as_box(asked.rect)
        else:
            cell = network.stride * asked.patch.scale
            box = (float(asked.rect.y), float(asked.rect.x), rows * cell, columns * cell)
        kind = kind_of(network.card)
        return crop(output, box, asked.patch.core, self.pyramid.rect, kind)

    # Requests whose parts belong together.

    def _joint(
        self, packed: list[list[list[int]]], request: Look | Warp | Think
    ) -> Iterator[tuple[int, Seen]]:
        network = self.networks[request.role]
        for groups in packed:
            key = self._hash(network, request.role, self.region, digest(request), groups)
            found = self.cache.get(key) if self.cache else None
            if found is None:
                if isinstance(request, Look):
                    found = see_tokens(self, network, request, groups)
                elif isinstance(request, Warp):
                    found = see_warped(self, network, request)
                else:
                    found = think(self, network, request)
                if self.cache:
                    self.cache.put(key, found)
            yield from zip(chain.from_iterable(groups), found, strict=True)
            if not self.control.wait():
                raise Stopped

    # Names of results.

    def _rect(self, role: str, patch: Patch) -> Rect:
        return input_rect(role_of(self.networks[role]), patch, self.pyramid.rect)

    def _shape(self, role: str, rect: Rect, scale: float) -> tuple[int, int]:
        if self.networks[role].card.input.fixed:
            tile = self.networks[role].card.input.tile
            return tile, tile
        return math.ceil(rect.h / scale - 1e-9), math.ceil(rect.w / scale - 1e-9)

    def _key(self, network: Network, role: str, patch: Patch, rect: Rect) -> str:
        return self._hash(
            network, role, rect.astuple(), patch.core.astuple(), patch.scale, patch.halo
        )

    def _hash(self, network: Network, *parts: object) -> str:
        everything = (
            VERSION,
            self.pyramid.levels[0].image,
            network.digest,
            network.backend,
            network.device,
            network.precision,
            self.device.batch,
            self.device.streams,
            *parts,
        )
        return hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest()


def _deliver(
    ready: SimpleQueue[_Looked],
    asked: _Asked,
    charge: Charge,
    array: NDArray[np.float32],
    done: Future[Inferred],
) -> None:
    ready.put(_Looked(asked, charge, done, array))


def role_of(network: Network) -> Role:
    """Return what a policy may know of a network."""
    return Role(
        network.card,
        network.stride,
        network.halo,
        network.flops,
        network.period,
        join_flops=network.join_flops if network.joint else None,
        explains=network.explains,
    )


def in_order(seen: Iterator[tuple[int, Seen]]) -> Iterator[tuple[int, Seen]]:
    """Hold results back until all before them have come."""
    waiting: dict[int, Seen] = {}
    following = 0
    for index, look in seen:
        waiting[index] = look
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def digest(request: Look | Warp | Think) -> str:
    """Return a hash of what is asked."""
    hasher = hashlib.blake2b(digest_size=16)
    if isinstance(request, Look):
        hasher.update(repr(request).encode())
    elif isinstance(request, Warp):
        where = request.rect, request.core, request.shape, request.grid.shape
        parts = (request.role, *where, request.into)
        hasher.update(repr(parts).encode() + np.ascontiguousarray(request.grid).tobytes())
    else:
        places = [(handle.patch, *map(float, handle.box)) for handle in request.handles]
        how = request.where, request.into, request.explain
        hasher.update(repr((request.role, places, how)).encode())
        for handle in request.handles:
            hasher.update(np.ascontiguousarray(handle.map).tobytes())
    return hasher.hexdigest()
