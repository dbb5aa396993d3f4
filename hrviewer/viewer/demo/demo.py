"""Demonstration: every strategy on a gigapixel image, in a real window, in three minutes.

    python -m hrviewer.viewer.demo.demo [IMAGE] [--model nuclei] [--side 1536] [--out demo]

Without an image it takes a synthetic slide of 1.07 gigapixels, which needs no file and has exact
ground truth. Steps: Live while the camera zooms and pans; all strategies in turn on a region, with
their four overlays; the Compare tab; the exports of a run. Pictures of each, a film, the runs and
the exports go to ``demo/``; a table of estimates, errors and costs is printed. On a screen the
window stays open.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrviewer.app.maps.raster import MAPS
from hrviewer.errors import HrviewerError
from hrviewer.formatting import describe_estimate
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.runs import Run
from hrviewer.strategies import get_strategy, strategy_ids
from hrviewer.viewer.demo.film import Film
from hrviewer.viewer.demo.window_driver import (
    grab,
    is_headless,
    move_camera,
    process_events_for,
    set_up_window,
    wait_until,
)
from hrviewer.viewer.image.geometry import pyramid_of
from hrviewer.viewer.layers.styles import OVERLAY_STYLES
from hrviewer.viewer.view import View, view

__all__ = ["Demo", "Row", "busiest_region", "main"]

IMAGE = "sample:tissue?size=32768&seed=10003"
REGION = 1536
"""Side of the region of the strategies, level-0 pixels, at most."""

FRAME_SECONDS = 1.0
"""Between frames of the film."""


@dataclass(frozen=True)
class Row:
    """A strategy's result, a row of the printed table."""

    strategy: str
    amount: str
    estimate: float
    interval: tuple[float, float] | None
    flops: float
    seconds: float
    read: float


