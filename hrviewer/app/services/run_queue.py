"""Running one strategy after another, to compare them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from psygnal import Signal

from hrviewer.errors import HrviewerError
from hrviewer.strategies import get_strategy, strategy_ids

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["RunQueue"]


class RunQueue:
    """Runs strategies in turn: the chosen one as it is chosen, the others as they are by default.

    Model, region and budget are those that are chosen when each begins. What fails is told, and
    the next one begins.

    Parameters
    ----------
    controller : Controller
        Knows what is chosen, and runs.

    Attributes
    ----------
    message : str
        Which one is at work; nothing where none is.
    """

    message_changed = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._pending: deque[str] = deque()
        self._total = 0
        self.message = ""

    @property
    def is_running(self) -> bool:
        """Whether there is one to come, or at work."""
        return self._total > 0

    def start(self, exclude: Collection[str] = ()) -> None:
        """Start all strategies that the model has the roles for, without those in `exclude`."""
        controller = self._controller
        with controller.reporting_errors():
            controller.require_image_layer()
            if controller.model is None:
                raise HrviewerError("choose a model first")
            networks = controller.loaded_models_for(controller.model)
            self._pending = deque(
                name
                for name in strategy_ids()
                if name not in exclude
                and all(role in networks for role in get_strategy(name).roles)
            )
            if not self._pending:
                raise HrviewerError(
                    "every strategy that this model has networks for has a run here"
                )
            self._total = len(self._pending)
            self.tick()

    def clear(self) -> None:
        """Begin no other one."""
        self._pending.clear()

    def tick(self) -> None:
        """Begin the next one when the last is over."""
        controller = self._controller
        if not self.is_running or controller.state != "idle":
            return
        if not self._pending:
            self._total = 0
            self._set_message("")
            return
        name = self._pending.popleft()
        self._set_message(f"{self._total - len(self._pending)} of {self._total}: {name}")
        chosen = controller.strategy.id
        controller.run_service.start(None, None if name == chosen else get_strategy(name))

    def _set_message(self, words: str) -> None:
        self.message = words
        self.message_changed.emit(words)
