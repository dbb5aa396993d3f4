"""Wall time of a run, without pauses, and its limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from hrviewer.engine.run_control import RunControl

__all__ = ["RunClock"]

MIN_RESERVE, MAX_RESERVE = 0.03, 0.2
"""Least share of a limit that is reserved, and the most."""


class RunClock:
    """Seconds of a run so far, over all sessions in which it was resumed.

    Parameters
    ----------
    limit : float
        Seconds after which the run ends.
    control : RunControl, optional
        Its pauses do not count.
    now : callable
        Returns the time in seconds; another clock makes tests independent of the machine.

    Attributes
    ----------
    reserve : float
        Seconds before the limit at which it expires, for stitching and writing what was found
        until then; at least 3 % of the limit, and a fifth at most.

    Examples
    --------
    >>> times = iter([10.0, 12.5, 13.0])
    >>> clock = RunClock(limit=3.0, now=lambda: next(times))
    >>> clock.start()
    >>> clock.elapsed, clock.expired
    (2.5, True)
    """

    def __init__(
        self,
        limit: float = math.inf,
        control: RunControl | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limit, self._control, self._now = limit, control or RunControl(), now
        self.reserve = 0.0
        self._start = math.nan

    def start(self, seconds: float = 0.0) -> None:
        """Start, or set to the seconds that the run took until here in an earlier session."""
        self._start = self._now() - self._control.paused_seconds - seconds

    @property
    def elapsed(self) -> float:
        """Seconds of the run so far."""
        return self._now() - self._control.paused_seconds - self._start

    @property
    def expired(self) -> bool:
        """Whether the limit is reached, less the reserve."""
        return self.limit < math.inf and self.expires_at(self.elapsed)

    def expires_at(self, elapsed: float) -> bool:
        """Return whether the limit, less the reserve, is reached after so many seconds."""
        share = min(max(self.reserve / self.limit, MIN_RESERVE), MAX_RESERVE)
        return self.limit < math.inf and elapsed >= self.limit * (1 - share)
