"""A scripted camera, and the stalls of the event loop while it moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "CameraMove",
    "Stalls",
    "camera_moves",
    "move_camera",
    "play_moves",
    "process_events",
    "sample_places",
    "wait_until",
]

TICK_SECONDS = 0.005
MOVE_SECONDS = 1 / 30
"""Seconds between two moves of the camera."""


@dataclass(frozen=True)
class CameraMove:
    """A place to be at: level-0 pixels, screen pixels per pixel, and seconds to stay after it."""

    center: tuple[float, float]
    zoom: float
    pause: float = 0.0


@dataclass
class Stalls:
    """The gaps between ticks, less the period; and what of them the window's thread computed."""

    moving: list[float] = field(default_factory=list)
    resting: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)
    busy: float = 0.0

    @property
    def p95(self) -> float:
        """Seconds, while the camera moves."""
        return float(np.percentile(self.moving, 95))

    @property
    def longest(self) -> float:
        """Seconds, at any time."""
        return max(*self.moving, *self.resting)


def camera_moves(shape: tuple[int, int], turn: int, turns: int) -> list[CameraMove]:
    """Return a pan, a zoom out, a pan there, a zoom in; in this turn's band of the image."""
    h, w = shape
    band = h / turns
    y = band * (turn + 0.5)
    x = 0.3 * w
    done = [CameraMove((y, x), 1.0, 0.6)]

    def pan(n: int, dy: float, dx: float) -> None:
        (cy, cx), zoom = done[-1].center, done[-1].zoom
        for i in range(1, n + 1):
            done.append(CameraMove((cy + i * dy / zoom, cx + i * dx / zoom), zoom))
        done[-1] = CameraMove(done[-1].center, zoom, 0.6)

    def zoom(n: int, factor: float) -> None:
        centre, start = done[-1].center, done[-1].zoom
        done.extend(CameraMove(centre, start * factor ** (i / n)) for i in range(1, n + 1))
        done[-1] = CameraMove(centre, done[-1].zoom, 0.6)

    pan(45, 0, 16)
    pan(30, 10, 10)
    zoom(30, 1 / 4)
    pan(30, 0, 12)
    zoom(30, 4)
    pan(45, -6, -16)
    return done


def sample_places(shape: tuple[int, int], n: int, offset: float = 0.0) -> list[CameraMove]:
    """Return places at full resolution, far from those of `moves` and of each other."""
    h, w = shape
    return [
        CameraMove((h * (0.1 + 0.8 * (i + offset) / n), w * (0.9 if i % 2 else 0.75)), 1.0)
        for i in range(n)
    ]


def process_events(seconds: float) -> None:
    """Let the window live for a while."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the window live until something holds."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    loop, timer = QEventLoop(), QTimer()
    end = time.perf_counter() + seconds
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: loop.quit() if condition() or time.perf_counter() > end else None)
    timer.start(round(1000 * TICK_SECONDS))
    loop.exec()
    timer.stop()
    if not condition():
        raise TimeoutError(f"it did not come about in {seconds:g} s")


def play_moves(
    viewer: Any, script: Sequence[CameraMove], is_pending: Callable[[], bool] = lambda: False
) -> Stalls:
    """Move the camera, and return how the event loop took it."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    from hrviewer.pyramid.tile_cache import tile_cache

    move_camera(viewer, script[0])
    process_events(0.5)
    tile_cache().clear()
    found, loop = Stalls(), QEventLoop()
    ticker, mover = QTimer(), QTimer()
    last, rest_until, busy = time.perf_counter(), 0.0, []
    computed = time.thread_time()
    left = iter(script)

    def tick() -> None:
        nonlocal last, computed
        now, computed_now = time.perf_counter(), time.thread_time()
        found.computing.append(computed_now - computed)
        computed = computed_now
        kind = found.resting if last < rest_until else found.moving
        kind.append(max(0.0, now - last - TICK_SECONDS))
        last = now

    def move() -> None:
        nonlocal rest_until
        if time.perf_counter() < rest_until:
            return
        step = next(left, None)
        if step is None:
            loop.quit()
            return
        move_camera(viewer, step)
        busy.append(is_pending())
        rest_until = time.perf_counter() + step.pause if step.pause else 0.0

    for timer, seconds, act in ((ticker, TICK_SECONDS, tick), (mover, MOVE_SECONDS, move)):
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(act)
        timer.start(round(1000 * seconds))
    loop.exec()
    ticker.stop()
    mover.stop()
    found.busy = float(np.mean(busy))
    return found


def move_camera(viewer: Any, to: CameraMove) -> None:
    """Put the camera somewhere."""
    base = viewer.layers[0]
    scale = base.scale[-2:]
    centre = np.asarray(to.center) * scale + base.translate[-2:]
    viewer.scene.camera.center = (0.0, *centre)
    viewer.scene.camera.zoom = to.zoom / scale[-1]
