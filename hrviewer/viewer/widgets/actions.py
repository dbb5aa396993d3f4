"""The user's actions, each with its key: for keys, menus and the command palette alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QTabWidget

from hrviewer.strategies import strategy_ids
from hrviewer.viewer.controller import Controller

__all__ = ["KEY_BINDINGS", "Actions"]

KEY_BINDINGS = {
    "run": "F5",
    "stop": "Shift+F5",
    "pause_or_resume": "F6",
    "toggle_live": "F8",
    "next_strategy": "F9",
    "previous_strategy": "Shift+F9",
}
"""Keys by action; napari leaves them free."""


class Actions:
    """What keys, menus and the command palette do.

    Parameters
    ----------
    panel : QTabWidget
        The panel in whose window the keys work, with the tabs Run, Compare and Export.
    controller : Controller
        Has the services.
    dialogs : mapping of str to callable
        Actions that ask for a file or a place, by name.

    Attributes
    ----------
    keys : dict of str to QShortcut
        Keyboard shortcuts by action.
    """

    def __init__(
        self,
        panel: QTabWidget,
        controller: Controller,
        dialogs: Mapping[str, Callable[[], object]],
    ) -> None:
        self._panel, self._controller = panel, controller
        self._actions: dict[str, Callable[[], object]] = {
            **dialogs,
            "run": self._run,
            "pause_or_resume": self._pause_or_resume,
            "stop": self._stop,
            "toggle_live": self._toggle_live,
            "next_strategy": partial(self._step_strategy, 1),
            "previous_strategy": partial(self._step_strategy, -1),
            "run_other_strategies": self._run_other_strategies,
            "show_run_tab": partial(self._show_tab, "Run"),
            "compare": partial(self._show_tab, "Compare"),
            "export": partial(self._show_tab, "Export"),
        }
        self.keys = {
            name: QShortcut(QKeySequence(key), panel) for name, key in KEY_BINDINGS.items()
        }
        for name, key in self.keys.items():
            key.activated.connect(self._actions[name])

    @property
    def names(self) -> list[str]:
        """Names of the actions; the manifest has a command for each."""
        return list(self._actions)

    def __call__(self, name: str) -> None:
        """Do an action, as its key does."""
        self._actions[name]()

    def _show_tab(self, title: str) -> None:
        """Show the tab of a title, wherever it is."""
        titles = [self._panel.tabText(i) for i in range(self._panel.count())]
        self._panel.setCurrentIndex(titles.index(title))

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

    def _run_other_strategies(self) -> None:
        """Run the strategies that have no run on this image yet."""
        controller = self._controller
        if controller.state.run_state == "idle":
            self._show_tab("Compare")
            controller.run_queue.start(
                [entry.strategy for entry in controller.compare_service.entries]
            )
