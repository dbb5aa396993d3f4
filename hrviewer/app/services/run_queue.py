"""Running one strategy after another, to compare them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from psygnal import Signal

from hrviewer.errors import UserError
from hrviewer.strategies import get_strategy, strategy_ids

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Series"]


class Series:
    """Runs strategies in turn: the chosen one as it is chosen, the others as they are by default.

    Model, region and budget are those that are chosen when each begins. What fails is told, and
    the next one begins.

    Parameters
    ----------
    controller : Controller
        Knows what is chosen, and runs.

    Attributes
    ----------
    words : str
        Which one is at work; nothing where none is.
    """

    told = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._left: deque[str] = deque()
        self._total = 0
        self.words = ""

    @property
    def at_work(self) -> bool:
        """Whether there is one to come, or at work."""
        return self._total > 0

    def start(self, but: Collection[str] = ()) -> None:
        """Begin with what the model's pack has networks for; strategies in `but` are left out."""
        controller = self._controller
        with controller.telling():
            controller.need_base()
            if controller.pack is None:
                raise UserError("choose a model first")
            networks = controller.networks_of(controller.pack)
            self._left = deque(
                name
                for name in strategy_ids()
                if name not in but and all(role in networks for role in get_strategy(name).roles)
            )
            if not self._left:
                raise UserError("every strategy that this model has networks for has a run here")
            self._total = len(self._left)
            self.tick()

    def end(self) -> None:
        """Begin no other one."""
        self._left.clear()

    def tick(self) -> None:
        """Begin the next one when the last is over."""
        controller = self._controller
        if not self.at_work or controller.state != "idle":
            return
        if not self._left:
            self._total = 0
            self._tell("")
            return
        name = self._left.popleft()
        self._tell(f"{self._total - len(self._left)} of {self._total}: {name}")
        chosen = controller.strategy.id
        controller.running.start(None, None if name == chosen else get_strategy(name))

    def _tell(self, words: str) -> None:
        self.words = words
        self.told.emit(words)
