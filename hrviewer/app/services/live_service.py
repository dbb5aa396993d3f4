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

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.services.live_renderer import LiveRenderer
from hrviewer.app.services.run_worker import Status
from hrviewer.engine import (
    Budget,
    InferenceResult,
    LiveSession,
    LoadedModels,
    Priority,
    Priors,
    Update,
    ViewportCell,
    answering_network,
    build_context,
    map_kind,
    measure_deviation,
    native_scale,
    visible_cells,
)
from hrviewer.errors import HrviewerError, format_error
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle, ModelCard, Network
from hrviewer.pyramid import Pyramid
from hrviewer.runs import estimate_to_dict, format_estimate, parse_params
from hrviewer.strategies import Params, Strategy, get_strategy
from hrviewer.units import format_si
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of

if TYPE_CHECKING:
    from napari.layers import Image

    from hrviewer.viewer.controller import Controller

__all__ = ["LiveService"]

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.05
"""Seconds without a change until a view counts as at rest; with the ticks, about 100 ms."""

REFRESH_SECONDS = 0.1
"""Seconds between refreshes of the overlays, at least."""

CACHED_WAIT_SECONDS = 0.08
"""Seconds for which what is drawn of a new choice is waited for: what was kept comes at once."""

CHARACTER_WIDTH = 1.0
"""Width of a letter of the head-up line, per size of its font, about; screen pixels."""

RATE_SECONDS = 3.0
"""Seconds over which rates are measured."""


@dataclass(frozen=True)
class _LoadedLive:
    """Everything is loaded."""

    image_layer: Image
    plane: tuple[int, ...]
    pyramid: Pyramid
    loaded_models: LoadedModels
    models: LoadedModels
    main: Network
    card: ModelCard
    maps: ResultMaps
    note: str


