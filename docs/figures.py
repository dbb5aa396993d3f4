"""Figures of the strategies' pages: the overlays of each, side by side.

    python docs/figures.py SLIDE [NAME...]

Writes docs/images/strategy_NAME.png for every installed strategy, or those named, and the warped
input of `nonuniform` to docs/images/nonuniform_warp.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

import hrviewer
from hrviewer import runs
from hrviewer.app.maps.patch_preview import warp_preview
from hrviewer.app.maps.raster import MapName
from hrviewer.formatting import describe_estimate, pluralize
from hrviewer.runs import Run, format_estimate
from hrviewer.strategies import WarpRequest, get_strategy, strategy_ids
from hrviewer.viewer.layers.styles import OUTLINE_COLOUR, OVERLAY_STYLES
from hrviewer.viewer.layers.warp_grid import grid_lines

mpl.use("agg")
mpl.rcParams["font.size"] = 15

MANY_PATCHES = 1000
"""Of more the outlines are thinner, so that the image stays recognisable."""


def draw(run: Run, picture: np.ndarray, target: Path) -> None:
    """Draw the image with its patches, the output, the saliency and the cost."""
    height, width = run.image_shape
    extent = (0, width, height, 0)
    panels, axes = plt.subplots(1, 4, figsize=(16, 7.1), layout="constrained")
    size = run.pixel_size
    output, cell = run.map("output")
    area = cell**2 * (size[0] * size[1] / 1e6 if size else 1)
    density = np.asarray(output[:]).sum(0) / area
    # Cells are too small at this size: draw means over 8 × 8.
    rows, columns = (n // 8 * 8 for n in density.shape)
    density = density[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8).mean((1, 3))
    cost = run.cost_map() / run.map("cost")[1] ** 2
    maps: list[tuple[MapName, np.ndarray, str]] = [
        ("output", density, "nuclei per mm²" if size else "per pixel"),
        ("saliency", run.saliency, ""),
        ("cost", np.where(cost > 0, cost, np.nan) / 1e3, "kFLOP per pixel"),
    ]
    axes[0].imshow(picture, extent=extent)
    draw_patches(axes[0], run)
    for axis, (name, values, unit) in zip(axes[1:], maps, strict=True):
        style = OVERLAY_STYLES[name]
        colours = ListedColormap(style.gradient(256) * (1, 1, 1, style.opacity))
        axis.imshow(picture.mean(2), extent=extent, cmap="gray", vmin=0, vmax=255, alpha=0.6)
        top = float(np.nanpercentile(values, 99.5)) or 1.0
        if name == "saliency" and np.ptp(values) == 0:
            axis.set_title(f"{style.title}: the same everywhere")
            continue
        axis.imshow(values, extent=extent, cmap=colours, vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(style.title)
        # A separate mappable: the overlay is transparent at small values, its legend is not.
        legend = ScalarMappable(Normalize(0, top), ListedColormap(style.gradient(256)[:, :3]))
        panels.colorbar(
            legend, ax=axis, label=unit, location="bottom", shrink=0.9, aspect=25,
            ticks=MaxNLocator(4, steps=(1, 2, 5, 10)), format=lambda value, _: f"{value:,g}",
        )  # fmt: skip
    for axis in axes:
        axis.set_axis_off()
        axis.set_anchor("N")
    estimate = describe_estimate(run.estimate)
    title = f"{get_strategy(run.header['strategy']).title}: {estimate.amount}"
    panels.suptitle(
        f"{title}  ·  {run.cost['flops'] / 1e9:.1f} GFLOP\n{estimate.details}", fontsize=17
    )
    panels.savefig(target, dpi=110)
    plt.close(panels)


def draw_patches(axis: Axes, run: Run) -> None:
    """Draw the outlines of a run's patches, the finer the smaller they are."""
    width = axis.get_window_extent().width / run.image_shape[1]  # pixels of the figure per pixel
    patches = run.patches
    sides = patches[["h", "w"]].min(axis=1) * width
    outlines = PatchCollection(
        [Rectangle((row.x, row.y), row.w, row.h) for row in patches.itertuples()],
        facecolor="none",
        edgecolor=OUTLINE_COLOUR,
        linewidth=np.clip(sides / (15 if len(patches) > MANY_PATCHES else 8), 0.12, 1.8),
    )
    axis.add_collection(outlines)
    scales = patches["scale"]
    span = f"{scales.min():.2g}"
    if scales.max() > scales.min():
        span += f" to 1/{scales.max():.2g}"
    axis.set_title(f"{len(patches):,} {pluralize('patch', len(patches))} at 1/{span}")


def draw_warp(slide: str, target: Path) -> None:
    """Draw the largest warp of a run: its grid, and the model's input."""
    warps: list[WarpRequest] = []
    with tempfile.TemporaryDirectory() as folder, hrviewer.open(slide) as pyramid:

        def on_event(update: object) -> None:
            if isinstance(update, WarpRequest):
                warps.append(update)

        out = Path(folder) / "a.run.zarr"
        runs.run(slide, "nuclei", "nonuniform", out=out, on_event=on_event)
        warp = max(warps, key=lambda warp: warp.shape[0] * warp.shape[1])
        warped, even = warp_preview(pyramid, warp)
        rect = warp.rect
        panels, axes = plt.subplots(1, 3, figsize=(15, 6.2), layout="constrained")
        picture = pyramid.read(rect, max(1.0, max(rect.h, rect.w) / 600))
        extent = (rect.x, rect.x1, rect.y1, rect.y)
        axes[0].imshow(picture, extent=extent)
        for (y, x), (dy, dx) in grid_lines(warp, rect, 1.0):
            axes[0].plot([x, x + dx], [y, y + dy], color="#c98f00", linewidth=1.4)
        axes[0].set_xlim(rect.x, rect.x1)
        axes[0].set_ylim(rect.y1, rect.y)
        axes[0].set_title(f"the grid over {rect.h:,} × {rect.w:,} pixels")
        axes[1].imshow(warped, extent=extent)
        axes[1].set_title(f"model input: {warp.shape[0]} × {warp.shape[1]}")
        axes[2].imshow(even, extent=extent)
        axes[2].set_title("uniform downsampling, as many pixels")
        for axis in axes:
            axis.set_axis_off()
            axis.set_anchor("N")
        panels.savefig(target, dpi=100)
        plt.close(panels)


def main(slide: str, *names: str) -> None:
    """Run strategies and draw them."""
    images = Path(__file__).parent / "images"
    with hrviewer.open(slide) as pyramid, tempfile.TemporaryDirectory() as folder:
        scale = max(pyramid.plane_shape) / 1200
        picture = pyramid.read(pyramid.rect, scale)
        for name in names or strategy_ids():
            run = hrviewer.run(slide, "nuclei", name, out=Path(folder) / f"{name}.run.zarr")
            draw(run, picture, images / f"strategy_{name}.png")
            if name == "nonuniform":
                draw_warp(slide, images / "nonuniform_warp.png")
            print(f"{name}: {format_estimate(run.estimate)}, {run.cost['flops']:.4g} FLOPs")


if __name__ == "__main__":
    main(*sys.argv[1:])
