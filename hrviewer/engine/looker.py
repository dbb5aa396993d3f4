"""Looking: read, prepare, infer, and what comes out.

One reader thread decodes and prepares ahead of the device, a few batches at most; results are
finished on the caller's thread as they come. A look that fails is reported and left blank.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Box, Kind, cover
from hrviewer.engine.charge import Charge
from hrviewer.engine.control import Control, Stopped
from hrviewer.engine.device import Device, Inferred, Priority
from hrviewer.engine.seen import Seen
from hrviewer.engine.warp import sample, spread, unwarp
from hrviewer.geometry import Grid, Patch, Rect
from hrviewer.models import Card, Network
from hrviewer.pyramid import Meter, Pyramid
from hrviewer.strategies import Look, Role, Think, Warp, input_rect

__all__ = ["Looker", "kind_of", "role_of"]

VERSION = 1
"""Raised when the same request would give another result."""


def kind_of(card: Card) -> Kind:
    """Return what moving this network's map from grid to grid must keep."""
    return "mass" if card.task in ("density", "detection") else "intensity"


def answer(
    card: Card, values: NDArray[np.float32], box: Box, core: Rect, image: Rect
) -> NDArray[np.float64]:
    """Return what a map says of a core, ``(k,)``: counts, areas, probabilities, a code."""
    rows, columns = cover(box, (values.shape[1], values.shape[2]), core, image)
    inside = np.ix_(np.arange(len(values)), rows > 0, columns > 0)
    weights = np.outer(rows[rows > 0], columns[columns > 0])
    part = values[inside].astype(np.float64)
    if card.task == "segmentation":
        cell = (box[2] / values.shape[1]) * (box[3] / values.shape[2])
        best = part.argmax(axis=0) if len(part) > 1 else np.where(part[0] > 0.5, 0, -1)
        part = cell * (np.arange(len(part))[:, None, None] == best)
    total: NDArray[np.float64] = (part * weights).sum(axis=(1, 2))
    # Counts and areas add up; everything else is a mean.
    additive = kind_of(card) == "mass" or card.task == "segmentation"
    return total if additive else total / max(float(weights.sum()), 1e-12)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A patch on its way through the pipeline."""

    index: int
    patch: Patch
    rect: Rect
    key: str


class Looker:
    """The eyes of one run.

    Parameters
    ----------
    pyramid : Pyramid
        What is looked at.
    networks : mapping of str to Network
        Who looks, by role.
    device : Device
        Where networks run.
    region : Rect
        Cores are clipped to it.
    cache : ResultCache, optional
        What was seen before.
    control : Control
        Pause and stop.
    priority : Priority
        Who goes first on the device.
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
        self.pyramid, self.networks, self.device = pyramid, networks, device
        self.region, self.cache = region, cache
        self.control = control or Control()
        self.priority, self.focus = priority, focus
        self.meter = Meter()
        self.roles = {name: role_of(network) for name, network in networks.items()}

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
            codes = arrange(request)
            return [network.think_flops(*codes.shape)]
        if request.group is not None:
            sizes = {g: request.group.count(g) for g in set(request.group)}
            return [network.join_flops(sizes[g]) / sizes[g] for g in request.group]
        return [
            network.flops(*self._shape(request.role, self._rect(request.role, patch), patch.scale))
            for patch in request.patches
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
        if isinstance(request, Warp):
            return self._joint([[0]], request)
        if isinstance(request, Think):
            return self._joint([[0]], request)
        if request.group is not None:
            groups: dict[int, list[int]] = {}
            for index, group in enumerate(request.group):
                groups.setdefault(group, []).append(index)
            return self._joint(list(groups.values()), request)
        seen = self._round(request.role, request.patches)
        return in_order(seen) if request.order == "given" else seen

    def mark_read(self, seen: Seen) -> None:
        """Remember that a look of an earlier session has already paid for its tiles."""
        if seen.role in self.networks:
            rect = self._rect(seen.role, seen.patch) & self.pyramid.rect
            if not rect.empty:
                self.meter.seen(self.pyramid.tiles(rect, seen.patch.scale))

    # One round of patches, each an input of its own.

    def _round(self, role: str, patches: Sequence[Patch]) -> Iterator[tuple[int, Seen]]:
        network = self.networks[role]
        todo: list[_Asked] = []
        for index, patch in enumerate(patches):
            patch = replace(patch, core=patch.core & self.region)
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
        ready: SimpleQueue[tuple[_Asked, Charge, Future[Inferred] | BaseException]] = SimpleQueue()
        room = threading.Semaphore(2 * self.device.batch + 2)
        reader = threading.Thread(
            target=self._feed,
            args=(network, todo, ready, room, abandoned),
            name="hrviewer-reader",
            daemon=True,
        )
        reader.start()
        try:
            for _ in todo:
                asked, charge, inferred = ready.get()
                if isinstance(inferred, Stopped):
                    raise inferred
                seen = self._finish(network, role, asked, charge, inferred)
                room.release()
                if self.cache:
                    self.cache.put(asked.key, [seen])
                yield asked.index, seen
                if not self.control.wait():
                    raise Stopped
        finally:
            abandoned.set()
            room.release(len(todo) + 1)
            reader.join()
            while not ready.empty():
                left = ready.get()[2]
                if isinstance(left, Future):
                    left.cancel()

    def _feed(
        self,
        network: Network,
        todo: Sequence[_Asked],
        ready: SimpleQueue[Any],
        room: threading.Semaphore,
        abandoned: threading.Event,
    ) -> None:
        """Read and prepare, ahead of the device by a few batches."""
        for asked in todo:
            room.acquire()
            if abandoned.is_set() or not self.control.wait():
                ready.put((asked, Charge(), Stopped()))
                return
            charge = Charge()
            try:
                start = time.perf_counter()
                with self.meter.reading() as reading:
                    pixels = self._read(network, asked)
                charge = Charge(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
                start = time.perf_counter()
                array = network.card.prepare(pixels)
                charge = replace(charge, prepare_s=time.perf_counter() - start)
                future = self.device.submit(network, array, self.priority)
            except Exception as error:
                ready.put((asked, charge, error))
                continue
            charge = replace(charge, flops=network.flops(*array.shape[1:]))
            future.add_done_callback(partial(_deliver, ready, asked, charge))

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
        asked: _Asked,
        charge: Charge,
        inferred: Future[Inferred] | BaseException,
    ) -> Seen:
        """Turn an output into what the core was seen to hold."""
        try:
            if isinstance(inferred, BaseException):
                raise inferred
            result = inferred.result()
            start = time.perf_counter()
            charge = replace(charge, infer_s=result.seconds)
            output, box = self._place(network, asked, np.asarray(result.output, np.float32))
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
    ) -> tuple[NDArray[np.float32], Box]:
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
        self, groups: list[list[int]], request: Look | Warp | Think
    ) -> Iterator[tuple[int, Seen]]:
        work = {Look: self._tokens, Warp: self._warp, Think: self._think}[type(request)]
        network = self.networks[request.role]
        for group in groups:
            if not self.control.wait():
                raise Stopped
            key = self._hash(network, request.role, digest(request), group)
            found = self.cache.get(key) if self.cache else None
            if found is None:
                found = work(network, request, group)  # type: ignore[operator]
                if self.cache:
                    self.cache.put(key, found)
            yield from zip(group, found, strict=True)

    def _tokens(self, network: Network, request: Look, group: list[int]) -> list[Seen]:
        """One joint input of many patches; each bears an equal share."""
        patches = [
            replace(request.patches[i], core=request.patches[i].core & self.region) for i in group
        ]
        charge = Charge()
        try:
            tokens, boxes = [], []
            for index in group:
                patch = request.patches[index]
                with self.meter.reading() as reading:
                    pixels = self.pyramid.read(
                        patch.core, patch.scale, fill="reflect", meter=self.meter
                    )
                start = time.perf_counter()
                tokens.append(network.card.prepare(pixels))
                boxes.append(patch.core.astuple())
                charge += Charge(
                    bytes=reading.bytes,
                    pixels=reading.pixels,
                    read_s=reading.seconds,
                    prepare_s=time.perf_counter() - start,
                )
            arrays = np.stack(tokens), np.array(boxes, np.float32)
            done = self.device.call(lambda: network.join(*arrays), self.priority).result()
        except Exception as error:
            share = charge * (1 / len(group))
            return [failed(p, request.role, share, network.card.outputs, error) for p in patches]
        charge += Charge(flops=network.join_flops(len(group)), infer_s=done.seconds)
        share = charge * (1 / len(group))
        return [
            Seen(
                patch,
                request.role,
                np.asarray(value, np.float64),
                np.asarray(value, np.float32)[:, None, None],
                as_box(patch.core),
                share,
            )
            for patch, value in zip(patches, done.output, strict=True)
        ]

    def _warp(self, network: Network, request: Warp, group: list[int]) -> list[Seen]:
        """One warped input; its charge falls where its samples were taken."""
        del group
        rect = request.rect & self.region
        scale = math.sqrt(rect.area / (request.shape[0] * request.shape[1]))
        patch = Patch(rect, scale)
        charge = Charge()
        try:
            with self.meter.reading() as reading:
                picture = sample(self.pyramid, rect, request.grid, request.shape, self.meter)
            charge = Charge(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
            start = time.perf_counter()
            array = network.card.prepare(in_range(picture, self.pyramid.dtype))
            charge = replace(charge, prepare_s=time.perf_counter() - start)
            done = self.device.submit(network, array, self.priority).result()
        except Exception as error:
            return [failed(patch, request.role, charge, network.card.outputs, error)]
        start = time.perf_counter()
        cell = max(1, round(network.stride))
        shape = Grid(rect, cell).shape
        values = unwarp(done.output, request.grid, shape, kind_of(network.card))
        box = as_box(rect)
        value = answer(network.card, values, box, rect, self.pyramid.rect)
        charge = replace(
            charge,
            flops=network.flops(*request.shape),
            infer_s=done.seconds,
            post_s=time.perf_counter() - start,
        )
        return [
            Seen(
                patch,
                request.role,
                value,
                values,
                box,
                charge,
                spread=spread(request.grid),
            )
        ]

    def _think(self, network: Network, request: Think, group: list[int]) -> list[Seen]:
        """A network on what was already seen."""
        del group
        codes = arrange(request)
        patch = Patch(request.where & self.region, 1.0)
        try:
            done = self.device.call(lambda: network.think(codes), self.priority).result()
        except Exception as error:
            return [failed(patch, request.role, Charge(), network.card.outputs, error)]
        values = np.asarray(done.output, np.float32)
        box = as_box(request.where)
        return [
            Seen(
                patch,
                request.role,
                answer(network.card, values, box, patch.core, self.pyramid.rect),
                values,
                box,
                Charge(flops=network.think_flops(*codes.shape), infer_s=done.seconds),
            )
        ]

    # Names of results.

    def _rect(self, role: str, patch: Patch) -> Rect:
        core = patch.core & self.region
        return input_rect(self.roles[role], replace(patch, core=core), self.pyramid.rect)

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
            *parts,
        )
        return hashlib.blake2b(repr(everything).encode(), digest_size=16).hexdigest()


