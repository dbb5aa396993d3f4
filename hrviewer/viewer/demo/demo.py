"""``python -m hrviewer.viewer.demo.demo``: two strategies on one image, in a real window.

Pictures, runs and exports go to ``demo/`` in the current folder. On a screen with a person before
it the window stays open.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from hrviewer.errors import HrviewerError
from hrviewer.viewer.demo.window_driver import (
    demo_image,
    is_headless,
    screenshot,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.view import View, view

__all__ = ["main", "run_demo"]


def run_demo(window: View, strategy: str, out: Path) -> list[Path]:
    """Run a strategy; return what it left: two pictures, a run and its exports."""
    from hrviewer.io import get_writer, writer_names

    controller = window.controller
    controller.set_strategy(strategy)
    run = out / f"{strategy}.run.zarr"
    exports = {name: out / f"{strategy}{get_writer(name).suffixes[0]}" for name in writer_names()}
    for old in (run, *exports.values()):
        if old.is_dir():
            shutil.rmtree(old)
        old.unlink(missing_ok=True)
    controller.start(out=run)
    wait_until(lambda: controller.state != "starting")
    bar = window.panel.run_controls.progress_bar
    wait_until(lambda: bar.value() > 0.45 * bar.maximum() or controller.state == "idle")
    screenshot(window, out / f"{strategy}-running.png")
    wait_until(lambda: controller.state == "idle")
    if controller.run is None:
        raise HrviewerError("the run failed; the window says why")
    base = controller.image_layer
    if base is not None:
        controller.inspect_patch(
            base.data_to_world([side / 2 for side in controller.run.image_shape])
        )
        wait_until(lambda: not controller.has_pending_work)
    screenshot(window, out / f"{strategy}-window.png")
    # A slide has no georeference: not every format fits every run.
    fitting = {
        name: path
        for name, path in exports.items()
        if get_writer(name).unsupported_reason(controller.run) is None
    }
    for name, path in fitting.items():
        controller.export(path, name)
        wait_until(lambda: not controller.has_pending_work)
    shots = (out / f"{strategy}-{moment}.png" for moment in ("running", "window"))
    return [*shots, run, *fitting.values()]


def main(out: Path | None = None) -> int:
    """Run the demonstration; return the exit status."""
    from hrviewer.engine import ResultCache
    from hrviewer.runs import format_estimate

    out = out or Path("demo")
    try:
        out.mkdir(exist_ok=True)
        opened = view(demo_image(), "nuclei", "patches")
        controller = opened.controller
        # Nothing from earlier runs, and no giving way: this is to be watched.
        controller.cache, controller.low_priority = ResultCache(), False
        set_up_window(opened)
        for strategy in ("patches", "uniform"):
            made = run_demo(opened, strategy, out)
            if controller.run is not None:
                cost = controller.run.cost
                print(
                    f"{strategy}: {format_estimate(controller.run.estimate)}, "
                    f"{cost['flops'] / 1e9:,.0f} GFLOP, {cost['wall_s']:.1f} s"
                )
            for path in made:
                print(f"  {path}")
    except HrviewerError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if is_headless():
        opened.close()
    else:
        import napari

        napari.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
