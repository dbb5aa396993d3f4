"""Pictures of the README: a gigapixel with its overlays, an interval, the families.

    scripts/headless.sh python docs/pictures.py [overlays|interval|families]...

Writes docs/images/overlays.png, interval.png and families.png; all of them by default.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image
from qtpy.QtGui import QPainter

import hrviewer
from hrviewer.app.maps.raster import MAPS
from hrviewer.formatting import describe_estimate
from hrviewer.geometry import Rect
from hrviewer.runs import Run
from hrviewer.strategies import get_strategy, strategy_ids
from hrviewer.viewer.demo.window_driver import (
    grab,
    move_camera,
    process_events_for,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.layers.styles import OVERLAY_STYLES
from hrviewer.viewer.view import View, view

mpl.use("agg")

IMAGES = Path(__file__).parent / "images"
GIGAPIXEL = "sample:crowd?size=32768&seed=10003"
SQUARE = "sample:crowd?size=8192&seed=10104"
PART = Rect(1100, 3100, 2048, 2048)
"""Part of the square with people of two sizes and similar objects."""


def run(
    opened: View, folder: Path, on_progress: Callable[[float], None] = lambda part: None
) -> None:
    """Run the current settings; `on_progress` gets the finished fraction repeatedly."""
    controller, bar = opened.controller, opened.panel.run_controls.progress_bar
    controller.run_service.start(out=folder / "a.run.zarr")
    wait_until(lambda: controller.state.run_state != "starting", 600)

    def over() -> bool:
        on_progress(bar.value() / max(1, bar.maximum()))
        return controller.state.run_state == "idle"

    wait_until(over, 1800)


def overlays() -> None:
    """Show each of the four maps of one run: over a gigapixel, and over a square of it."""
    with tempfile.TemporaryDirectory() as folder:
        opened = view(GIGAPIXEL, "crowd", "zoom")
        set_up_window(opened)
        run(opened, Path(folder))
        controller, legend = opened.controller, opened.panel.overlay_legend
        shown, done, layer = controller.overlays, controller.state.run, controller.image_layer
        assert shown is not None
        assert done is not None
        assert layer is not None
        opened.viewer.canvas.overlays.scale_bar.visible = False
        square, (height, width) = busiest_square(done, 2048), done.image_shape
        panels, axes = plt.subplots(
            3, 4, figsize=(20, 11.4), layout="constrained", height_ratios=(10, 10, 0.35)
        )
        for (above, below, bar), name in zip(axes.T, MAPS, strict=True):
            for other in MAPS:
                shown.set_visible(other, other == name)
            shown.set_opacity(name, 1.0)
            layer.opacity = 0.5
            opened.viewer.reset_view()
            process_events_for(1.5)
            above.imshow(crop_to_image(grab(opened, canvas=True)), extent=(0, width, height, 0))
            frame = Rectangle((square.x, square.y), square.w, square.h, fill=False)
            frame.set(edgecolor="white", linewidth=1.5)
            above.add_patch(frame)
            above.set_title(OVERLAY_STYLES[name].title, fontsize=20)
            layer.opacity = 0.8
            below.imshow(square_of_canvas(opened, square))
            scale = OVERLAY_STYLES[name].gradient(256)[None]
            bar.imshow(scale, aspect="auto", extent=(0, 1, 0, 1))
            row = legend.rows[name]
            bar.set_xticks((0, 0.5, 1), (row.low.text(), row.unit.text(), row.high.text()))
            bar.tick_params(length=0, labelsize=14)
            bar.set_yticks(())
        for axis in axes[:2].flat:
            axis.set_axis_off()
        estimate = describe_estimate(done.estimate)
        panels.suptitle(
            f"1.07 gigapixels, {get_strategy('zoom').title.lower()}: {estimate.amount}, "
            f"{done.cost['flops'] / 1e9:,.0f} GFLOP\n{estimate.details}",
            fontsize=20,
        )
        panels.savefig(IMAGES / "overlays.png", dpi=80)
        plt.close(panels)
        opened.close()


def busiest_square(done: Run, side: int) -> Rect:
    """Return the square of a run's image with the largest prediction."""
    output, cell = done.map("output")
    n = int(side // cell)
    density = np.nan_to_num(np.asarray(output[:]).sum(0))
    rows, columns = (length // n for length in density.shape)
    sums = density[: rows * n, : columns * n].reshape(rows, n, columns, n).sum((1, 3))
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    return Rect(int(y) * side, int(x) * side, side, side)


def square_of_canvas(opened: View, square: Rect) -> np.ndarray:
    """Show a square of the image as large as the canvas allows, and return its picture."""
    side = min(opened.viewer.canvas.size)
    move_camera(opened, (square.y + square.h / 2, square.x + square.w / 2), square.h / side)
    process_events_for(2.5)
    shot = grab(opened, canvas=True)
    side = min(shot.shape[:2])
    top, left = (shot.shape[0] - side) // 2, (shot.shape[1] - side) // 2
    return shot[top : top + side, left : left + side]


def crop_to_image(shot: np.ndarray) -> np.ndarray:
    """Return a picture without the black around the image."""
    rows, columns = (np.flatnonzero(shot[..., :3].any(2).mean(a) > 0.3) for a in (1, 0))
    return shot[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def interval() -> None:
    """Show how the panel's interval narrows while a run goes on."""
    with tempfile.TemporaryDirectory() as folder:
        opened = view(SQUARE, "crowd", "zoom")
        controller = opened.controller
        set_up_window(opened)
        controller.state.settings.params = {"method": "sampling"}
        wanted, cut = [0.75, 0.87, 2.0], []
        panel = opened.panel

        def keep() -> None:
            parts = panel.run_controls, panel.interval_widget
            shots = [part.grab().toImage() for part in parts]
            joined = shots[0].copy(0, 0, shots[0].width(), sum(s.height() for s in shots) + 6)
            joined.fill(panel.grab().toImage().pixelColor(3, 100))
            with QPainter(joined) as painter:
                painter.drawImage(0, 0, shots[0])
                painter.drawImage(0, shots[0].height() + 6, shots[1])
            cut.append(joined)

        def at(part: float) -> None:
            if panel.interval_widget.isVisible() and part >= wanted[0]:
                wanted.pop(0)
                keep()

        run(opened, Path(folder), at)
        process_events_for(0.5)
        keep()
        width = sum(one.width() for one in cut)
        back = cut[0].pixelColor(3, 100).getRgb()[:3]
        whole = Image.new("RGB", (width, max(one.height() for one in cut)), back)
        x = 0
        for number, one in enumerate(cut):
            path = Path(folder) / f"{number}.png"
            one.save(str(path))
            whole.paste(Image.open(path), (x, 0))
            x += one.width()
        whole.save(IMAGES / "interval.png")
        opened.close()


def families() -> None:
    """Draw patches, predictions and cost of every strategy on the same square."""
    names = ["patches", *(name for name in strategy_ids() if name != "patches")]
    panels, axes = plt.subplots(2, 4, figsize=(18, 10), layout="constrained")
    with tempfile.TemporaryDirectory() as folder, hrviewer.open(SQUARE) as pyramid:
        pixels = pyramid.read(PART, 2.0)
        extent = (PART.x, PART.x1, PART.y1, PART.y)
        axes.flat[0].imshow(pixels, extent=extent)
        axes.flat[0].set_title(f"{PART.h:,} × {PART.w:,} of 8,192 × 8,192 pixels")
        for axis, name in zip(axes.flat[1:], names, strict=True):
            done = hrviewer.run(SQUARE, "crowd", name, out=Path(folder) / f"{name}.run.zarr")
            output, cell = done.map("output")
            rows, columns = (
                slice(int(a // cell), int(b // cell))
                for a, b in ((PART.y, PART.y1), (PART.x, PART.x1))
            )
            density = np.asarray(output[:, rows, columns]).sum(0)
            n = 4  # cells are too small to draw
            h, w = (length // n * n for length in density.shape)
            density = density[:h, :w].reshape(h // n, n, w // n, n).sum((1, 3))
            axis.imshow(pixels, extent=extent, alpha=0.45)
            axis.imshow(
                np.where(density > 0.05, density, np.nan), extent=extent, cmap="viridis",
                vmin=0, vmax=2, interpolation="nearest",
            )  # fmt: skip
            for row in done.patches.itertuples():
                axis.add_patch(
                    Rectangle(
                        (row.x, row.y), row.w, row.h,
                        fill=False, edgecolor="#00a5ff", linewidth=0.7,
                    )
                )  # fmt: skip
            axis.set_xlim(PART.x, PART.x1)
            axis.set_ylim(PART.y1, PART.y)
            axis.set_title(
                f"{get_strategy(name).title} · {done.cost['flops'] / 1e9:,.0f} GFLOP\n"
                f"{describe_estimate(done.estimate).amount}"
            )
        for axis in axes.flat:
            axis.set_axis_off()
    panels.savefig(IMAGES / "families.png", dpi=80)
    plt.close(panels)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ("overlays", "interval", "families"):
        {"overlays": overlays, "interval": interval, "families": families}[wanted]()