class LiveService:
    """Follows the view with what is chosen.

    Parameters
    ----------
    controller : Controller
        Knows what is chosen, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.enabled = False
        self.suspended = False
        self.session: LiveSession | None = None
        self._executor = ThreadPoolExecutor(1, "hrviewer-load")
        self._loading: Future[_LoadedLive] | None = None
        self._loaded: _LoadedLive | None = None
        self._image_layer: Image | None = None
        self._plane: tuple[int, ...] = ()
        self._renderer: LiveRenderer | None = None
        self._updates: deque[tuple[int, Rect, Any]] = deque()
        self._selection = -1
        self._settings: tuple[object, ...] | None = None
        self._view: tuple[Rect, float] | None = None
        self._moved_at = 0.0
        self._moving = False
        self._cells_in_view: list[Rect] = []
        self._cells_done: dict[Rect, ViewportCell] = {}
        self._refreshed_at = 0.0
        self._switched_at = 0.0
        self._reported_at = 0.0
        self._recent: deque[tuple[float, float, float]] = deque()
        self._patch_count = self._cached_count = 0
        self._was_running = False

    # What the person does.

    def set_enabled(self, enabled: bool) -> None:
        """Begin or cease to follow."""
        if enabled == self.enabled:
            return
        controller = self._controller
        if enabled:
            with controller.reporting_errors():
                if controller.state != "idle":
                    raise HrviewerError("a run is at work: stop it before switching Live on")
                controller.require_image_layer()
                self._require_model()
                self.enabled = True
                overlays, ready = controller.overlays, self._loaded
                if overlays is None or ready is None or overlays.maps is not ready.maps:
                    self._loaded = None
        else:
            self.enabled = False
            self._idle_session()
            self._show_hud("")
            controller.live_status_changed.emit("")
        self._settings = self._view = None
        controller.live_changed.emit(self.enabled)

    def set_suspended(self, suspended: bool) -> None:
        """Do nothing while nobody can see it."""
        if suspended != self.suspended:
            self.suspended = suspended
            self._view = None
            if suspended:
                self._idle_session()

    def tick(self) -> None:
        """Follow; on the window's thread, a few milliseconds at most."""
        if not self.enabled or self.suspended:
            return
        controller = self._controller
        ready = self._loaded
        if self._loading is not None:
            self._finish_loading()
        elif controller.image_layer is None or controller.model is None:
            self.set_enabled(False)
        elif (
            ready is None
            or ready.image_layer != controller.image_layer
            or ready.plane != plane_of(controller.viewer, controller.image_layer)
            or ready.loaded_models is not controller.loaded_models_for(controller.model)
            or not same_output(ready.card, self._answering_card(controller.model))
        ):
            self._load(controller.image_layer, controller.model)
        elif controller.overlays is None or controller.overlays.maps is not ready.maps:
            self.set_enabled(False)  # other overlays have taken over
        else:
            self._sync_settings()
            self._follow_view(ready)
            self._process_updates(ready)

    @property
    def switching(self) -> bool:
        """Whether another choice was made a moment ago, and may be on the screen at once."""
        return self.enabled and time.perf_counter() - self._switched_at < CACHED_WAIT_SECONDS

    def close(self) -> None:
        """End the threads; they stop at the next batch and nobody waits for them."""
        self.enabled = False
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._close_session()

    # Beginning.

    def _require_model(self) -> ModelBundle:
        pack = self._controller.model
        if pack is None:
            raise HrviewerError("choose a model first")
        return pack

    def _answering_card(self, model: ModelBundle) -> ModelCard:
        return model.roles[self._controller.strategy.answering_role(model.roles)]

    def _load(self, image_layer: Image, model: ModelBundle) -> None:
        """Open and load on a thread, for it takes its time."""
        plane = plane_of(self._controller.viewer, image_layer)
        if (self._image_layer, self._plane) != (image_layer, plane):
            self._close_session()
        self._idle_session()
        self._image_layer, self._plane = image_layer, plane
        networks, strategy = self._controller.loaded_models_for(model), self._controller.strategy

        def load() -> _LoadedLive:
            pyramid = pyramid_of(image_layer, plane)
            here = networks.for_image(pyramid)
            scene, _, _ = build_context(pyramid, here, get_strategy("patches"))
            off = measure_deviation(pyramid, here, scene, Priority.LIVE)
            main, card, note = (
                here["main"],
                answering_network(here, strategy).card,
                str(off) if off else "",
            )
            picture = empty_result_maps(pyramid, main, card)
            return _LoadedLive(
                image_layer, plane, pyramid, networks, here, main, card, picture, note
            )

        self._loaded = None
        self._loading = self._executor.submit(load)
        self._controller.live_status_changed.emit("loading the network")

    def _finish_loading(self) -> None:
        assert self._loading is not None
        if not self._loading.done():
            return
        loading, self._loading = self._loading, None
        try:
            self._loaded = loading.result()
        except Exception as error:
            self.set_enabled(False)
            self._controller.report_error(format_error(error))
            return
        self._show_empty_maps(self._loaded)

    def _show_empty_maps(self, ready: _LoadedLive) -> None:
        """Lay an empty picture over the image, and have a session."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = LiveRenderer(ready.maps)
        self._controller.show_overlays(ready.image_layer, ready.maps)
        self._controller.notes_changed.emit([ready.note] if ready.note else [])
        self._settings = self._view = None
        self._recent.clear()
        self._patch_count = self._cached_count = 0

    def _idle_session(self) -> None:
        if self.session is not None:
            self.session.idle_now()

    def _close_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close(wait=False)
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._loaded = self._image_layer = None

    # Following.

    def _sync_settings(self) -> None:
        controller = self._controller
        chosen = (
            controller.model,
            controller.strategy.id,
            dict(controller.params),
            controller.budget,
            controller.prior,
        )
        if chosen == self._settings:
            return
        self._settings = chosen
        self._idle_session()
        self._cells_in_view, self._view = [], None
        self._cells_done.clear()
        controller.error_raised.emit("")
        try:
            params = parse_params(controller.strategy, controller.params)
            budget = Budget.parse(controller.budget) if controller.budget.strip() else None
            hints = controller.prior_maps()
        except HrviewerError as error:
            # Half of a number is no budget: that is said in the panel only, and waited for.
            self._selection = -1
            controller.error_raised.emit(str(error))
            return
        self._apply_settings(controller.strategy, params, budget, hints)

    def _apply_settings(
        self, strategy: Strategy, params: Params, budget: Budget | None, priors: Priors
    ) -> None:
        assert self._loaded is not None
        assert self._renderer is not None
        networks = self._loaded.models
        if self.session is None:
            self.session = LiveSession(
                self._loaded.pyramid,
                networks,
                strategy,
                params,
                budget=budget,
                cache=self._controller.get_cache(),
                on_update=self._on_update,
                on_error=self._on_error,
                prefetch=True,
            )
        self._selection = self.session.select(strategy, params, budget, networks, priors)
        self._renderer.select(self._selection)
        self._switched_at = time.perf_counter()
        self._updates.clear()
        self._was_running = True

    def _follow_view(self, ready: _LoadedLive) -> None:
        if self.session is None or self._selection < 0:
            return
        viewer, base = self._controller.viewer, ready.image_layer
        view = visible_rect(viewer, base, ready.pyramid.rect), screen_pixel(viewer, base)
        now = time.perf_counter()
        first = self._view is None
        if view != self._view:
            self._view, self._moved_at, self._moving = view, now, True
        if self._moving and (first or now - self._moved_at >= SETTLE_SECONDS):
            self._moving = False
            self._request_view(*view)

    def _request_view(self, view: Rect, pixel: float) -> None:
        assert self.session is not None
        assert self._renderer is not None
        self._cells_in_view = visible_cells(view, pixel, self.session.pyramid.rect)
        wanted = set(self._cells_in_view)
        self._cells_done = {rect: cell for rect, cell in self._cells_done.items() if rect in wanted}
        for cell in self.session.follow_view(view, pixel):
            self._cells_done[cell.rect] = cell
            self._renderer.enqueue(self._selection, cell.rect, cell)
        self._refreshed_at = 0.0
        self._was_running = True

    # News.

    def _on_update(self, selection: int, rect: Rect, update: ViewportCell | Update | None) -> None:
        """Keep what the session says; on its thread."""
        if isinstance(update, InferenceResult | ViewportCell):
            self._updates.append((selection, rect, update))
        painter = self._renderer
        if painter is not None:
            painter.enqueue(selection, rect, update)

    def _on_error(self, error: Exception) -> None:
        self._updates.append((self._selection, Rect(0, 0, 0, 0), error))

    def _process_updates(self, ready: _LoadedLive) -> None:
        controller, session = self._controller, self.session
        now = time.perf_counter()
        wanted = set(self._cells_in_view)
        fresh = False
        while self._updates:
            choice, rect, news = self._updates.popleft()
            if choice != self._selection:
                continue
            if isinstance(news, InferenceResult):
                self._count_patch(news, now)
            elif isinstance(news, ViewportCell):
                fresh = True
                if rect in wanted:
                    self._cells_done[rect] = news
            elif isinstance(news, Exception):
                controller.error_raised.emit(format_error(news))
        if self._moving or session is None or controller.overlays is None:
            return
        if self.switching and not (self._renderer is None or self._renderer.is_done):
            return
        waiting = session.pending
        busy = bool(waiting) or fresh
        if now - self._refreshed_at >= REFRESH_SECONDS:
            changed = any(
                drawn.changed and controller.overlays.layers[name].visible
                for name, drawn in controller.overlays.maps.rasters.items()
            )
            if changed:
                self._refreshed_at = now
            controller.overlays.refresh(hidden=not busy)
            if self._view is not None and not self._view[0].empty:
                controller.overlays.follow_view(*self._view)
        if now - self._reported_at >= 0.25 and (busy or self._was_running):
            self._reported_at, self._was_running = now, busy
            self._report(ready, waiting, now)

    def _count_patch(self, result: InferenceResult, now: float) -> None:
        self._patch_count += 1
        if result.status == "cached":
            self._cached_count += 1
        elif result.status == "done":
            pixels = result.patch.core.area / max(result.patch.scale, 1e-9) ** 2
            self._recent.append((now, pixels, result.cost.flops))

    def _report(self, ready: _LoadedLive, waiting: int, now: float) -> None:
        """Tell the answer in view, what it covers, and how fast it goes."""
        controller = self._controller
        done = [self._cells_done[rect] for rect in self._cells_in_view if rect in self._cells_done]
        total = len(self._cells_in_view)
        card = ready.card
        estimate, interval = combine_cells(
            done, map_kind(card) == "mass" or card.task == "segmentation"
        )
        covered = Rect(0, 0, 1, max(1, sum(cell.rect.area for cell in done)))
        found = estimate_to_dict(card, estimate, interval, covered, ready.pyramid.pixel_size)
        covers = "in view"
        if len(done) < total:
            covers += f" so far ({len(done)} of {total} cell{'s'[: total != 1]})"
        answer = "…" if found is None else format_estimate(found)
        controller.estimate_changed.emit(f"{answer}  ·  {covers}", "")
        flops = sum(look.cost.flops for cell in done for _, looks in cell.results for look in looks)
        n = sum(len(looks) for cell in done for _, looks in cell.results)
        controller.estimate_changed.emit("", f"{format_si(flops, 'FLOP')} · {n:,} looks in view")
        part = len(done) / total if total else 0.0
        controller.progress_changed.emit(Status(part, ""))
        speed, rest = self._rates(ready, waiting, now)
        controller.live_status_changed.emit(f"{speed} · {rest}")
        self._show_hud(speed)

    def _rates(self, ready: _LoadedLive, waiting: int, now: float) -> tuple[str, str]:
        """Return how fast it goes and what is left to do; and the rest."""
        while self._recent and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()
        backend = ready.main.backend.split()[0]
        if ready.main.precision != "float32":
            backend += f" in {ready.main.precision}"
        served = f"{self._cached_count:,} of {self._patch_count:,} looks from the cache"
        rest = f"{backend} on {ready.main.device} · {served}"
        if not waiting:
            return "up to date", rest
        words = f"{waiting} cell{'s' * (waiting != 1)} to go"
        if self._recent:
            seconds = max(now - self._recent[0][0], 0.5)
            pixels, flops = (sum(row[i] for row in self._recent) / seconds for i in (1, 2))
            tiles = len(self._recent) / seconds
            rates = f"{tiles:.3g} tiles/s · {pixels / 1e6:.3g} MP/s · {format_si(flops, 'FLOP')}/s"
            words = f"{rates} · {words}"
        return words, rest

    def _show_hud(self, words: str) -> None:
        canvas = self._controller.viewer.canvas
        text = canvas.overlays.text
        if words:
            text.text = wrap_text(words, int(canvas.size[1] / (CHARACTER_WIDTH * text.font_size)))
            text.position = "top_left"
        text.visible = bool(words)


def wrap_text(text: str, width: int) -> str:
    """Break a line between its parts, where it would be longer than `width` letters."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def same_output(one: ModelCard, other: ModelCard) -> bool:
    """Whether the answers of two networks mean the same, and so go on the same maps."""
    return (one.task, one.classes) == (other.task, other.classes)


