"""Smoothness and latency of the window with Live on: ``python -m benchmarks.live``.

One JSON object is printed. A real window is opened (on a virtual screen where there
is none) and a script moves its camera as a hand would: pans at full resolution, zooms out and in,
rests. The script is played three ways, from an empty tile cache: once in plain napari with the
levels as dask arrays; and in turns, each on another part of the image, on our layer with Live off
and on. Only the last two may be compared. Results are cached nowhere but in the session.

``napari_p95_ms``, ``idle_p95_ms``, ``live_p95_ms``
    A timer of 5 ms ticks in the event loop. A stall is the gap between two ticks less 5 ms. Given
    is the 95th percentile of the stalls in which the camera moved, in milliseconds; drawing the
    moved picture is part of them.
``ratio``
    ``live_p95_ms`` over ``idle_p95_ms``; ``ratios`` has it turn by turn.
``max_stall_ms``
    The longest stall with Live on, moving or at rest; ``idle_max_stall_ms`` and
    ``napari_max_stall_ms`` for comparison.
``busy``
    The fraction of moves, with Live on, in which the session had cells to run.
``first_overlay_ms``
    From the camera's last move, to a new part of the image, to the end of the first
    drawing of the canvas that shows something of the output there; waiting for rest included.
``full_view_ms``
    From the same moment to the end of the drawing after which nothing is left to run or draw.
``recomputed_on_revisit``
    Results computed when the camera returns to an earlier view.
``stop_ms``, ``batch_ms``
    From switching Live off during inference until no network runs; and the median time of a batch.
``toggle_back_ms``
    From selecting an earlier strategy again to the end of the drawing that shows its maps.

Numbers of one moment are medians; the lists are given too. Nothing says how other processes
disturbed it but ``load``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._camera import (
    CameraMove,
    Stalls,
    camera_moves,
    move_camera,
    play_moves,
    process_events,
    sample_places,
    wait_until,
)

THREAD_POLICIES = ("asis", "idle", "nice", "rude")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("image", help="any image that hrviewer opens")
    parser.add_argument(
        "--model", default="nuclei", help="a model bundle, its folder or a weights file"
    )
    parser.add_argument("--strategy", default="patches")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--canvas", default="1600x1000", help="the window's size, WIDTHxHEIGHT")
    parser.add_argument(
        "--thread-policy",
        default="asis",
        choices=THREAD_POLICIES,
        help="scheduling of the device's threads: as in the product, or another one to compare",
    )
    options = parser.parse_args(arguments)
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        screen = Path(__file__).parents[1] / "scripts" / "headless.sh"
        again = [sys.executable, "-m", "benchmarks.live", *(arguments or sys.argv[1:])]
        os.execv(screen, [str(screen), *again])
    size = tuple(map(int, options.canvas.split("x")))
    found = measure(
        options.image, options.model, options.strategy, options.rounds, size, options.thread_policy
    )
    print(json.dumps(found, indent=1))


def measure(
    image: str,
    model: str,
    strategy: str,
    rounds: int,
    size: tuple[int, ...],
    thread_policy: str = "asis",
) -> dict[str, Any]:
    """Return what was measured, in milliseconds."""
    import napari
    from napari.settings import get_settings

    from hrviewer.pyramid import open_pyramid
    from hrviewer.pyramid.zarr_store import as_dask
    from hrviewer.strategies import strategy_ids
    from hrviewer.viewer.view import view
    from hrviewer.viewer.widgets.dock import WIDTH_PER_POINT

    set_thread_policy(thread_policy)
    with tempfile.TemporaryDirectory() as folder, open_pyramid(image) as pyramid:
        scripts = [camera_moves(pyramid.plane_shape, turn, rounds) for turn in range(rounds)]
        levels = [as_dask(level) for level in pyramid.levels]
        rgb, many = pyramid.channels == 3, len(levels) > 1
        levels = levels if rgb else [level[..., 0] for level in levels]
        log("plain napari")
        plain = napari.Viewer(title="plain napari")
        data = levels if many else levels[0]
        plain.add_image(data, multiscale=many, rgb=rgb, contrast_limits=(0, 255))
        # As wide as our canvas next to the panel.
        panel_width = round(WIDTH_PER_POINT * get_settings().appearance.font_size)
        plain.window.resize(size[0] - panel_width, size[1])
        process_events(1.0)
        ways: dict[str, list[Stalls]] = {
            "napari": [play_moves(plain, script) for script in scripts]
        }
        plain.close()
        log("hrviewer")
        ours = view(image, model=model, strategy=strategy)
        ours.viewer.window.resize(*size)
        bench = LiveBenchmark(ours, Path(folder))
        process_events(1.0)
        move_camera(ours.viewer, scripts[0][0])
        bench.set_live(True)  # loads the network
        bench.set_live(False)
        ways |= {"idle": [], "live": []}
        for script in scripts:
            log("Live off, Live on")
            ways["idle"].append(play_moves(ours.viewer, script))
            bench.set_live(True)
            ways["live"].append(play_moves(ours.viewer, script, bench.is_pending))
            bench.set_live(False)
        bench.set_live(True)
        places = sample_places(pyramid.plane_shape, 5)
        found = {
            **{f"{way}_p95_ms": ms(median(s.p95 for s in each)) for way, each in ways.items()},
            "ratio": round(
                median(s.p95 for s in ways["live"]) / median(s.p95 for s in ways["idle"]), 3
            ),
            "ratios": [
                round(live.p95 / idle.p95, 3)
                for live, idle in zip(ways["live"], ways["idle"], strict=True)
            ],
            "max_stall_ms": ms(max(s.longest for s in ways["live"])),
            "idle_max_stall_ms": ms(max(s.longest for s in ways["idle"])),
            "napari_max_stall_ms": ms(max(s.longest for s in ways["napari"])),
            "busy": round(median(s.busy for s in ways["live"]), 3),
        }
        log("new views")
        bench.clear_results()
        visits = [bench.visit(place) for place in places]
        found |= {
            "first_overlay_ms": ms(median(first for first, _ in visits)),
            "full_view_ms": ms(median(full for _, full in visits)),
            "visits_ms": [[ms(first), ms(full)] for first, full in visits],
        }
        log("and again")
        computed = bench.computed_results
        for place in places:
            bench.revisit(place)
        found["recomputed_on_revisit"] = bench.computed_results - computed
        log("another strategy and back; stopping")
        others = [name for name in strategy_ids() if name != strategy]
        found["toggle_back_ms"] = ms(
            median(bench.switch_and_back(strategy, others[:1]) for _ in range(3))
        )
        batch = bench.batch_seconds  # while the results are on the map
        stops = [
            bench.time_stop(place) for place in sample_places(pyramid.plane_shape, 3, offset=0.17)
        ]
        found |= {
            "stop_ms": ms(median(stops)),
            "stops_ms": [ms(s) for s in stops],
            "batch_ms": ms(batch),
            "canvas": [int(n) for n in ours.viewer.canvas.size],
            "backend": bench.backend,
            "thread_policy": thread_policy,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "load": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        }
        ours.close()
        process_events(0.2)
        return found


def set_thread_policy(thread_policy: str) -> None:
    """Schedule the device's threads in another way than the product."""
    from hrviewer.engine import device_scheduler

    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def nice() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 10)

    other = {"idle": idle, "nice": nice, "rude": lambda: None}
    if thread_policy != "asis":
        device_scheduler.lower_priority = other[thread_policy]


