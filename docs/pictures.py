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

import hrviewer
from hrviewer.app.maps.raster import MAPS
from hrviewer.formatting import describe_estimate
from hrviewer.geometry import Rect
from hrviewer.strategies import get_strategy, strategy_ids
from hrviewer.viewer.demo.window_driver import process_events_for, set_up_window, wait_until
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
    """Show each of the four maps of one run over a gigapixel."""
    with tempfile.TemporaryDirectory() as folder:
        opened = view(GIGAPIXEL, "crowd", "zoom")
        set_up_window(opened)
        run(opened, Path(folder))
        shown = opened.controller.overlays
        assert shown is not None
        panels, axes = plt.subplots(2, 2, figsize=(14, 14.6), layout="constrained")
        for axis, name in zip(axes.flat, MAPS, strict=True):
            for other in MAPS:
                shown.set_visible(other, other == name)
            shown.set_opacity(name, 0.85)
            process_events_for(1.5)
            axis.imshow(crop_to_image(opened.viewer.screenshot(canvas_only=True, flash=False)))
            axis.set_title(name, fontsize=16)
            axis.set_axis_off()
        done = opened.controller.state.run
        assert done is not None
        estimate = describe_estimate(done.estimate)
        panels.suptitle(
            f"1.07 gigapixels, zoom: {estimate.amount}\n{estimate.details}", fontsize=18
        )
        panels.savefig(IMAGES / "overlays.png", dpi=80)
        plt.close(panels)
        opened.close()


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
            top = panel.run_controls.mapTo(panel, panel.run_controls.rect().topLeft()).y()
            bottom = panel.interval_widget.mapTo(
                panel, panel.interval_widget.rect().bottomLeft()
            ).y()
            shot = panel.grab().toImage()
            cut.append(shot.copy(0, top, shot.width() - 14, bottom - top + 6))

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