def empty_result_maps(pyramid: Pyramid, main: Network, card: ModelCard) -> ResultMaps:
    """Return a picture of nothing yet, for answers that mean what a card says."""
    native, _ = native_scale(main.card, pyramid)
    names = card.output.classes or [f"{i}" for i in range(card.prediction_channels)]
    return ResultMaps(pyramid.rect, main.stride * native, map_kind(card), names, pyramid.pixel_size)


def combine_cells(
    found: list[ViewportCell], additive: bool
) -> tuple[NDArray[np.float64] | None, tuple[float, float] | None]:
    """Return the answer of cells together, and its 95 % interval where all of them have one.

    Counts and areas add up, all else is a mean by area; errors of cells are taken as independent.
    """
    known = [cell for cell in found if cell.estimate.values is not None]
    if not known:
        return None, None
    values = np.array([np.asarray(cell.estimate.values, float) for cell in known])
    if additive:
        total: NDArray[np.float64] = values.sum(axis=0)
    else:
        total = np.average(values, axis=0, weights=[cell.rect.area for cell in known])
    intervals = [cell.estimate.interval for cell in known]
    if not additive or any(interval is None for interval in intervals):
        return total, None
    halves = [(high - low) / 2 for low, high in filter(None, intervals)]
    middle = sum((high + low) / 2 for low, high in filter(None, intervals))
    half = math.hypot(*halves)
    return total, (middle - half, middle + half)
