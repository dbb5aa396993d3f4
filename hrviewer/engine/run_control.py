"""Pausing and stopping a run from another thread."""

from __future__ import annotations

import threading

__all__ = ["RunControl", "RunStopped"]


class RunStopped(Exception):
    """The person stopped the run; what was seen stays."""


class RunControl:
    """What the screen holds of a run at work."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()

    def stop(self) -> None:
        """End the run within one batch; it can be resumed."""
        self._stop.set()
        self._running.set()

    def pause(self) -> None:
        """Hold the run after the batch in flight."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._running.set()

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to end."""
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        """Whether the run is held."""
        return not self._running.is_set()

    def wait(self) -> bool:
        """Wait while paused; return whether to go on."""
        self._running.wait()
        return not self.stopped
