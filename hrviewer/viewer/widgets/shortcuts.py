"""Keyboard shortcuts, while the panel is in the window."""

from __future__ import annotations

from functools import partial

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QWidget

from hrviewer.strategies import strategy_ids
from hrviewer.viewer.controller import Controller

__all__ = ["KEY_BINDINGS", "Shortcuts"]

KEY_BINDINGS = {
    "run": "F5",
    "stop": "Shift+F5",
    "pause": "F6",
    "live": "F8",
    "next": "F9",
    "previous": "Shift+F9",
}
"""Keys by action; napari leaves them free."""


class Shortcuts:
    """Actions of the keys.

    Parameters
    ----------
    panel : QWidget
        The panel in whose window they work.
    controller : Controller
        Has the services.
    """

    def __init__(self, panel: QWidget, controller: Controller) -> None:
        self._controller = controller
        actions = {
            "run": self._run,
            "stop": self._stop,
            "pause": self._pause_or_resume,
            "live": self._toggle_live,
            "next": partial(self._step_strategy, 1),
            "previous": partial(self._step_strategy, -1),
        }
        self.keys = {name: QShortcut(QKeySequence(KEY_BINDINGS[name]), panel) for name in actions}
        for name, action in actions.items():
            self.keys[name].activated.connect(action)

    def _run(self) -> None:
        if self._controller.state.run_state == "idle":
            self._controller.run_service.start()

    def _stop(self) -> None:
        if self._controller.state.run_state in ("starting", "running", "paused"):
            self._controller.run_service.stop()

    def _pause_or_resume(self) -> None:
        controller = self._controller
        if controller.state.run_state == "running":
            controller.run_service.pause()
        elif controller.state.run_state == "paused" or controller.state.resumable_run is not None:
            controller.run_service.resume()

    def _toggle_live(self) -> None:
        if self._controller.state.run_state == "idle":
            self._controller.live.set_enabled(not self._controller.live.enabled)

    def _step_strategy(self, step: int) -> None:
        """Select the next or the previous strategy, cyclically."""
        names = list(strategy_ids())
        at = names.index(self._controller.state.settings.strategy.id)
        self._controller.state.set_strategy(names[(at + step) % len(names)])