def log(message: str) -> None:
    """Say on standard error what is being measured."""
    print(message, file=sys.stderr, flush=True)


def median(values: Any) -> float:
    return float(statistics.median(values))


def ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


class LiveBenchmark:
    """A window with its timers, and the actions that are measured."""

    def __init__(self, opened: Any, folder: Path) -> None:
        from hrviewer.engine import ResultCache

        self.opened, self.viewer = opened, opened.viewer
        self.controller = opened.controller
        self.controller.resources.cache = ResultCache(memory_bytes=0)
        self.controller.resources.run_folder = folder
        self._drawn = self._refreshed = 0.0
        canvas = self.viewer.window._qt_viewer.canvas._scene_canvas
        canvas.events.draw.connect(self._on_draw, position="last")

    def _on_draw(self, event: Any) -> None:
        self._drawn = time.perf_counter()

    def set_live(self, on: bool) -> None:
        """Switch Live, and wait until it has begun or ended."""
        live = self.controller.live
        live.set_enabled(on)
        if on:
            wait_until(lambda: live.session is not None and not live._settings_changed, 180)
        else:
            wait_until(self._idle_check())

    def is_pending(self) -> bool:
        """Return whether cells in view are unfinished."""
        return bool(self.controller.live.session.pending)

    def _is_settled(self) -> bool:
        """Return whether nothing is left to run or to draw."""
        live = self.controller.live
        if live.session is None or live._renderer is None or live._moving:
            return False
        if live._background._inbox:
            return False
        maps = live._renderer.maps
        return (
            live.session.is_idle()
            and live._renderer._executor._work_queue.empty()
            and not any(
                drawn.changed and self.controller.overlays.layers[name].visible
                for name, drawn in maps.rasters.items()
            )
        )

    def _idle_check(self) -> Callable[[], bool]:
        """Return a check that session and device are idle."""
        from hrviewer.engine import Priority

        session, scheduler = self.controller.live.session, self.controller.resources._scheduler
        if scheduler is None:
            return lambda: True
        last = scheduler.call(lambda: None, Priority.PREFETCH)
        return lambda: (
            last.done() and not scheduler.running and (session is None or session.is_idle())
        )

    @property
    def computed_results(self) -> int:
        """Results computed so far."""
        return int(self.controller.live.session.computed)

    @property
    def backend(self) -> str:
        """Back end of the main network."""
        return str(self.controller.resources.loaded_models["main"].backend)

    @property
    def batch_seconds(self) -> float:
        """Median seconds of a batch, of the results on the map."""
        rows = self.controller.overlays.maps.record.patches
        return median(row.infer_s for row in rows) * int(self.controller.resources._scheduler.batch)

    def visit(self, place: CameraMove) -> tuple[float, float]:
        """Go somewhere; return the seconds to the first overlay and to the full view."""
        from hrviewer.app.maps.raster import cell_slices
        from hrviewer.viewer.image.geometry import visible_rect

        layer = self.controller.overlays.layers["output"]
        drawn = self.controller.overlays.maps.rasters["output"]
        image = self.controller.overlays.maps.image
        move_camera(self.viewer, place)
        start = time.perf_counter()
        where = cell_slices(
            visible_rect(self.viewer, self.controller.image_layer, image), drawn.cell
        )
        published = 0.0
        first = full = 0.0

        def publish(event: Any = None) -> None:
            nonlocal published
            if not published and np.isfinite(drawn.values[where]).any():
                published = time.perf_counter()

        def done() -> bool:
            nonlocal first, full
            if published and not first and self._drawn > published:
                first = self._drawn
            if first and self._is_settled():
                full = self._drawn
            # A map refreshed since is not on the screen before it was drawn.
            return bool(full) and self._drawn >= self._refreshed

        self._refreshed = 0.0
        layer.events.set_data.connect(publish)
        layer.events.set_data.connect(self._on_refresh)
        try:
            wait_until(done)
        finally:
            layer.events.set_data.disconnect(publish)
            layer.events.set_data.disconnect(self._on_refresh)
        return first - start, self._drawn - start

    def revisit(self, place: CameraMove) -> None:
        """Move the camera and wait until all cells in view are finished."""
        move_camera(self.viewer, place)
        process_events(0.4)  # until the camera counts as at rest
        wait_until(self._is_settled)

    def _on_refresh(self, event: Any = None) -> None:
        self._refreshed = time.perf_counter()

    def switch_and_back(self, strategy: str, others: Sequence[str]) -> float:
        """Choose another strategy and then this one again; return the seconds until it is back."""
        for other in others:
            self.controller.state.set_strategy(other)
            process_events(0.2)
            wait_until(self._is_settled)
        layer = self.controller.overlays.layers["output"]
        self._refreshed = 0.0
        layer.events.set_data.connect(self._on_refresh)
        start = time.perf_counter()
        choice = self.controller.live._selection
        self.controller.state.set_strategy(strategy)
        try:
            wait_until(
                lambda: (
                    self.controller.live._selection != choice
                    and self._is_settled()
                    and 0 < self._refreshed < self._drawn
                )
            )
        finally:
            layer.events.set_data.disconnect(self._on_refresh)
        return self._drawn - start

    def clear_results(self) -> None:
        """Discard all results: a small image may be finished as a whole."""
        session, renderer = self.controller.live.session, self.controller.live._renderer
        with session._condition:
            session._cells = type(session._cells)(session._cells._max_bytes)
        renderer._executor.submit(renderer._clear).result()

    def time_stop(self, place: CameraMove) -> float:
        """Switch Live off during inference; return the seconds until no network runs."""
        session = self.controller.live.session
        self.clear_results()
        computed = session.computed
        move_camera(self.viewer, place)
        wait_until(lambda: session.computed > computed)
        start = time.perf_counter()
        self.controller.live.set_enabled(False)
        quiet, ended = self._idle_check(), []

        def watch() -> None:  # on a thread of its own: the window draws meanwhile
            while not quiet():
                time.sleep(0.001)
            ended.append(time.perf_counter())

        threading.Thread(target=watch, daemon=True).start()
        wait_until(lambda: bool(ended))
        self.set_live(True)
        return ended[0] - start


if __name__ == "__main__":
    main()