class Demo:
    """The steps of the demonstration.

    Parameters
    ----------
    window : View
        With the image and the model.
    out : Path
        Folder of pictures, runs and exports.
    side : int
        Largest side of the region of the strategies, level-0 pixels.
    """

    def __init__(self, window: View, out: Path, side: int = REGION) -> None:
        self.window, self.out, self.film = window, out, Film()
        self.controller = window.controller
        self.made: list[Path] = []
        self.rows: list[Row] = []
        layer = self.controller.image_layer
        assert layer is not None
        self.pyramid: Pyramid = pyramid_of(layer)
        self.region = busiest_region(self.pyramid, side)
        self._framed = 0.0

    # Pictures.

    def frame(self, seconds: float = FRAME_SECONDS) -> None:
        """Append the window to the film."""
        self.film.add(grab(self.window), seconds)
        self._framed = time.monotonic()

    def frame_sometimes(self) -> None:
        """Append the window to the film, if the last frame is old enough."""
        if time.monotonic() - self._framed > FRAME_SECONDS:
            self.frame()

    def picture(self, name: str, seconds: float = 1.0) -> None:
        """Save the window as a picture, and show it in the film."""
        process_events_for(0.3)
        pixels = grab(self.window)
        path = self.out / f"{name}.png"
        Image.fromarray(pixels[..., :3]).save(path)
        self.made.append(path)
        self.film.add(pixels, seconds)

    # Steps.

    def overview(self) -> None:
        """Show the whole image."""
        self.window.viewer.reset_view()
        process_events_for(1.0)
        self.picture("1-overview")

    def live(self) -> None:
        """Run inference on the visible region while the camera zooms in and pans."""
        controller, live = self.controller, self.controller.live
        controller.state.set_strategy("patches")
        whole = max(self.pyramid.plane_shape) / 900
        for centre, pixel in zoom_path(self.pyramid.rect, self.region, whole, 4.0, 8):
            move_camera(self.window, centre, pixel)
            process_events_for(0.1)
            self.frame(0.15)
        live.set_enabled(True)
        wait_until(lambda: live.session is not None or not live.enabled, 300)
        self._settle(3)
        start, end = middle(self.region), middle(busiest_region(self.pyramid, 640, self.region))
        for part in np.linspace(0, 1, 6):  # pan
            y, x = (float(a + (b - a) * part) for a, b in zip(start, end, strict=True))
            move_camera(self.window, (y, x), 2.0)
            process_events_for(0.25)
            self.frame(0.2)
        self._settle(3)
        for pixel in (1.6, 1.3, 1.0):
            move_camera(self.window, end, pixel)
            process_events_for(0.2)
            self.frame(0.2)
        self._settle(3)
        self.picture("2-live")
        live.set_enabled(False)

    def _settle(self, seconds: float) -> None:
        """Wait until the view is complete, or for some seconds."""
        session, end = self.controller.live.session, time.monotonic() + seconds
        process_events_for(0.3)
        wait_until(
            lambda: session is None or not session.pending or time.monotonic() > end,
            seconds + 5,
            self.frame_sometimes,
        )
        process_events_for(0.3)
        self.frame()

    def select_region(self) -> None:
        """Draw the region, and fit it into the view."""
        controller, region = self.controller, self.region
        controller.draw_region()
        shapes = controller.region_layer()
        assert shapes is not None
        y, x, y1, x1 = (v - 0.5 for v in (region.y, region.x, region.y1, region.x1))
        shapes.add(np.array([(y, x), (y, x1), (y1, x1), (y1, x)]), shape_type="rectangle")
        shapes.mode = "pan_zoom"
        self.window.viewer.layers.selection.active = controller.image_layer
        box = self.window.panel.run_settings.region
        box.setCurrentIndex(box.findData("drawn"))
        controller.state.settings.region = "drawn"
        self._fit()

    def _fit(self, parts: int = 1) -> None:
        """Fit the region into the canvas, or into a grid's cells, so many along each side."""
        region, (height, width) = self.region, self.window.viewer.canvas.size
        pixel = max(region.h / height, region.w / width)
        move_camera(self.window, middle(region), 1.04 * parts * pixel)
        process_events_for(0.3)

    def run_strategy(self, name: str) -> Run:
        """Run a strategy on the region; its picture shows the four overlays."""
        controller = self.controller
        controller.state.set_strategy(name)
        process_events_for(0.2)  # until the form has its height
        path = self.out / f"{name}.run.zarr"
        controller.run_service.start(out=path)
        wait_until(
            lambda: controller.state.run_state != "idle" or controller.state.run is not None, 60
        )
        wait_until(lambda: controller.state.run_state == "idle", 600, self.frame_sometimes)
        run = controller.state.run
        if run is None or run.estimate is None:
            raise HrviewerError(f"{name} failed; the window shows the reason")
        self.made.append(path)
        process_events_for(0.3)
        self.frame(1.0)
        interval = run.estimate["ci95"]
        self.rows.append(
            Row(
                name,
                describe_estimate(run.estimate).amount,
                float(run.estimate["value"]),
                None if interval is None else (float(interval[0]), float(interval[1])),
                float(run.cost["flops"]),
                float(run.cost["wall_s"]),
                float(run.cost["pixels_read"]),
            )
        )
        self._picture_of_overlays(name)
        return run

    def _picture_of_overlays(self, name: str) -> None:
        """Save the four overlays of the run, side by side."""
        overlays = self.controller.overlays
        assert overlays is not None
        before = {other: overlays.is_visible(other) for other in MAPS}
        shots = {}
        for kind in MAPS:
            for other in MAPS:
                overlays.set_visible(other, other == kind)
            process_events_for(0.15)
            shots[OVERLAY_STYLES[kind].title] = grab(self.window, canvas=True)
            self.frame(0.5)
        for other, visible in before.items():
            overlays.set_visible(other, visible)
        path = self.out / f"3-{name}.png"
        row = self.rows[-1]
        title = (
            f"{get_strategy(name).title}: {row.amount}, "
            f"{row.flops / 1e9:,.0f} GFLOP, {row.seconds:.1f} s"
        )
        contact_sheet(shots, title).save(path)
        self.made.append(path)

    def compare(self) -> None:
        """Show the runs in the Compare tab: table, plot and four of them side by side."""
        panel, service = self.window.panel, self.controller.compare_service
        tab = next(i for i in range(panel.count()) if panel.tabText(i) == "Compare")
        panel.setCurrentIndex(tab)  # lists the runs of the folder of the last one
        wait_until(lambda: service.is_ready and not service.is_running, 300)
        self.picture("4-compare")
        runs = {entry.strategy: entry for entry in service.entries}
        chosen = [name for name in ("patches", "zoom", "scanner", "transformer") if name in runs]
        for i, name in enumerate(chosen):
            panel.compare_tab.select_run(runs[name], add=bool(i))
        panel.compare_tab.grid_button.click()
        layers = self.controller.comparison
        wait_until(lambda: layers.grid is not None and layers.grid.is_ready, 300)
        self._fit(2)
        process_events_for(0.5)
        self.picture("5-side-by-side", 1.5)
        service.close_grid()
        panel.setCurrentIndex(0)

    def export(self, name: str) -> None:
        """Export a run in every format that fits it."""
        from hrviewer.io import get_writer, writer_names

        controller = self.controller
        run = Run(self.out / f"{name}.run.zarr")
        controller.run_loader.open(run.path)
        wait_until(lambda: not controller.has_pending_work, 300)
        for form in writer_names():
            writer = get_writer(form)
            if writer.unsupported_reason(run) is not None:
                continue
            path = self.out / f"{name}{writer.suffixes[0]}"
            controller.export_service.export(path, form)
            wait_until(lambda: not controller.has_pending_work, 300)
            if path.exists():
                self.made.append(path)

    def save_film(self) -> Path:
        """Write the film."""
        path = self.out / "film.webp"
        self.film.save(path)
        self.made.append(path)
        return path


