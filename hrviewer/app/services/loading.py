"""Loading of images and runs beside the front end's thread.

Reading a header, reading the coarsest level and reading a run's maps all happen on a worker thread;
the front end's thread only displays what was prepared. Coarse levels that an image lacks are built
once, while it is displayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.app.image_session import IDLE, ImageSession, Status
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.services.background import Background, Task
from hrviewer.app.services.run_service import list_notes, report_run
from hrviewer.app.state import AppState
from hrviewer.errors import HrviewerError, ImageReadError, RunError, format_error
from hrviewer.pyramid import Pyramid, open_pyramid, reopen_pyramid
from hrviewer.runs import Run

__all__ = ["ImageDisplay", "ImageLoader", "LoadedRun", "RunLoader"]


class ImageDisplay(ABC):
    """The part of a front end that displays images."""

    @abstractmethod
    def prepare(self, pyramid: Pyramid, *, load_coarsest: bool) -> Any:
        """Return what `show` needs; called on a worker thread, where it may read."""

    @abstractmethod
    def show(
        self, prepared: Any, *, replaced: ImageSession | None = None, fit: bool = True
    ) -> ImageSession:
        """Display an image, in place of another one if given, and make it the current one.

        With `fit` the view is fitted to it.
        """


class ImageLoader:
    """Opens images, one at a time: a newer one takes the place of an older one.

    Parameters
    ----------
    state : AppState
        Gets the image and the progress.
    background : Background
        Reads.
    display : ImageDisplay
        Displays the image.
    """

    def __init__(self, state: AppState, background: Background, display: ImageDisplay) -> None:
        self._state, self._background, self._display = state, background, display
        self._task: Task[Any] | None = None

    @property
    def is_running(self) -> bool:
        """Whether an image is being opened."""
        return self._task is not None and self._task.is_pending

    def open(
        self,
        path: str | Path,
        *,
        replaced: ImageSession | None = None,
        **options: Any,
    ) -> None:
        """Begin to open an image, on top of those there are; it comes with a later tick.

        Parameters
        ----------
        path : str or Path
            The image.
        replaced : ImageSession, optional
            The image that it replaces, as another plane of the same file.
        **options
            Series, plane and channels, as `hrviewer.open` takes them.
        """
        self.cancel()
        name = Path(path).name
        self._report(name, 0.0)
        self._task = self._background.submit(
            "read",
            partial(self._read, path, options),
            partial(self._show, replaced),
            failed=self._fail,
            progress=partial(self._report, name),
        )

    def cancel(self) -> None:
        """Give up what is being opened; levels that are half built are thrown away."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._state.progress_changed.emit(IDLE)

    def _read(self, path: str | Path, options: Mapping[str, Any], task: Task[Any]) -> Any:
        pyramid = open_pyramid(str(path), **options)
        try:
            if "://" not in str(path):
                _ = pyramid.series  # listed here, where reading may take time
            # Missing levels are built while the image is shown.
            return self._display.prepare(pyramid, load_coarsest=not pyramid.missing_levels())
        except BaseException:
            pyramid.close()
            raise

    def _report(self, name: str, fraction: float) -> None:
        self._state.progress_changed.emit(Status(fraction, f"opening {name}", busy=not fraction))

    def _show(self, replaced: ImageSession | None, prepared: Any) -> None:
        self._task = None
        self._state.progress_changed.emit(IDLE)
        self._display.show(prepared, replaced=replaced if replaced in self._state.images else None)

    def _fail(self, error: Exception) -> None:
        self._task = None
        self._state.progress_changed.emit(IDLE)
        with self._state.reporting_errors():
            raise error


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run read from its folder.

    Parameters
    ----------
    run : Run
        The run.
    maps : ResultMaps
        Its maps.
    pyramid : Pyramid or None
        The image at the run's path; None if it is open already, or gone.
    prepared : object
        What the display needs to show `pyramid`.
    """

    run: Run
    maps: ResultMaps
    pyramid: Pyramid | None
    prepared: Any


class RunLoader:
    """Displays finished runs again, on their images.

    Parameters
    ----------
    state : AppState
        Gets the results.
    background : Background
        Reads.
    display : ImageDisplay
        Displays the run's image if it is not open.
    """

    def __init__(self, state: AppState, background: Background, display: ImageDisplay) -> None:
        self._state, self._background, self._display = state, background, display
        self._task: Task[LoadedRun] | None = None
        state.run_starting.connect(self.cancel)

    @property
    def is_running(self) -> bool:
        """Whether a run is being read."""
        return self._task is not None and self._task.is_pending

    def open(self, path: str | Path, *, otherwise: Callable[[], None] | None = None) -> None:
        """Begin to read a run's folder; its overlays come with a later tick.

        Parameters
        ----------
        path : str or Path
            The run.
        otherwise : callable, optional
            Called if the run cannot be read, which is then a notification.
        """
        state = self._state
        with state.reporting_errors():
            if state.run_state != "idle":
                raise RunError("a run is in progress: stop it before opening another")
            state.run_starting.emit()
            state.progress_changed.emit(Status(0.0, f"opening {Path(path).name}", busy=True))
            known = {session.source.image_key for session in state.images}
            self._task = self._background.submit(
                "read",
                partial(self._read, Path(path), known),
                self._show,
                failed=partial(self._fail, otherwise),
            )

    def cancel(self) -> None:
        """Give up what is being read."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._state.progress_changed.emit(IDLE)

    def _read(self, path: Path, known: set[str | None], task: Task[LoadedRun]) -> LoadedRun:
        run = Run(path)
        image = run.header["image"]
        pyramid, prepared = None, None
        if run.image_key not in known:
            with suppress(HrviewerError):
                pyramid = reopen_pyramid(image)
        if pyramid is not None and pyramid.plane_shape == run.image_shape:
            prepared = self._display.prepare(pyramid, load_coarsest=False)
        return LoadedRun(run, ResultMaps.from_run(run), pyramid, prepared)

    def _show(self, loaded: LoadedRun) -> None:
        self._task = None
        notes = list_notes(loaded.run)
        session = self._find_image(loaded, notes)
        self._state.show_results(session, loaded.maps, loaded.run)
        report_run(self._state, session, loaded.run, notes)

    def _fail(self, otherwise: Callable[[], None] | None, error: Exception) -> None:
        self._task = None
        self._state.progress_changed.emit(IDLE)
        if otherwise is not None:
            self._state.error_notified.emit(format_error(error))
            otherwise()
            return
        with self._state.reporting_errors():
            raise error

    def _find_image(self, loaded: LoadedRun, notes: list[str]) -> ImageSession:
        """Return the image that the run was made on, as it is open or can be opened."""
        state, run, pyramid = self._state, loaded.run, loaded.pyramid
        wanted = run.header["image"]
        current = [] if state.image is None else [state.image]
        for session in [*current, *state.images]:
            if session.source.image_key == run.image_key:
                state.select_image(session)
                return session
        if pyramid is not None:
            if pyramid.fingerprint != wanted["fingerprint"]:
                notes.append(
                    f"{pyramid.name} has changed since this run: the overlays may not fit it"
                )
            if loaded.prepared is not None:
                return self._display.show(loaded.prepared, fit=False)
        path = wanted["path"]
        if state.image is not None and state.image.source.shape == run.image_shape:
            notes.append(
                f"shown on {state.image.name}: the run was made on {path}, which is another image"
            )
            return state.image
        raise ImageReadError(f"open the image of this run first: {path} does not exist any more")
