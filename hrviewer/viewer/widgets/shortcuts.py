"""Keys for what is done often, as long as the panel is in the window."""

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
    "hold": "F6",
    "live": "F8",
    "next": "F9",
    "before": "Shift+F9",
}
"""By what they do; napari leaves them free."""


class Shortcuts:
    """What the keys do.

    Parameters
    ----------
    panel : QWidget
        Whose window they are for.
    controller : Controller
        Does it.
    """

    def __init__(self, panel: QWidget, controller: Controller) -> None:
        self._controller = controller
        acts = {
            "run": self._run,
            "stop": self._stop,
            "hold": self._pause_or_resume,
            "live": self._toggle_live,
            "next": partial(self._step_strategy, 1),
            "before": partial(self._step_strategy, -1),
        }
        self.keys = {name: QShortcut(QKeySequence(KEY_BINDINGS[name]), panel) for name in acts}
        for name, act in acts.items():
            self.keys[name].activated.connect(act)

    def _run(self) -> None:
        if self._controller.state == "idle":
            self._controller.start()

    def _stop(self) -> None:
        if self._controller.state in ("starting", "running", "paused"):
            self._controller.stop()

    def _pause_or_resume(self) -> None:
        controller = self._controller
        if controller.state == "running":
            controller.pause()
        elif controller.state == "paused" or controller.resumable_run is not None:
            controller.resume()

    def _toggle_live(self) -> None:
        if self._controller.state == "idle":
            self._controller.live.set_enabled(not self._controller.live.enabled)

    def _step_strategy(self, step: int) -> None:
        """Choose the next strategy, or the one before, round and round."""
        names = list(strategy_ids())
        at = names.index(self._controller.strategy.id)
        self._controller.set_strategy(names[(at + step) % len(names)])