def _deliver(
    ready: SimpleQueue[Any], asked: _Asked, charge: Charge, done: Future[Inferred]
) -> None:
    ready.put((asked, charge, done))


def as_box(rect: Rect) -> Box:
    """Return a rectangle as what a map covers."""
    return float(rect.y), float(rect.x), float(rect.h), float(rect.w)


def role_of(network: Network) -> Role:
    """Return what a policy may know of a network."""
    return Role(network.card, network.stride, network.halo, network.flops)


def failed(patch: Patch, role: str, charge: Charge, k: int, error: BaseException) -> Seen:
    """Return a look that gave nothing."""
    return Seen(
        patch,
        role,
        np.full(k, np.nan),
        np.full((k, 1, 1), np.nan, np.float32),
        as_box(patch.core),
        charge,
        status="failed",
        error=f"{type(error).__name__}: {error}".splitlines()[0],
    )


def crop(
    output: NDArray[np.float32], box: Box, core: Rect, image: Rect, kind: Kind
) -> tuple[NDArray[np.float32], Box]:
    """Return the part of a map that touches the core.

    Cells that hang over the image's border hold what was filled in there; of their mass only the
    image's part counts.
    """
    _, rows, columns = output.shape
    if not rows or not columns:
        raise ValueError("the patch is smaller than one output cell")
    dy, dx = box[2] / rows, box[3] / columns
    if kind == "mass" and (box[0] + box[2] > image.h or box[1] + box[3] > image.w):
        inside = [
            np.clip((limit - start - np.arange(n) * step) / step, 0, 1)
            for start, n, step, limit in (
                (box[0], rows, dy, image.h),
                (box[1], columns, dx, image.w),
            )
        ]
        output = (output * np.outer(*inside)).astype(np.float32)
    cover_y, cover_x = cover(box, (rows, columns), core, image)
    r, c = np.flatnonzero(cover_y > 0), np.flatnonzero(cover_x > 0)
    if not len(r) or not len(c):
        raise ValueError("the network's output does not reach the patch's core")
    part = np.ascontiguousarray(output[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1])
    return part, (box[0] + r[0] * dy, box[1] + c[0] * dx, len(r) * dy, len(c) * dx)


def arrange(request: Think) -> NDArray[np.float32]:
    """Lay handles out by their patches' rows and columns: ``(d, rows, columns)``, 0 where none."""
    cores = [handle.patch.core for handle in request.handles]
    ys, xs = sorted({core.y for core in cores}), sorted({core.x for core in cores})
    values = [np.nan_to_num(handle.value) for handle in request.handles]
    codes = np.zeros((len(values[0]), len(ys), len(xs)), np.float32)
    for core, value in zip(cores, values, strict=True):
        codes[:, ys.index(core.y), xs.index(core.x)] = value
    return codes


def in_range(picture: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the image's own type, as every other read does."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.floor(picture + 0.5), info.min, info.max).astype(dtype)
    return picture.astype(dtype)


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
        parts = (request.role, request.rect, request.shape, request.grid.shape, request.into)
        hasher.update(repr(parts).encode() + np.ascontiguousarray(request.grid).tobytes())
    else:
        patches = tuple(handle.patch for handle in request.handles)
        hasher.update(repr((request.role, patches, request.where, request.into)).encode())
        hasher.update(arrange(request).tobytes())
    return hasher.hexdigest()
