"""A large COG behind a local server with latency: bytes read, and the stalls of the window.

    python -m benchmarks.remote --side 100000 --latency 0.05

The file repeats one JPEG tile, but stores it at every place, so that nothing is read twice by
chance. A real window (on a virtual screen where there is none) pans over full resolution as a hand
would, flings, zooms out, pans there and zooms in again, at 30 moves a second. A timer of 5 ms ticks
in its event loop; a stall is the gap between two ticks less 5 ms. `loading` is the fraction of
moves in which tiles were missing, `read_ratio` the bytes that the server sent, but for the
directories, over those of the tiles of all levels that were in view. `computed` is the CPU time of
the window's thread between two ticks: stalls that exceed it are another program's, or waits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from benchmarks._camera import CameraMove, move_camera, play_moves, process_events, wait_until
from benchmarks.range_server import RangeServer
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.layer_refresh import tile_loader_of
from hrviewer.viewer.view import view

__all__ = ["main", "measure", "write_cog"]

TILE = 512
WINDOW = 1600, 1000
"""Width and height."""
REST_SECONDS = 1.0


def write_cog(path: Path, side: int) -> None:
    """Write a tiled pyramid of one repeated tile of noise, coarse levels included."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8).repeat(8, 0)
    tile = imagecodecs.jpeg_encode(noise.repeat(8, 1), level=80, colorspace="RGB")

    def tiles(count: int) -> Iterator[bytes]:
        return (tile for _ in range(count))

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        level = 0
        while level == 0 or side >> (level - 1) > 1024:
            length = side >> level
            file.write(
                tiles((-(-length // TILE)) ** 2),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=1 if level else 0,
                metadata=None,
            )
            level += 1


def moves_of(views: int) -> list[CameraMove]:
    """Return what a hand does for each view: it pans, flings, zooms out, pans, and zooms in."""
    moves = [CameraMove((600.0, 800.0), 1.0, REST_SECONDS)]

    def pan(count: int, dy: float, dx: float) -> None:
        (y, x), zoom = moves[-1].center, moves[-1].zoom
        step = dy / zoom, dx / zoom
        moves.extend(
            CameraMove((y + i * step[0], x + i * step[1]), zoom) for i in range(1, count + 1)
        )

    def zoom(count: int, factor: float) -> None:
        center, start = moves[-1].center, moves[-1].zoom
        moves.extend(CameraMove(center, start * factor ** (i / count)) for i in range(1, count + 1))

    for _ in range(views):
        pan(45, 10, 16)
        pan(20, 24, 40)
        zoom(20, 1 / 16)
        pan(20, 8, 12)
        zoom(20, 16)
        moves[-1] = replace(moves[-1], pause=REST_SECONDS)
    return moves


def measure(path: Path, latency: float, views: int) -> dict[str, float]:
    """Open the file behind a server in the window, and move over it."""
    with tifffile.TiffFile(path) as file:
        tile_bytes = int(file.pages[0].databytecounts[0])
    with RangeServer(path.parent, latency) as server:
        start = time.perf_counter()
        pyramid = open_pyramid(f"{server.url}/{path.name}")
        opened = time.perf_counter() - start
        directories = server.sent
        window = view(pyramid)
        viewer = window.viewer
        viewer.window.resize(*WINDOW)
        layer = window.controller.image_layer
        loader = tile_loader_of(layer)
        assert layer is not None
        assert loader is not None
        # The coarsest level stands in for all that is not loaded yet.
        coarsest = pyramid.levels[-1]
        shown = set(coarsest.tiles(0, coarsest.shape[0], 0, coarsest.shape[1]))

        def record() -> bool:
            level = pyramid.levels[layer.data_level]
            (y0, x0), (y1, x1) = np.asarray(layer.corner_pixels)[:, :2]
            h, w, _ = level.shape
            shown.update(level.tiles(int(y0), min(int(y1) + 1, h), int(x0), min(int(x1) + 1, w)))
            return bool(loader.is_loading)

        wait_until(lambda: loader.coarsest_loaded and not loader.is_loading)
        record()
        moves = moves_of(views)
        move_camera(viewer, moves[0])
        process_events(REST_SECONDS)
        wait_until(lambda: not loader.is_loading)
        record()
        start = time.perf_counter()
        stalls = play_moves(viewer, moves[1:], record)
        wait_until(lambda: not loader.is_loading)
        record()
        panned = time.perf_counter() - start
        sent = server.sent - directories
        window.close()
        process_events(0.2)
        return {
            "gigapixels": round(pyramid.plane_shape[0] * pyramid.plane_shape[1] / 1e9, 2),
            "file_bytes": path.stat().st_size,
            "latency_s": latency,
            "open_s": round(opened, 3),
            "directory_bytes": directories,
            "views": views,
            "pan_s": round(panned, 1),
            "loading": round(stalls.busy, 2),
            "stall_p95_ms": round(1000 * stalls.p95, 1),
            "stall_max_ms": round(1000 * stalls.longest, 1),
            "computed_p95_ms": round(1000 * float(np.percentile(stalls.computing, 95)), 1),
            "computed_max_ms": round(1000 * max(stalls.computing), 1),
            "tiles": len(shown),
            "tile_bytes": len(shown) * tile_bytes,
            "read_bytes": sent,
            "read_ratio": round(sent / (len(shown) * tile_bytes), 3),
        }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--views", type=int, default=20)
    options = parser.parse_args()
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        screen = Path(__file__).parents[1] / "scripts" / "headless.sh"
        again = [sys.executable, "-m", "benchmarks.remote", *sys.argv[1:]]
        os.execv(screen, [str(screen), *again])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRVIEWER_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "large.tif"
        write_cog(path, options.side)
        print(json.dumps(measure(path, options.latency, options.views), indent=2))


if __name__ == "__main__":
    main()
