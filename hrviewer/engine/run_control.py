"""Pausing and stopping a run from another thread."""

from __future__ import annotations

import threading

__all__ = ["Control", "Stopped"]


class Stopped(Exception):
    """The person stopped the run; what was seen stays."""


class Control:
    """What the screen holds of a run at work."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()

    def stop(self) -> None:
        """End the run within one batch; it can be resumed."""
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Hold the run after the batch in flight."""
        self._go.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._go.set()

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to end."""
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        """Whether the run is held."""
        return not self._go.is_set()

    def wait(self) -> bool:
        """Wait while paused; return whether to go on."""
        self._go.wait()
        return not self.stopped
