"""Stalls of the window with much in it: ``python -m benchmarks.window``.

One JSON object is printed. A real window is opened (on a virtual screen where there is none) on a
synthetic section with a finished run, and used while a timer of 5 ms ticks in its event loop. A
stall is the gap between two ticks less 5 ms, as of `benchmarks.live`, whose bounds hold here, too.

``plain``
    The camera moves over the section and its maps alone, for comparison.
``objects``
    So many detected objects are shown, and the camera moves over them.
``regions``
    So many regions are drawn at once, measured, listed in the table and selected in it, and the
    camera moves over them.
``slides``
    A folder of so many images is listed in the tab Slides, scrolled from end to end, and filtered.

Of each: ``p95_ms`` and ``longest_ms``, and whether they are within the ``bounds_ms``. What is done
once, as drawing the regions, has no moves: there only the longest counts. ``load`` says how busy
the machine was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._camera import Stalls, camera_moves, play_moves, process_events, wait_until

BOUNDS = {"p95_ms": 100.0, "longest_ms": 250.0}
TICK_SECONDS = 0.005
SIZE = 1600, 1000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window", description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="of the synthetic section, pixels")
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--slides", type=int, default=2_000)
    options = parser.parse_args(arguments)
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        screen = Path(__file__).parents[1] / "scripts" / "headless.sh"
        again = [sys.executable, "-m", "benchmarks.window", *(arguments or sys.argv[1:])]
        os.execv(screen, [str(screen), *again])
    found = measure(options.side, options.objects, options.regions, options.slides)
    print(json.dumps(found, indent=1))


def measure(side: int, objects: int, regions: int, slides: int) -> dict[str, Any]:
    """Return the stalls of each part, in milliseconds."""
    from hrviewer.viewer.view import view

    with tempfile.TemporaryDirectory() as folder:
        opened = view(f"sample:tissue?size={side}&seed=10100", "nuclei", "uniform")
        opened.viewer.window.resize(*SIZE)
        state = opened.controller.state
        opened.controller.resources.run_folder = Path(folder) / "runs"
        opened.controller.resources.low_priority = False  # the run is not what is measured
        opened.controller.run_service.start()
        wait_until(lambda: state.run is not None and state.run_state == "idle", 900)
        settle(opened)
        found: dict[str, Any] = {"bounds_ms": BOUNDS}
        moves = camera_moves((side, side), 0, 1)
        parts: dict[str, Callable[[], dict[str, Stalls]]] = {
            "plain": lambda: {"camera": play_moves(opened.viewer, moves)},
            "regions": lambda: use_regions(opened, side, regions),
            "slides": lambda: use_slides(opened, Path(folder) / "slides", slides),
            "objects": lambda: use_objects(opened, side, objects),
        }
        for name, use in parts.items():
            print(name, file=sys.stderr, flush=True)
            found[name] = {what: describe(stalls) for what, stalls in use().items()}
        found["load"] = [round(x, 1) for x in os.getloadavg()]
        opened.close()
        process_events(0.2)
        return found


def describe(stalls: Stalls) -> dict[str, Any]:
    """Return the numbers of some stalls."""
    facts = {"longest_ms": round(1000 * stalls.longest, 1)}
    if stalls.resting:  # the camera moved, and rested in between
        facts["p95_ms"] = round(1000 * stalls.p95, 1)
    return {**facts, "within": all(value <= BOUNDS[name] for name, value in facts.items())}


def watch(act: Callable[[], object], done: Callable[[], bool]) -> Stalls:
    """Return the stalls from an action until something holds."""
    from time import perf_counter

    from qtpy.QtCore import Qt, QTimer

    found, last = Stalls(), perf_counter()
    ticker = QTimer()
    ticker.setTimerType(Qt.TimerType.PreciseTimer)

    def tick() -> None:
        nonlocal last
        now = perf_counter()
        found.moving.append(max(0.0, now - last - TICK_SECONDS))
        last = now

    ticker.timeout.connect(tick)
    ticker.start(round(1000 * TICK_SECONDS))
    act()
    wait_until(done, 300)
    process_events(1.0)
    ticker.stop()
    return found


def settle(opened: Any) -> None:
    """Wait until the window is at rest."""
    process_events(1.0)
    wait_until(lambda: not opened.controller.has_pending_work, 300)
    process_events(0.5)


def use_regions(opened: Any, side: int, n: int) -> dict[str, Stalls]:
    """Draw regions, have them measured, select them, and move over them."""
    from hrviewer.regions import Region

    service, tab = opened.controller.region_service, opened.panel.region_tab
    opened.panel.setCurrentIndex(opened.panel.indexOf(tab.parentWidget().parentWidget()))
    across = math.ceil(math.sqrt(n))
    cell, angle = side / across, np.linspace(0, 2 * np.pi, 40, endpoint=False)
    outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.4 * cell
    centres = cell * (np.stack(np.divmod(np.arange(n), across), axis=1) + 0.5)
    drawn = [
        Region.from_polygons([[outline + centre]], f"region {i + 1}")
        for i, centre in enumerate(centres)
    ]

    def measured() -> bool:
        return len(service.rows) == n and all(row.measured for row in service.rows)

    added = watch(lambda: service.regions_read.emit(opened.controller.state.image, drawn), measured)
    selected = watch(tab.table.selectAll, lambda: len(tab.table.selected_rows()) == n)
    shape = opened.controller.state.image.source.shape
    moved = play_moves(opened.viewer, camera_moves(shape, 0, 1))
    opened.viewer.layers.remove(opened.controller.region_layer())
    settle(opened)
    return {"drawn_and_measured": added, "all_selected": selected, "camera": moved}


def use_slides(opened: Any, folder: Path, n: int) -> dict[str, Stalls]:
    """List images, scroll through them, and filter them."""
    folder.mkdir()
    for i in range(n):
        Image.new("RGB", (64, 48), (i % 256, 90, 120)).save(folder / f"slide {i:05}.png")
    tab, slides = opened.panel.slide_tab, opened.controller.slide_list
    opened.panel.setCurrentWidget(tab)
    settle(opened)
    listed = watch(
        lambda: slides.open(folder), lambda: tab.model.rowCount() == n and not slides.is_running
    )
    bar, step = tab.list.verticalScrollBar(), 0

    def scroll() -> bool:
        nonlocal step
        step += 1
        bar.setValue(bar.maximum() * step // 100)
        return step >= 100 and not slides.is_running

    scrolled = watch(lambda: None, scroll)
    filtered = watch(
        lambda: tab.filter.setText("999"), lambda: tab.shown.rowCount() == n // 1000 or n < 1000
    )
    return {"listed": listed, "scrolled": scrolled, "filtered": filtered}


def use_objects(opened: Any, side: int, n: int) -> dict[str, Stalls]:
    """Show objects, and move over them."""
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.geometry import Rect
    from hrviewer.objects import DetectedObjects

    state, rng = opened.controller.state, np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, side - 40, (n, 2)), rng.uniform(20, 40, (n, 2))], axis=1)
    maps = ResultMaps(Rect(0, 0, side, side), 8.0, "mass", [f"class {i}" for i in range(5)],
                      detects=True)  # fmt: skip
    assert maps.objects is not None
    maps.objects.score = 0.05
    maps.objects.replace(
        DetectedObjects(boxes, rng.uniform(0.05, 1, n).astype(np.float32), rng.integers(0, 5, n))
    )

    def shown() -> bool:
        group = opened.controller.overlays.object_layers
        return group is not None and not opened.controller.has_pending_work

    added = watch(lambda: state.show_results(state.image, maps, keep_run=True), shown)
    moved = play_moves(opened.viewer, camera_moves((side, side), 0, 1))
    return {"shown": added, "camera": moved}


if __name__ == "__main__":
    main()
