"""Pausing and stopping a run from another thread."""

from __future__ import annotations

import threading
import time

__all__ = ["RunControl", "RunStopped"]


class RunStopped(Exception):
    """The user stopped the run; results so far are kept."""


class RunControl:
    """Handle by which another thread pauses, resumes and stops a run."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._paused_at: float | None = None
        self._paused_before = 0.0

    def stop(self) -> None:
        """Stop after the current batch; the run can be resumed."""
        self._stop.set()
        self.resume()

    def pause(self) -> None:
        """Pause after the current batch."""
        if self._paused_at is None:
            self._paused_at = time.perf_counter()
        self._running.clear()

    def resume(self) -> None:
        """Continue after a pause."""
        if self._paused_at is not None:
            self._paused_before += time.perf_counter() - self._paused_at
            self._paused_at = None
        self._running.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        """Whether the run is paused."""
        return not self._running.is_set()

    @property
    def paused_seconds(self) -> float:
        """Duration of all pauses so far."""
        since = self._paused_at
        return self._paused_before + (0.0 if since is None else time.perf_counter() - since)

    def wait(self) -> bool:
        """Wait while paused; return False if the run was stopped."""
        self._running.wait()
        return not self.stopped
