"""Live: the strategy follows the view.

`Live` is told to `tick` with the controller, on the window's thread: there it sees that the view
has come to rest, or that something else was chosen, and asks the engine's session. What the
session has to say waits in a deque until the next tick; it is drawn into the picture's arrays by
`painter.Painter`, on a thread of its own, so that the window neither computes nor draws maps.
Overlays stand still while the view moves, and are refreshed at most ten times a second. Of a stack
the plane on the screen is looked at.

Invariants: nothing is looked at while Live is off, the window is hidden or a run is at work; what
is drawn belongs to one choice; what a newer choice left behind is dropped, whoever says it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.result_maps import Picture
from hrviewer.app.services.live_renderer import Painter
from hrviewer.app.services.run_worker import Status
from hrviewer.engine import (
    Budget,
    Cell,
    Hints,
    Networks,
    Priority,
    Seen,
    Session,
    Update,
    build_scene,
    cells,
    how_far_off,
    kind_of,
    native_scale,
    speaker,
)
from hrviewer.errors import UserError, in_words
from hrviewer.geometry import Rect
from hrviewer.models import Card, Network, Pack
from hrviewer.pyramid import Pyramid
from hrviewer.runs import describe, parse_params, sentence
from hrviewer.strategies import Params, Strategy, get_strategy
from hrviewer.units import si
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of

if TYPE_CHECKING:
    from napari.layers import Image

    from hrviewer.viewer.controller import Controller

__all__ = ["Live"]

log = logging.getLogger(__name__)

REST = 0.05
"""Seconds without a change until a view counts as at rest; with the ticks, about 100 ms."""

BETWEEN = 0.1
"""Seconds between refreshes of the overlays, at least."""

KEPT = 0.08
"""Seconds for which what is drawn of a new choice is waited for: what was kept comes at once."""

LETTER = 1.0
"""Width of a letter of the head-up line, per size of its font, about; screen pixels."""

RECENT = 3.0
"""Seconds over which rates are measured."""


@dataclass(frozen=True)
class _Ready:
    """Everything is loaded."""

    base: Image
    plane: tuple[int, ...]
    pyramid: Pyramid
    chosen: Networks
    networks: Networks
    main: Network
    card: Card
    picture: Picture
    note: str


class Live:
    """Follows the view with what is chosen.

    Parameters
    ----------
    controller : Controller
        Knows what is chosen, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.on = False
        self.asleep = False
        self.session: Session | None = None
        self._loader = ThreadPoolExecutor(1, "hrviewer-load")
        self._loading: Future[_Ready] | None = None
        self._ready: _Ready | None = None
        self._base: Image | None = None
        self._plane: tuple[int, ...] = ()
        self._painter: Painter | None = None
        self._news: deque[tuple[int, Rect, Any]] = deque()
        self._choice = -1
        self._chosen: tuple[object, ...] | None = None
        self._view: tuple[Rect, float] | None = None
        self._moved = 0.0
        self._moving = False
        self._shown: list[Rect] = []
        self._answers: dict[Rect, Cell] = {}
        self._refreshed = 0.0
        self._turned = 0.0
        self._said = 0.0
        self._recent: deque[tuple[float, float, float]] = deque()
        self._looks = self._served = 0
        self._busy = False

    # What the person does.

    def turn(self, on: bool) -> None:
        """Begin or cease to follow."""
        if on == self.on:
            return
        controller = self._controller
        if on:
            with controller.telling():
                if controller.state != "idle":
                    raise UserError("a run is at work: stop it before switching Live on")
                controller.need_base()
                self._need_pack()
                self.on = True
                overlays, ready = controller.overlays, self._ready
                if overlays is None or ready is None or overlays.picture is not ready.picture:
                    self._ready = None
        else:
            self.on = False
            self._rest()
            self._hud("")
            controller.live_told.emit("")
        self._chosen = self._view = None
        controller.live_changed.emit(self.on)

    def sleep(self, asleep: bool) -> None:
        """Do nothing while nobody can see it."""
        if asleep != self.asleep:
            self.asleep = asleep
            self._view = None
            if asleep:
                self._rest()

    def tick(self) -> None:
        """Follow; on the window's thread, a few milliseconds at most."""
        if not self.on or self.asleep:
            return
        controller = self._controller
        ready = self._ready
        if self._loading is not None:
            self._take_loaded()
        elif controller.base is None or controller.pack is None:
            self.turn(False)
        elif (
            ready is None
            or ready.base != controller.base
            or ready.plane != plane_of(controller.viewer, controller.base)
            or ready.chosen is not controller.networks_of(controller.pack)
            or not alike(ready.card, self._answering(controller.pack))
        ):
            self._load(controller.base, controller.pack)
        elif controller.overlays is None or controller.overlays.picture is not ready.picture:
            self.turn(False)  # other overlays have taken over
        else:
            self._follow_choice()
            self._follow_view(ready)
            self._listen(ready)

    @property
    def turning(self) -> bool:
        """Whether another choice was made a moment ago, and may be on the screen at once."""
        return self.on and time.perf_counter() - self._turned < KEPT

    def close(self) -> None:
        """End the threads; they stop at the next batch and nobody waits for them."""
        self.on = False
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._drop()

    # Beginning.

    def _need_pack(self) -> Pack:
        pack = self._controller.pack
        if pack is None:
            raise UserError("choose a model first")
        return pack

    def _answering(self, pack: Pack) -> Card:
        return pack.roles[self._controller.strategy.speaker(pack.roles)]

    def _load(self, base: Image, pack: Pack) -> None:
        """Open and load on a thread, for it takes its time."""
        plane = plane_of(self._controller.viewer, base)
        if (self._base, self._plane) != (base, plane):
            self._drop()
        self._rest()
        self._base, self._plane = base, plane
        networks, strategy = self._controller.networks_of(pack), self._controller.strategy

        def load() -> _Ready:
            pyramid = pyramid_of(base, plane)
            here = networks.on(pyramid)
            scene, _, _ = build_scene(pyramid, here, get_strategy("patches"))
            off = how_far_off(pyramid, here, scene, Priority.LIVE)
            main, card, note = here["main"], speaker(here, strategy).card, str(off) if off else ""
            picture = empty(pyramid, main, card)
            return _Ready(base, plane, pyramid, networks, here, main, card, picture, note)

        self._ready = None
        self._loading = self._loader.submit(load)
        self._controller.live_told.emit("loading the network")

    def _take_loaded(self) -> None:
        assert self._loading is not None
        if not self._loading.done():
            return
        loading, self._loading = self._loading, None
        try:
            self._ready = loading.result()
        except Exception as error:
            self.turn(False)
            self._controller.fail(in_words(error))
            return
        self._begin(self._ready)

    def _begin(self, ready: _Ready) -> None:
        """Lay an empty picture over the image, and have a session."""
        if self._painter is not None:
            self._painter.close()
        self._painter = Painter(ready.picture)
        self._controller.draw(ready.base, ready.picture)
        self._controller.noted.emit([ready.note] if ready.note else [])
        self._chosen = self._view = None
        self._recent.clear()
        self._looks = self._served = 0

    def _rest(self) -> None:
        if self.session is not None:
            self.session.rest()

    def _drop(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close(wait=False)
        if self._painter is not None:
            self._painter.close()
        self._painter = self._ready = self._base = None

    # Following.

    def _follow_choice(self) -> None:
        controller = self._controller
        chosen = (
            controller.pack,
            controller.strategy.id,
            dict(controller.params),
            controller.budget,
            controller.hint,
        )
        if chosen == self._chosen:
            return
        self._chosen = chosen
        self._rest()
        self._shown, self._view = [], None
        self._answers.clear()
        controller.failed.emit("")
        try:
            params = parse_params(controller.strategy, controller.params)
            budget = Budget.parse(controller.budget) if controller.budget.strip() else None
            hints = controller.hints()
        except UserError as error:
            # Half of a number is no budget: that is said in the panel only, and waited for.
            self._choice = -1
            controller.failed.emit(str(error))
            return
        self._choose(controller.strategy, params, budget, hints)

    def _choose(
        self, strategy: Strategy, params: Params, budget: Budget | None, hints: Hints
    ) -> None:
        assert self._ready is not None
        assert self._painter is not None
        networks = self._ready.networks
        if self.session is None:
            self.session = Session(
                self._ready.pyramid,
                networks,
                strategy,
                params,
                budget=budget,
                cache=self._controller.results(),
                heard=self._hear,
                failed=self._fail,
                ahead=True,
            )
        self._choice = self.session.switch(strategy, params, budget, networks, hints)
        self._painter.turn(self._choice)
        self._turned = time.perf_counter()
        self._news.clear()
        self._busy = True

    def _follow_view(self, ready: _Ready) -> None:
        if self.session is None or self._choice < 0:
            return
        viewer, base = self._controller.viewer, ready.base
        view = visible_rect(viewer, base, ready.pyramid.rect), screen_pixel(viewer, base)
        now = time.perf_counter()
        first = self._view is None
        if view != self._view:
            self._view, self._moved, self._moving = view, now, True
        if self._moving and (first or now - self._moved >= REST):
            self._moving = False
            self._look(*view)

    def _look(self, view: Rect, pixel: float) -> None:
        assert self.session is not None
        assert self._painter is not None
        self._shown = cells(view, pixel, self.session.pyramid.rect)
        wanted = set(self._shown)
        self._answers = {rect: cell for rect, cell in self._answers.items() if rect in wanted}
        for cell in self.session.look_at(view, pixel):
            self._answers[cell.rect] = cell
            self._painter.take(self._choice, cell.rect, cell)
        self._refreshed = 0.0
        self._busy = True

    # News.

    def _hear(self, choice: int, rect: Rect, update: Cell | Update | None) -> None:
        """Keep what the session says; on its thread."""
        if isinstance(update, Seen | Cell):
            self._news.append((choice, rect, update))
        painter = self._painter
        if painter is not None:
            painter.take(choice, rect, update)

    def _fail(self, error: Exception) -> None:
        self._news.append((self._choice, Rect(0, 0, 0, 0), error))

    def _listen(self, ready: _Ready) -> None:
        controller, session = self._controller, self.session
        now = time.perf_counter()
        wanted = set(self._shown)
        fresh = False
        while self._news:
            choice, rect, news = self._news.popleft()
            if choice != self._choice:
                continue
            if isinstance(news, Seen):
                self._count(news, now)
            elif isinstance(news, Cell):
                fresh = True
                if rect in wanted:
                    self._answers[rect] = news
            elif isinstance(news, Exception):
                controller.failed.emit(in_words(news))
        if self._moving or session is None or controller.overlays is None:
            return
        if self.turning and not (self._painter is None or self._painter.done):
            return
        waiting = session.waiting
        busy = bool(waiting) or fresh
        if now - self._refreshed >= BETWEEN:
            changed = any(
                drawn.changed and controller.overlays.layers[name].visible
                for name, drawn in controller.overlays.picture.maps.items()
            )
            if changed:
                self._refreshed = now
            controller.overlays.refresh(hidden=not busy)
            if self._view is not None and not self._view[0].empty:
                controller.overlays.follow(*self._view)
        if now - self._said >= 0.25 and (busy or self._busy):
            self._said, self._busy = now, busy
            self._say(ready, waiting, now)

    def _count(self, seen: Seen, now: float) -> None:
        self._looks += 1
        if seen.status == "cached":
            self._served += 1
        elif seen.status == "done":
            pixels = seen.patch.core.area / max(seen.patch.scale, 1e-9) ** 2
            self._recent.append((now, pixels, seen.charge.flops))

    def _say(self, ready: _Ready, waiting: int, now: float) -> None:
        """Tell the answer in view, what it covers, and how fast it goes."""
        controller = self._controller
        done = [self._answers[rect] for rect in self._shown if rect in self._answers]
        total = len(self._shown)
        card = ready.card
        estimate, interval = together(done, kind_of(card) == "mass" or card.task == "segmentation")
        covered = Rect(0, 0, 1, max(1, sum(cell.rect.area for cell in done)))
        found = describe(card, estimate, interval, covered, ready.pyramid.pixel_size)
        covers = "in view"
        if len(done) < total:
            covers += f" so far ({len(done)} of {total} cell{'s'[: total != 1]})"
        answer = "…" if found is None else sentence(found)
        controller.answered.emit(f"{answer}  ·  {covers}", "")
        flops = sum(look.charge.flops for cell in done for _, looks in cell.seen for look in looks)
        n = sum(len(looks) for cell in done for _, looks in cell.seen)
        controller.answered.emit("", f"{si(flops, 'FLOP')} · {n:,} looks in view")
        part = len(done) / total if total else 0.0
        controller.progressed.emit(Status(part, ""))
        speed, rest = self._rates(ready, waiting, now)
        controller.live_told.emit(f"{speed} · {rest}")
        self._hud(speed)

    def _rates(self, ready: _Ready, waiting: int, now: float) -> tuple[str, str]:
        """Return how fast it goes and what is left to do; and the rest."""
        while self._recent and self._recent[0][0] < now - RECENT:
            self._recent.popleft()
        backend = ready.main.backend.split()[0]
        if ready.main.precision != "float32":
            backend += f" in {ready.main.precision}"
        served = f"{self._served:,} of {self._looks:,} looks from the cache"
        rest = f"{backend} on {ready.main.device} · {served}"
        if not waiting:
            return "up to date", rest
        words = f"{waiting} cell{'s' * (waiting != 1)} to go"
        if self._recent:
            seconds = max(now - self._recent[0][0], 0.5)
            pixels, flops = (sum(row[i] for row in self._recent) / seconds for i in (1, 2))
            tiles = len(self._recent) / seconds
            words = (
                f"{tiles:.3g} tiles/s · {pixels / 1e6:.3g} MP/s · {si(flops, 'FLOP')}/s · {words}"
            )
        return words, rest

    def _hud(self, words: str) -> None:
        canvas = self._controller.viewer.canvas
        text = canvas.overlays.text
        if words:
            text.text = wrapped(words, int(canvas.size[1] / (LETTER * text.font_size)))
            text.position = "top_left"
        text.visible = bool(words)


def wrapped(words: str, width: int) -> str:
    """Break a line between its parts, where it would be longer than `width` letters."""
    lines: list[str] = []
    for part in words.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def alike(one: Card, other: Card) -> bool:
    """Whether the answers of two networks mean the same, and so go on the same maps."""
    return (one.task, one.classes) == (other.task, other.classes)


def empty(pyramid: Pyramid, main: Network, card: Card) -> Picture:
    """Return a picture of nothing yet, for answers that mean what a card says."""
    native, _ = native_scale(main.card, pyramid)
    names = card.output.classes or [f"{i}" for i in range(card.answers)]
    return Picture(pyramid.rect, main.stride * native, kind_of(card), names, pyramid.pixel_size)


def together(
    found: list[Cell], additive: bool
) -> tuple[NDArray[np.float64] | None, tuple[float, float] | None]:
    """Return the answer of cells together, and its 95 % interval where all of them have one.

    Counts and areas add up, all else is a mean by area; errors of cells are taken as independent.
    """
    known = [cell for cell in found if cell.answer.estimate is not None]
    if not known:
        return None, None
    values = np.array([np.asarray(cell.answer.estimate, float) for cell in known])
    if additive:
        total: NDArray[np.float64] = values.sum(axis=0)
    else:
        total = np.average(values, axis=0, weights=[cell.rect.area for cell in known])
    intervals = [cell.answer.interval for cell in known]
    if not additive or any(interval is None for interval in intervals):
        return total, None
    halves = [(high - low) / 2 for low, high in filter(None, intervals)]
    middle = sum((high + low) / 2 for low, high in filter(None, intervals))
    half = math.hypot(*halves)
    return total, (middle - half, middle + half)
