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
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
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
    use_text_size,
    wait_until,
)
from hrviewer.viewer.layers.styles import OUTLINE_COLOUR, OVERLAY_STYLES
from hrviewer.viewer.view import View, view

mpl.use("agg")

IMAGES = Path(__file__).parent / "images"
GIGAPIXEL = "sample:crowd?size=32768&seed=10003"
SQUARE = "sample:crowd?size=8192&seed=10104"
PANEL_PX, INSET_PX = 480, 230
"""Pixels of the gigapixel in its picture, and of the square of it."""

GAP_PX = 16
"""Between the moments of a run."""

PART = Rect(1100, 3100, 2048, 2048)
"""Part of the square with people of two sizes and similar objects."""

MOST_PEOPLE = 6000
"""Per megapixel; end of the colours of the families."""


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
        shown.set_colour_bar("output", shown=False)
        square, (height, width) = busiest_square(done, 1024), done.image_shape
        whole = Rect(0, 0, height, width)
        row_px, top_px = PANEL_PX + 96, 76
        size = np.array((2 * PANEL_PX + 30, top_px + 2 * row_px))
        panels = plt.figure(figsize=size / 100, dpi=100)

        def place(x: float, y: float, w: float, h: float) -> Axes:
            """Return axes of a size in pixels, from the left and the top."""
            return panels.add_axes((x / size[0], 1 - (y + h) / size[1], w / size[0], h / size[1]))

        for i, name in enumerate(MAPS):
            x, y = 10 + i % 2 * (PANEL_PX + 10), top_px + i // 2 * row_px
            for other in MAPS:
                shown.set_visible(other, other == name)
            shown.set_opacity(name, 1.0)
            layer.opacity = 0.6
            panel = place(x, y + 28, PANEL_PX, PANEL_PX)
            panel.set_title(OVERLAY_STYLES[name].title, fontsize=14)
            panel.imshow(part_of_canvas(opened, whole, PANEL_PX), extent=(0, width, height, 0))
            frame = Rectangle((square.x, square.y), square.w, square.h, fill=False)
            frame.set(edgecolor="white", linewidth=2)
            panel.add_patch(frame)
            layer.opacity = 0.85
            corner = PANEL_PX - INSET_PX - 6
            inset = place(x + corner, y + 28 + corner, INSET_PX, INSET_PX)
            inset.imshow(part_of_canvas(opened, square, INSET_PX))
            inset.spines[:].set(color="white", linewidth=2)
            row, bar = legend.rows[name], place(x, y + PANEL_PX + 36, PANEL_PX, 14)
            if name == "patches":
                colours = np.array(OUTLINE_COLOUR)[None, None, :3]
            else:
                colours = OVERLAY_STYLES[name].gradient(256)[None]
            bar.imshow(colours, aspect="auto", extent=(0, 1, 0, 1))
            bar.set_xticks((0, 0.5, 1), (row.low.text(), row.unit.text(), row.high.text()))
            bar.tick_params(length=0, labelsize=12)
            for label, side in zip(bar.get_xticklabels(), ("left", "center", "right"), strict=True):
                label.set_horizontalalignment(side)
            for axes in panel, inset, bar:
                axes.set_yticks(())
            for axes in panel, inset:
                axes.set_xticks(())
        estimate = describe_estimate(done.estimate)
        panels.suptitle(
            f"1.07 gigapixels, {get_strategy('zoom').title.lower()}: {estimate.amount}, "
            f"{done.cost['flops'] / 1e9:,.0f} GFLOP\n{estimate.details}",
            fontsize=14, y=0.995,
        )  # fmt: skip
        panels.savefig(IMAGES / "overlays.png", dpi=100)
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


def part_of_canvas(opened: View, square: Rect, side: int) -> np.ndarray:
    """Show a square of the image on `side` pixels of the canvas, and return its picture."""
    centre = square.y + square.h / 2, square.x + square.w / 2
    move_camera(opened, centre, square.h / side)
    process_events_for(2.5)
    shot = grab(opened, canvas=True)
    top, left = (shot.shape[0] - side) // 2, (shot.shape[1] - side) // 2
    return shot[top : top + side, left : left + side]


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
        back = cut[0].pixelColor(3, 100).getRgb()[:3]
        height = sum(one.height() for one in cut)
        size = cut[0].width() + 2 * GAP_PX, height + (len(cut) + 1) * GAP_PX
        whole, y = Image.new("RGB", size, back), GAP_PX
        for number, one in enumerate(cut):
            path = Path(folder) / f"{number}.png"
            one.save(str(path))
            whole.paste(Image.open(path), (GAP_PX, y))
            y += one.height() + GAP_PX
        whole.save(IMAGES / "interval.png")
        opened.close()


def families() -> None:
    """Draw patches, predictions and cost of every strategy on the same square."""
    mpl.rcParams["font.size"] = 16
    names = ["patches", *(name for name in strategy_ids() if name != "patches")]
    panels, axes = plt.subplots(2, 4, figsize=(18, 11.5), layout="constrained")
    with tempfile.TemporaryDirectory() as folder, hrviewer.open(SQUARE) as pyramid:
        pixels = pyramid.read(PART, 2.0)
        extent = (PART.x, PART.x1, PART.y1, PART.y)
        axes.flat[0].imshow(pixels, extent=extent)
        axes.flat[0].set_title(f"{PART.h:,} × {PART.w:,} pixels of\n8,192 × 8,192")
        for axis, name in zip(axes.flat[1:], names, strict=True):
            done = hrviewer.run(SQUARE, "crowd", name, out=Path(folder) / f"{name}.run.zarr")
            output, cell = done.map("output")
            rows, columns = (
                slice(int(a // cell), int(b // cell))
                for a, b in ((PART.y, PART.y1), (PART.x, PART.x1))
            )
            density = np.asarray(output[:, rows, columns]).sum(0)
            n = 8  # cells are too small to draw
            h, w = (length // n * n for length in density.shape)
            density = density[:h, :w].reshape(h // n, n, w // n, n).sum((1, 3))
            axis.imshow(pixels, extent=extent, alpha=0.45)
            density *= 1e6 / (cell * n) ** 2
            axis.imshow(
                np.where(density > 100, density, np.nan), extent=extent, cmap="viridis",
                vmin=0, vmax=MOST_PEOPLE, interpolation="nearest",
            )  # fmt: skip
            for row in done.patches.itertuples():
                axis.add_patch(
                    Rectangle(
                        (row.x, row.y), row.w, row.h,
                        fill=False, edgecolor="#00a5ff", linewidth=1.2,
                    )
                )  # fmt: skip
            axis.set_xlim(PART.x, PART.x1)
            axis.set_ylim(PART.y1, PART.y)
            axis.set_title(
                f"{get_strategy(name).title}\n{describe_estimate(done.estimate).amount}, "
                f"{done.cost['flops'] / 1e9:,.0f} GFLOP"
            )
        for axis in axes.flat:
            axis.set_axis_off()
        scale = ScalarMappable(Normalize(0, MOST_PEOPLE), "viridis")
        panels.colorbar(
            scale, ax=axes, location="bottom", shrink=0.5, aspect=50, pad=0.03,
            label="people per megapixel", format=lambda value, _: f"{value:,.0f}",
        )  # fmt: skip
    panels.savefig(IMAGES / "families.png", dpi=80)
    plt.close(panels)


if __name__ == "__main__":
    use_text_size(12)
    for wanted in sys.argv[1:] or ("overlays", "interval", "families"):
        {"overlays": overlays, "interval": interval, "families": families}[wanted]()
