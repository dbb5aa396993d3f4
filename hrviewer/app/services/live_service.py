"""Live: the strategy follows the view.

`tick` notices that the view has come to rest or that other settings were selected, and asks the
engine's session. The session's updates arrive through `Background`; `LiveRenderer` draws them into
the result maps on a thread, so that the front end neither computes nor draws maps. Overlays stand
still while the view moves (`AppState.live`). Of a stack the displayed plane is used.

Invariants: no inference while Live is off, the window is hidden or a run is in progress; the maps
belong to one selection; updates of an earlier selection are dropped.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from functools import partial

from psygnal import EmissionInfo

from hrviewer.app.image_session import ImageSession, Status, Viewport
from hrviewer.app.maps.live_summary import combine_cells, describe_scales
from hrviewer.app.maps.result_maps import ResultMaps, empty_result_maps
from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background, Task
from hrviewer.app.services.live_renderer import LiveRenderer
from hrviewer.app.settings import ResolvedRun
from hrviewer.app.state import AppState
from hrviewer.engine import (
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
from hrviewer.errors import HrviewerError, RunError, format_error
from hrviewer.formatting import NO_ESTIMATE, EstimateText, describe_estimate, pluralize
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle, ModelCard, Network
from hrviewer.pyramid import Pyramid
from hrviewer.runs import estimate_to_dict
from hrviewer.strategies import Aggregation, aggregation_of, get_strategy
from hrviewer.units import format_si

__all__ = ["LiveService"]

SETTLE_SECONDS = 0.05
"""Seconds without a change until a view is at rest; with the ticks, about 100 ms."""

CACHED_WAIT_SECONDS = 0.08
"""Seconds for which maps of another selection are awaited: cached cells are drawn at once."""

REPORT_SECONDS = 0.25
"""Seconds between reports, at least."""

RATE_SECONDS = 3.0
"""Seconds over which rates are measured."""


@dataclass(frozen=True, eq=False)
class _LoadedLive:
    """Models that are loaded for an image, and its maps."""

    image: ImageSession
    plane: tuple[int, ...]
    pyramid: Pyramid
    loaded_models: LoadedModels
    models: LoadedModels
    main: Network
    card: ModelCard
    maps: ResultMaps
    note: str


class LiveService:
    """Runs inference on the view with the selected settings.

    Parameters
    ----------
    state : AppState
        Has settings and image, and gets maps and estimate.
    background : Background
        Loads models and brings the session's updates.
    resources : Resources
        Models and cache.

    Attributes
    ----------
    session : LiveSession or None
        The engine's session.
    suspended : bool
        Whether nothing is done because the front end is hidden.
    """

    def __init__(self, state: AppState, background: Background, resources: Resources) -> None:
        self._state, self._background, self._resources = state, background, resources
        self.suspended = False
        self.session: LiveSession | None = None
        self._task: Task[_LoadedLive] | None = None
        self._prior_task: Task[Priors] | None = None
        self._loaded: _LoadedLive | None = None
        self._place: tuple[ImageSession, tuple[int, ...]] | None = None
        self._renderer: LiveRenderer | None = None
        self._selection = -1
        self._aggregation: Aggregation = "mean"
        self._settings_changed = True
        self._view: Viewport | None = None
        self._moved_at = 0.0
        self._moving = False
        self._cells_in_view: list[Rect] = []
        self._cells_done: dict[Rect, ViewportCell] = {}
        self._new_cells = False
        self._switched_at = 0.0
        self._reported_at = 0.0
        self._recent: deque[tuple[float, float, float]] = deque()
        self._patch_count = self._cached_count = 0
        self._was_running = False
        state.settings.events.connect(self._on_settings)
        state.strategy_changed.connect(self.tick)  # cached cells are displayed at once
        state.run_starting.connect(self._turn_off)
        state.image_closed.connect(self._on_image_closed)

    @property
    def enabled(self) -> bool:
        """Whether Live follows the view."""
        return self._state.live.enabled

    @property
    def switching(self) -> bool:
        """Whether other settings were selected a moment ago, and may be displayed at once."""
        return self.enabled and time.perf_counter() - self._switched_at < CACHED_WAIT_SECONDS

    def set_enabled(self, enabled: bool) -> None:
        """Switch Live on or off."""
        state = self._state
        if enabled == self.enabled:
            return
        if enabled:
            with state.reporting_errors():
                if state.run_state != "idle":
                    raise RunError("a run is in progress: stop it before switching Live on")
                image = state.require_image()
                state.settings.require_model()
                state.live.enabled = True
                if self._loaded is None or image.maps is not self._loaded.maps:
                    self._loaded = None
        else:
            state.live.enabled = False
            self._cancel_prior()
            self._idle_session()
            for image in state.images:
                if image.live_status:
                    state.set_live_status(image, "")
        self._settings_changed, self._view = True, None
        state.live_changed.emit(self.enabled)

    def set_suspended(self, suspended: bool) -> None:
        """Do nothing while the front end is hidden."""
        if suspended != self.suspended:
            self.suspended = suspended
            self._view = None
            if suspended:
                self._idle_session()

    def tick(self) -> None:
        """Follow settings and view; a few milliseconds at most."""
        state, settings, loaded = self._state, self._state.settings, self._loaded
        if not self.enabled or self.suspended:
            return
        image, model = state.image, settings.model
        if self._task is not None and self._task.is_pending:
            return
        if image is None or model is None:
            self.set_enabled(False)
        elif (
            loaded is None
            or loaded.image is not image
            or loaded.plane != image.source.plane()
            or loaded.loaded_models
            is not self._resources.models_for(model, settings.device, settings.precision)
            or not same_output(loaded.card, self._answering_card(model))
        ):
            self._load(image, model)
        elif image.maps is not loaded.maps:
            self.set_enabled(False)  # other results have taken over
        else:
            self._sync_settings(loaded)
            self._follow_view(loaded)
            self._update_state(loaded)

    def close(self) -> None:
        """End the threads; they stop at the next batch."""
        self._state.live.enabled = False
        self._close_session()

    # Beginning.

    def _on_settings(self, change: EmissionInfo) -> None:
        # Live follows the view, not the region that is selected for a run.
        if change.signal.name != "region":
            self._settings_changed = True

    def _turn_off(self) -> None:
        self.set_enabled(False)

    def _on_image_closed(self, image: ImageSession) -> None:
        if self._place is not None and self._place[0] is image:
            self._close_session()

    def _answering_card(self, model: ModelBundle) -> ModelCard:
        return model.roles[self._state.settings.strategy.answering_role(model.roles)]

    def _load(self, image: ImageSession, model: ModelBundle) -> None:
        """Open the image and load the models on a worker thread."""
        settings, plane = self._state.settings, image.source.plane()
        if self._place != (image, plane):
            self._close_session()
        self._idle_session()
        self._place, self._loaded = (image, plane), None
        models = self._resources.models_for(model, settings.device, settings.precision)
        strategy = settings.strategy

        def load(task: Task[_LoadedLive]) -> _LoadedLive:
            pyramid = image.source.pyramid(plane)
            here = models.for_image(pyramid)
            context, _, _ = build_context(pyramid, here, get_strategy("patches"))
            deviation = measure_deviation(pyramid, here, context, Priority.LIVE)
            main, card = here["main"], answering_network(here, strategy).card
            maps, note = empty_result_maps(pyramid, main, card), str(deviation or "")
            return _LoadedLive(image, plane, pyramid, models, here, main, card, maps, note)

        self._task = self._background.submit(
            "load", load, self._show_empty_maps, failed=self._fail_loading, owner=image
        )
        self._state.set_live_status(image, "loading the model")

    def _fail_loading(self, error: Exception) -> None:
        if self.enabled:
            self.set_enabled(False)
            self._state.report_error(format_error(error))

    def _show_empty_maps(self, loaded: _LoadedLive) -> None:
        """Put empty maps on the image."""
        self._loaded = loaded
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = LiveRenderer(loaded.maps)
        if not self.enabled or loaded.image is not self._state.image:
            return
        self._state.show_results(loaded.image, loaded.maps, keep_run=True)
        self._state.set_estimate(loaded.image, NO_ESTIMATE, "")
        self._state.set_notes(loaded.image, [loaded.note] if loaded.note else [])
        self._settings_changed, self._view = True, None
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
        self._renderer = self._loaded = self._place = None

    # Following.

    def _sync_settings(self, loaded: _LoadedLive) -> None:
        if not self._settings_changed:
            return
        self._settings_changed = False
        self._cancel_prior()
        self._idle_session()
        self._cells_in_view, self._view = [], None
        self._cells_done.clear()
        self._state.error_raised.emit("")
        try:
            resolved = self._state.resolve(whole=True)
        except HrviewerError as error:
            # A half typed number is no budget yet: reported in the panel only, and waited for.
            self._selection = -1
            self._state.error_raised.emit(str(error))
            return
        if not resolved.prior_sources:
            self._apply_settings(loaded, resolved, resolved.priors)
            return
        self._selection = -1  # no cells before the prior map is read
        self._prior_task = self._background.submit(
            "live",
            lambda task: resolved.load_priors(),
            partial(self._apply_settings, loaded, resolved),
            owner=loaded.image,
        )

    def _cancel_prior(self) -> None:
        if self._prior_task is not None:
            self._prior_task.cancel()
            self._prior_task = None

    def _apply_settings(self, loaded: _LoadedLive, resolved: ResolvedRun, priors: Priors) -> None:
        if loaded is not self._loaded or not self.enabled:
            return
        assert self._renderer is not None
        strategy, params, budget = resolved.strategy, resolved.params, resolved.budget
        if self.session is None:
            self.session = LiveSession(
                loaded.pyramid,
                loaded.models,
                strategy,
                params,
                budget=budget,
                cache=self._resources.result_cache(),
                on_update=self._on_update,
                on_error=self._on_error,
                prefetch=True,
            )
        self._selection = self.session.select(strategy, params, budget, loaded.models, priors)
        self._renderer.select(self._selection)
        self._aggregation = aggregation_of(params)
        self._switched_at = time.perf_counter()
        self._was_running = True

    def _follow_view(self, loaded: _LoadedLive) -> None:
        if self.session is None or self._selection < 0:
            return
        view, now, first = loaded.image.source.viewport(), time.perf_counter(), self._view is None
        if view != self._view:
            self._view, self._moved_at, self._moving = view, now, True
        if self._moving and (first or now - self._moved_at >= SETTLE_SECONDS):
            self._moving = False
            self._request_view(self.session, view)

    def _request_view(self, session: LiveSession, view: Viewport) -> None:
        assert self._renderer is not None
        self._cells_in_view = visible_cells(view.rect, view.side, session.pyramid.rect)
        wanted = set(self._cells_in_view)
        self._cells_done = {rect: cell for rect, cell in self._cells_done.items() if rect in wanted}
        for cell in session.follow_view(view.rect, view.side):
            self._cells_done[cell.rect] = cell
            self._renderer.enqueue(self._selection, cell.rect, cell)
        self._state.live.request += 1
        self._was_running = True

    # Updates.

    def _on_update(self, selection: int, rect: Rect, update: ViewportCell | Update | None) -> None:
        """Draw an update of the session and post it; on its thread."""
        if isinstance(update, InferenceResult | ViewportCell):
            self._background.post(partial(self._process_update, selection, rect, update))
        renderer = self._renderer
        if renderer is not None:
            renderer.enqueue(selection, rect, update)

    def _on_error(self, error: Exception) -> None:
        self._background.post(partial(self._process_error, self._selection, error))

    def _process_error(self, selection: int, error: Exception) -> None:
        if selection == self._selection and self.enabled:
            self._state.error_raised.emit(format_error(error))

    def _process_update(
        self, selection: int, rect: Rect, update: InferenceResult | ViewportCell
    ) -> None:
        if selection != self._selection:
            return
        if isinstance(update, InferenceResult):
            self._count_patch(update)
        else:
            self._new_cells = True
            if rect in self._cells_in_view:
                self._cells_done[rect] = update

    def _update_state(self, loaded: _LoadedLive) -> None:
        """Let overlays be redrawn, and report."""
        live, now = self._state.live, time.perf_counter()
        drawn = self._renderer is None or self._renderer.is_done
        live.held = self._moving or self.session is None or (self.switching and not drawn)
        if live.held or self.session is None:
            return
        pending, self._new_cells, new = self.session.pending, False, self._new_cells
        live.updating = bool(pending) or new
        if now - self._reported_at >= REPORT_SECONDS and (live.updating or self._was_running):
            self._reported_at, self._was_running = now, live.updating
            self._report(loaded, pending, now)

    def _count_patch(self, result: InferenceResult) -> None:
        self._patch_count += 1
        if result.status == "cached":
            self._cached_count += 1
        elif result.status == "done":
            pixels = result.patch.core.area / max(result.patch.scale, 1e-9) ** 2
            self._recent.append((time.perf_counter(), pixels, result.cost.flops))

    def _report(self, loaded: _LoadedLive, pending: int, now: float) -> None:
        """Report the estimate in view, its extent, and the speed."""
        state, image, card = self._state, loaded.image, loaded.card
        done = [self._cells_done[rect] for rect in self._cells_in_view if rect in self._cells_done]
        total = len(self._cells_in_view)
        additive = map_kind(card) == "mass" or card.task == "segmentation"
        together = combine_cells(done, additive, self._aggregation)
        found = estimate_to_dict(
            card,
            together.values,
            together.interval,
            Rect(0, 0, 1, max(1, round(together.area or 0))),
            loaded.pyramid.pixel_size,
            exhaustive=together.exhaustive,
            synthetic=loaded.pyramid.synthetic_name,
            main=loaded.main.card,
            class_intervals=together.class_intervals,
            aggregation=self._aggregation,
        )
        extent = "in view"
        if len(done) < total:
            extent += f" so far ({len(done)} of {total} area{'s'[: total != 1]})"
        estimate = EstimateText("…") if found is None else describe_estimate(found)
        results = [result for cell in done for _, group in cell.results for result in group]
        # Cells share what they request of the whole image.
        costs = {(result.role, result.patch): result.cost.flops for result in results}
        count = f"{len(costs):,} {pluralize('patch', len(costs))} in view"
        cost = f"{format_si(sum(costs.values()), 'FLOP')} · {count}"
        scales = describe_scales(done, native_scale(loaded.main.card, loaded.pyramid)[0])
        cost += f" · {scales}, as in a run" if scales else ""
        state.set_estimate(image, replace(estimate, extent=extent), cost)
        state.set_status(image, Status(len(done) / total if total else 0.0, ""))
        speed, rest = self._rates(loaded, pending, now)
        state.set_live_status(image, f"{speed} · {rest}", speed)

    def _rates(self, loaded: _LoadedLive, pending: int, now: float) -> tuple[str, str]:
        """Return the speed with what is pending, and the back end with the share of the cache."""
        while self._recent and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()
        backend = loaded.main.backend.split()[0]
        if loaded.main.precision != "float32":
            backend += f" in {loaded.main.precision}"
        cached = f"{self._cached_count:,} of {self._patch_count:,} patches from the cache"
        rest = f"{backend} on {loaded.main.device} · {cached}"
        if not pending:
            return "up to date", rest
        speed = f"{pending} area{'s' * (pending != 1)} pending"
        if self._recent:
            seconds = max(now - self._recent[0][0], 0.5)
            pixels, flops = (sum(row[i] for row in self._recent) / seconds for i in (1, 2))
            tiles = len(self._recent) / seconds
            speed = (
                f"{tiles:.3g} tiles/s · {pixels / 1e6:.3g} MP/s · "
                f"{format_si(flops, 'FLOP')}/s · {speed}"
            )
        return speed, rest


def same_output(one: ModelCard, other: ModelCard) -> bool:
    """Whether predictions of two networks mean the same, and so go on the same maps."""
    return (one.task, one.classes) == (other.task, other.classes)