def busiest_region(pyramid: Pyramid, side: int = REGION, within: Rect | None = None) -> Rect:
    """Return the square with most contrast, found on a thumbnail; level-0 pixels."""
    from scipy.ndimage import gaussian_gradient_magnitude, uniform_filter

    whole = pyramid.rect if within is None else within
    h, w = whole.h, whole.w
    side = min(side, h, w) // 16 * 16
    scale = max(1.0, max(h, w) / 512)
    thumbnail = pyramid.read(whole, scale).astype(np.float32).mean(axis=2)
    detail: NDArray[np.float32] = gaussian_gradient_magnitude(thumbnail, 1.0)
    size = max(1, round(side / scale))
    score = uniform_filter(np.minimum(detail, np.percentile(detail, 99.5)), size, mode="constant")
    y, x = np.unravel_index(int(score.argmax()), score.shape)
    top = int(min(max(0, (y + 0.5) * scale - side / 2), h - side)) // 16 * 16
    left = int(min(max(0, (x + 0.5) * scale - side / 2), w - side)) // 16 * 16
    return Rect(whole.y + top, whole.x + left, side, side)


def middle(rect: Rect) -> tuple[float, float]:
    """Return the centre of a rectangle, ``(y, x)``."""
    return rect.y + rect.h / 2, rect.x + rect.w / 2


def zoom_path(
    image: Rect, region: Rect, start: float, end: float, steps: int
) -> Iterator[tuple[tuple[float, float], float]]:
    """Yield camera positions (centre, level-0 pixels per screen pixel) from all to a region."""
    for t in np.linspace(0, 1, steps) ** 0.7:
        pixel = start * (end / start) ** t
        # The centre moves with the logarithm of the scale's rest, so that the region stays in view.
        part = 1 - (pixel - end) / max(start - end, 1e-9)
        y, x = (a + part * (b - a) for a, b in zip(middle(image), middle(region), strict=True))
        yield (float(y), float(x)), float(pixel)


