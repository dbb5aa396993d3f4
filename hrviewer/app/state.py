"""State of the application: settings, open images, the current one, and signals.

Services and front ends get the state and not each other. One image at a time has results on the
screen; an image that gets results takes them over from another one. When another image becomes
current, every signal about an image is emitted again with the values of that image, which are
empty at first: a number of one image is never displayed beside another.

Invariant: everything here is called on the front end's thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from psygnal import Signal

from hrviewer.app.image_session import IDLE, ImageSession, ImageSource, Status
from hrviewer.app.maps.patch_preview import PatchInspection
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.settings import ResolvedRun, RunSettings
from hrviewer.errors import HrviewerError
from hrviewer.formatting import NO_ESTIMATE, EstimateText
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle, installed_bundles
from hrviewer.runs import Run
from hrviewer.runs.model import ModelLike, as_bundle
from hrviewer.strategies import Strategy, get_strategy

__all__ = ["AppState", "LiveState", "PatchClick", "RunState", "Status"]

RunState = Literal["idle", "starting", "running", "paused", "stopping"]


@dataclass
class LiveState:
    """Live as front ends need it to redraw overlays.

    Parameters
    ----------
    enabled : bool
        Whether Live follows the view.
    held : bool
        Whether overlays stand still: the view moves, or new maps are not drawn yet.
    updating : bool
        Whether cells are pending.
    request : int
        Number of the last requested view; overlays of a new one are redrawn at once.
    """

    enabled: bool = False
    held: bool = False
    updating: bool = False
    request: int = 0


@dataclass(frozen=True)
class PatchClick:
    """A click on the image.

    Parameters
    ----------
    point : tuple of float
        Level-0 pixels, ``(y, x)``.
    embeddings_visible : bool
        Whether embeddings are displayed, so that a click labels them or compares with them.
    attention_wanted : bool
        Whether the attention of a token is displayed, or was never asked for.
    """

    point: tuple[float, float]
    embeddings_visible: bool = False
    attention_wanted: bool = True


class AppState:
    """Evented state of the application.

    Attributes
    ----------
    settings : RunSettings
        Settings of the next run.
    images : list of ImageSession
        Open images, in the order in which they were opened.
    image : ImageSession or None
        The current one.
    run_state : str
        State of the run in progress.
    live : LiveState
        State of Live.
    model_is_chosen : bool
        Whether the user selected the model; otherwise it is proposed by the image.
    label : str
        Class that a click on displayed embeddings assigns; empty for none.
    """

    image_changed = Signal()
    image_closed = Signal(object)
    image_renamed = Signal()
    model_changed = Signal()
    strategy_changed = Signal()
    run_state_changed = Signal(str)
    run_starting = Signal()
    run_shown = Signal(object)
    overlays_replaced = Signal()
    progress_changed = Signal(object)
    estimate_changed = Signal(EstimateText, str)
    notes_changed = Signal(list)
    error_raised = Signal(str)
    error_notified = Signal(str)
    patch_clicked = Signal(object)
    patch_inspected = Signal(object)
    embeddings_requested = Signal()
    objects_drawn = Signal()
    live_changed = Signal(bool)
    live_status_changed = Signal(str)
    hud_changed = Signal(str)
    ground_truth_changed = Signal()
    ground_truth_status_changed = Signal(str)
    labels_changed = Signal()
    export_progress_changed = Signal(float, str)
    annotations_saved = Signal(str)

    def __init__(self) -> None:
        self.settings = RunSettings()
        self.images: list[ImageSession] = []
        self.image: ImageSession | None = None
        self.run_state: RunState = "idle"
        self.live = LiveState()
        self.model_is_chosen = False
        self.label = ""

    # Images.

    def add_image(self, source: ImageSource) -> ImageSession:
        """Open an image; it becomes current by `select_image`."""
        session = ImageSession(source)
        self.images.append(session)
        return session

    def select_image(self, session: ImageSession | None) -> None:
        """Make an image the current one."""
        if session is not self.image:
            self.image = session
            self.image_changed.emit()
            self._emit_image()

    def close_image(self, session: ImageSession) -> None:
        """End an image and everything that belongs to it; the front end selects another one."""
        if session.closed:
            return
        session.close()
        self.images = [other for other in self.images if other is not session]
        self.image_closed.emit(session)
        if session is self.image:
            self.select_image(None)

    def require_image(self) -> ImageSession:
        """Return the current image.

        Raises
        ------
        HrviewerError
            If there is none.
        """
        if self.image is None:
            raise HrviewerError("open an image first")
        return self.image

    # Settings.

    def set_model(self, model: ModelLike) -> None:
        """Select a model: the name of a bundle, a folder, a file or a loaded model."""
        with self.reporting_errors():
            self.settings.model = as_bundle(model)
            self.model_is_chosen = True
            self.model_changed.emit()

    def propose_model(self, model: ModelBundle | None) -> None:
        """Select the model that fits the image, until the user selects one; None if none does."""
        self.settings.model = model
        self.model_changed.emit()

    def set_strategy(self, name: str) -> None:
        """Select a strategy; its parameters are the defaults again."""
        with self.reporting_errors():
            self.settings.strategy = get_strategy(name)
            self.settings.params = {}
            self.strategy_changed.emit()

    @staticmethod
    def installed_models() -> list[str]:
        """Return the names of the installed model bundles."""
        return list(installed_bundles())

    def resolve(self, *, strategy: Strategy | None = None, whole: bool = False) -> ResolvedRun:
        """Return the settings for the current image, checked, by `RunSettings.resolve`."""
        return self.settings.resolve(self.require_image(), strategy=strategy, whole=whole)

    def selected_rect(self) -> Rect | None:
        """Return the selected region of the current image; None for the whole image."""
        return self.settings.selected_rect(self.require_image().source)

    # Results.

    @property
    def run(self) -> Run | None:
        """The finished run on the current image."""
        return None if self.image is None else self.image.run

    @property
    def maps(self) -> ResultMaps | None:
        """The result maps on the current image."""
        return None if self.image is None else self.image.maps

    @property
    def resumable_run(self) -> Run | None:
        """The run on the current image, if it was stopped before its end and can be resumed."""
        if self.run_state != "idle" or self.image is None or self.image.run is None:
            return None
        run, key = self.image.run, self.image.source.image_key
        return None if run.complete or key not in (None, run.image_key) else run

    def show_results(
        self,
        session: ImageSession,
        maps: ResultMaps,
        run: Run | None = None,
        *,
        keep_run: bool = False,
    ) -> None:
        """Put result maps on an image, in place of all others.

        Parameters
        ----------
        session : ImageSession
            The image.
        maps : ResultMaps
            Its maps.
        run : Run, optional
            The finished run that they show.
        keep_run : bool
            Whether the image's last run stays available, as under the maps of Live.
        """
        if session.closed:
            return
        for other in self.images:
            if other is not session and other.maps is not None:
                other.clear_results()
        maps.share_scales(session.colour_scales)
        session.maps, session.inspection = maps, None
        if not keep_run:
            session.run = run
        self.overlays_replaced.emit()
        if session is self.image:
            self.patch_inspected.emit(None)

    def clear_results(self, session: ImageSession) -> None:
        """Forget the results on an image."""
        session.clear_results()
        if session is self.image:
            self._emit_image()

    def set_run_state(self, run_state: RunState) -> None:
        """Set the state of the run in progress."""
        if run_state != self.run_state:
            self.run_state = run_state
            self.run_state_changed.emit(run_state)

    def set_status(self, session: ImageSession, status: Status) -> None:
        """Set the progress on an image."""
        session.status = status
        if session is self.image:
            self.progress_changed.emit(status)

    def set_estimate(
        self,
        session: ImageSession,
        estimate: EstimateText | None = None,
        cost: str | None = None,
    ) -> None:
        """Set the estimate on an image, or its cost; None leaves one as it is."""
        session.estimate = session.estimate if estimate is None else estimate
        session.cost = session.cost if cost is None else cost
        if session is self.image:
            self.estimate_changed.emit(session.estimate, session.cost)

    def set_notes(self, session: ImageSession, notes: Sequence[str]) -> None:
        """Set the remarks on an image's run."""
        session.notes = [*notes]
        if session is self.image:
            self.notes_changed.emit(session.notes)

    def set_inspection(self, session: ImageSession, inspection: PatchInspection | None) -> None:
        """Set the patch that was clicked last."""
        session.inspection = inspection
        if session is self.image:
            self.patch_inspected.emit(inspection)

    def set_live_status(self, session: ImageSession, status: str, hud: str = "") -> None:
        """Set the speed and progress of Live, for the panel and for the canvas."""
        session.live_status, session.hud = status, hud
        if session is self.image:
            self.live_status_changed.emit(status)
            self.hud_changed.emit(hud)

    def set_ground_truth_status(self, session: ImageSession, status: str) -> None:
        """Set the message about the displayed ground truth."""
        session.ground_truth_status = status
        if session is self.image:
            self.ground_truth_status_changed.emit(status)

    # Errors.

    def report_error(self, message: str) -> None:
        """Report that something cannot be done."""
        self.error_raised.emit(message)
        if self.image is not None:
            self.set_status(self.image, IDLE)
        else:
            self.progress_changed.emit(IDLE)
        self.error_notified.emit(message)

    @contextmanager
    def reporting_errors(self, *, clear: bool = True) -> Iterator[None]:
        """Report a `HrviewerError` in one line; with `clear`, an earlier error is removed."""
        if clear:
            self.error_raised.emit("")
        try:
            yield
        except HrviewerError as error:
            self.report_error(str(error))

    def _emit_image(self) -> None:
        """Emit everything about the current image."""
        image = self.image
        self.overlays_replaced.emit()
        self.progress_changed.emit(IDLE if image is None else image.status)
        self.estimate_changed.emit(
            *((NO_ESTIMATE, "") if image is None else (image.estimate, image.cost))
        )
        self.notes_changed.emit([] if image is None else image.notes)
        self.patch_inspected.emit(None if image is None else image.inspection)
        self.live_status_changed.emit("" if image is None else image.live_status)
        self.hud_changed.emit("" if image is None else image.hud)
        self.ground_truth_changed.emit()
        self.ground_truth_status_changed.emit("" if image is None else image.ground_truth_status)
        self.labels_changed.emit()
