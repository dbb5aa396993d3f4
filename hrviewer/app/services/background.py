"""Work on other threads, whose results arrive in one place.

A service submits work to a lane, a thread that takes one task after another, with a function for
the result; `poll`, called once a tick on the front end's thread, calls it. Messages
from other threads arrive the same way, by `post`. The result of a task that was cancelled, or
whose image was closed in the meantime, is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from hrviewer.app.image_session import ImageSession
from hrviewer.app.state import AppState
from hrviewer.errors import HrviewerError, format_error

__all__ = ["Background", "Task"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Task(Generic[T]):
    """One piece of work on another thread.

    Attributes
    ----------
    cancelled : bool
        Whether its result is no longer wanted; long work asks for it.
    """

    def __init__(self, background: Background, progress: Callable[[Any], None] | None) -> None:
        self._background, self._progress = background, progress
        self._cancelled = threading.Event()
        self._latest: deque[Any] = deque(maxlen=1)
        self._finished = False
        self.future: Future[T]

    @property
    def is_pending(self) -> bool:
        """Whether its result is wanted and has not arrived."""
        return not self._finished and not self.cancelled

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer wanted."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Drop the result."""
        self._cancelled.set()
        self.future.cancel()

    def report(self, value: Any) -> None:
        """Report progress from the work's thread; of several reports in a tick the last counts."""
        self._latest.append(value)
        self._background.post(self._deliver)

    def _deliver(self) -> None:
        # An earlier message of the same tick may have delivered the latest value already.
        value = self._latest.pop() if self._latest else None
        if value is not None and self._progress is not None and not self.cancelled:
            self._progress(value)


class Background:
    """Threads of an application, and the inbox of their results.

    Parameters
    ----------
    state : AppState
        Reports the errors of tasks that do not handle them.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._closed = False

    def submit(
        self,
        lane: str,
        work: Callable[[Task[T]], T],
        done: Callable[[T], None],
        *,
        failed: Callable[[Exception], None] | None = None,
        progress: Callable[[Any], None] | None = None,
        owner: ImageSession | None = None,
        clear_errors: bool = True,
    ) -> Task[T]:
        """Do work on a lane's thread.

        Parameters
        ----------
        lane : str
            Name of the thread; tasks of one lane follow each other.
        work : callable
            Called with its task on that thread.
        done : callable
            Called with the result by `poll`; a `HrviewerError` that it raises is reported.
        failed : callable, optional
            Called with the error by `poll`; by default the error is reported in one line.
        progress : callable, optional
            Called by `poll` with what the work reports.
        owner : ImageSession, optional
            The image whose end ends the task.
        clear_errors : bool
            Whether an earlier error is removed from the front end when the task is done.
        """
        task: Task[T] = Task(self, progress)

        def finish() -> None:
            task._finished = True
            if task.cancelled or (owner is not None and owner.closed):
                return
            try:
                result = task.future.result()
            except CancelledError:
                return
            except Exception as error:
                if not isinstance(error, HrviewerError):
                    log.exception("work on lane %s failed", lane, exc_info=error)
                # Its frames would keep what the front end has removed alive.
                error.__traceback__ = None
                if failed is not None:
                    failed(error)
                else:
                    self._state.error_raised.emit("")
                    self._state.report_error(format_error(error))
                return
            with self._state.reporting_errors(clear=clear_errors):
                done(result)

        if lane not in self._lanes:
            self._lanes[lane] = ThreadPoolExecutor(1, f"hrviewer-{lane}")
        task.future = self._lanes[lane].submit(work, task)
        task.future.add_done_callback(lambda future: self.post(finish))
        return task

    def post(self, message: Callable[[], None]) -> None:
        """Have something called by the next `poll`; from any thread."""
        if not self._closed:
            self._inbox.append(message)

    def poll(self) -> None:
        """Call what arrived since the last time; on the front end's thread."""
        for _ in range(len(self._inbox)):
            self._inbox.popleft()()

    def close(self) -> None:
        """Drop everything; the threads end after the work in progress."""
        self._closed = True
        for executor in self._lanes.values():
            executor.shutdown(wait=False, cancel_futures=True)
        self._inbox.clear()