def contact_sheet(shots: dict[str, NDArray[np.uint8]], title: str) -> Image.Image:
    """Return screenshots with their titles, two in a row, under a common title."""
    tiles = [Image.fromarray(pixels[..., :3]) for pixels in shots.values()]
    width = 640
    height = round(tiles[0].height * width / tiles[0].width)
    head, caption, gap = 34, 22, 8
    columns = 2
    rows = -(-len(tiles) // columns)
    sheet = Image.new(
        "RGB",
        (columns * width + (columns + 1) * gap, head + rows * (height + caption) + gap),
        "#20252d",
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 7), title, fill="white", font=ImageFont.load_default(18))
    for i, (name, tile) in enumerate(zip(shots, tiles, strict=True)):
        x = gap + (i % columns) * (width + gap)
        y = head + (i // columns) * (height + caption)
        draw.text((x, y + 3), name, fill="#c8ccd4", font=ImageFont.load_default(14))
        sheet.paste(tile.resize((width, height), Image.Resampling.HAMMING), (x, y + caption))
    return sheet


def table(rows: Sequence[Row], count: float | None) -> str:
    """Return the strategies' results as a table.

    Parameters
    ----------
    rows : sequence of Row
        One of each strategy.
    count : float, optional
        Objects in the ground truth; without one, errors are relative to `patches`.
    """
    exhaustive = next((row.estimate for row in rows if row.strategy == "patches"), None)
    reference = exhaustive if count is None else count
    against = "patches" if count is None else "ground truth"
    heads = f"{'strategy':<13}{'estimate':>9}{'95 % of exhaustive':>19}{f'off {against}':>18}"
    lines = [f"{heads}{'GFLOP':>8}{'seconds':>9}{'Mpx read':>10}"]
    for row in rows:
        interval = "" if row.interval is None else "{:,.0f} – {:,.0f}".format(*row.interval)
        if row.strategy == "patches":
            interval = "exhaustive"
        error = "" if not reference else f"{100 * (row.estimate / reference - 1):+.1f} %"
        lines.append(
            f"{row.strategy:<13}{row.estimate:>9,.0f}{interval:>19}{error:>18}"
            f"{row.flops / 1e9:>8,.0f}{row.seconds:>9.1f}{row.read / 1e6:>10,.1f}"
        )
    if count is not None:
        lines.append(f"{'ground truth':<13}{count:>9,.0f}")
    return "\n".join(lines)


def main(
    image: str | Path = IMAGE,
    out: Path = Path("demo"),
    model: str = "nuclei",
    side: int = REGION,
) -> int:
    """Run the demonstration; return the exit status."""
    from hrviewer.engine import ResultCache

    started = time.monotonic()
    try:
        shutil.rmtree(out, ignore_errors=True) if is_demo_folder(out) else None
        out.mkdir(parents=True, exist_ok=True)
        (out / ".hrviewer-demo").touch()
        print(f"opening {image}")
        window = view(image, model, "patches")
        # Nothing from earlier runs, so that the seconds are those of this machine.
        resources = window.controller.resources
        resources.cache, resources.run_folder = ResultCache(), out
        resources.low_priority = False
        set_up_window(window)
        demo = Demo(window, out, side)
        print(f"Live: zooming and panning over {demo.pyramid.rect.area / 1e9:.2f} gigapixels")
        demo.overview()
        demo.live()
        h, w = demo.region.h, demo.region.w
        print(f"{len(strategy_ids())} strategies on a region of {h:,} × {w:,} pixels")
        demo.select_region()
        names = ["patches", *(name for name in strategy_ids() if name != "patches")]
        for name in names:
            demo.run_strategy(name)
            print(f"  {name}: {demo.rows[-1].estimate:,.0f}, {time.monotonic() - started:.0f} s")
        truth = demo.pyramid.ground_truth(demo.region)
        print(f"\n{table(demo.rows, None if truth is None else len(truth))}\n")
        demo.compare()
        print(f"compared, {time.monotonic() - started:.0f} s", flush=True)
        demo.export("zoom")
        print(f"exported, {time.monotonic() - started:.0f} s", flush=True)
        demo.save_film()
        for path in demo.made:
            print(f"  {path}")
        print(f"{time.monotonic() - started:.0f} s")
    except HrviewerError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if is_headless():
        window.close()
    else:
        import napari

        napari.run()
    return 0


def is_demo_folder(path: Path) -> bool:
    """Whether a folder was made by an earlier demonstration, and may be replaced."""
    return (path / ".hrviewer-demo").is_file()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", nargs="?", default=IMAGE)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--side", type=int, default=REGION, help="of the strategies' region")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    sys.exit(main(**vars(parser.parse_args())))
