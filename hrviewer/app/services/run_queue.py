"""Queue of runs: one strategy after another, for comparison."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from psygnal import Signal

from hrviewer.app.resources import Resources
from hrviewer.app.services.run_service import RunService
from hrviewer.app.state import AppState
from hrviewer.errors import RunError
from hrviewer.strategies import get_strategy, strategy_ids

__all__ = ["RunQueue"]


class RunQueue:
    """Runs strategies in turn: the selected one as selected, the others with their defaults.

    Model, region and budget are those that are selected when each begins. An error is reported,
    and the next run begins.

    Parameters
    ----------
    state : AppState
        Has the settings.
    resources : Resources
        Which roles the model has.
    runs : RunService
        Runs each.

    Attributes
    ----------
    message : str
        The run in progress; after the last one the strategies that were left out, and which role
        of the model each needs.
    """

    message_changed = Signal(str)

    def __init__(self, state: AppState, resources: Resources, runs: RunService) -> None:
        self._state, self._resources, self._runs = state, resources, runs
        self._pending: deque[str] = deque()
        self._total = 0
        self.message = self._left_out = ""
        runs.stop_requested.connect(self.clear)
        state.image_changed.connect(self.clear)

    @property
    def is_running(self) -> bool:
        """Whether a run of the queue is pending or in progress."""
        return self._total > 0

    def start(self, exclude: Collection[str] = ()) -> None:
        """Queue the strategies that the model has networks for, without those in `exclude`."""
        state, settings = self._state, self._state.settings
        with state.reporting_errors():
            state.require_image()
            model = settings.require_model()
            roles = self._resources.models_for(model, settings.device, settings.precision)
            missing = {
                name: [role for role in get_strategy(name).roles if role not in roles]
                for name in strategy_ids()
                if name not in exclude
            }
            self._pending = deque(name for name in missing if not missing[name])
            refused = [
                f"{name} ({', '.join(lacking)})" for name, lacking in missing.items() if lacking
            ]
            self._left_out = f"roles missing in this model: {', '.join(refused)}" if refused else ""
            if not self._pending:
                raise RunError(
                    "every strategy that this model has networks for has a run here"
                    + (f"; {self._left_out}" if self._left_out else "")
                )
            self._total = len(self._pending)
            self.tick()

    def clear(self) -> None:
        """Begin no other run."""
        self._pending.clear()

    def tick(self) -> None:
        """Begin the next run when the last one has ended."""
        if not self.is_running or self._state.run_state != "idle":
            return
        if not self._pending:
            self._total = 0
            self._set_message(self._left_out)
            return
        name = self._pending.popleft()
        self._set_message(f"{self._total - len(self._pending)} of {self._total}: {name}")
        selected = self._state.settings.strategy.id
        self._runs.start(strategy=None if name == selected else get_strategy(name))

    def _set_message(self, message: str) -> None:
        self.message = message
        self.message_changed.emit(message)
