"""A large COG behind a local server with latency: bytes read, and the stall of the window.

    python -m benchmarks.remote --side 100000 --latency 0.05

The file repeats one JPEG tile, but stores it at every place, so that nothing is read twice by
chance. The view pans over full resolution; `stall_ms` is the longest time that a read for the
screen kept its thread, `read_ratio` the bytes that the server sent for tiles over those of the
tiles in the views.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from benchmarks.range_server import RangeServer
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.tile_loader import TileLoader

__all__ = ["main", "measure", "write_cog"]

TILE = 512
SCREEN = 900, 1200
"""Pixels of the view."""


def write_cog(path: Path, side: int) -> None:
    """Write a tiled pyramid of one repeated tile of noise, coarse levels included."""
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8).repeat(16, 0)
    tile = imagecodecs.jpeg_encode(noise.repeat(16, 1), level=80, colorspace="RGB")

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


def measure(path: Path, latency: float, views: int) -> dict[str, float]:
    """Open the file behind a server and pan over it."""
    with RangeServer(path.parent, latency) as server:
        start = time.perf_counter()
        with open_pyramid(f"{server.url}/{path.name}") as pyramid:
            opened = time.perf_counter() - start
            directories = server.sent
            loader = TileLoader(pyramid, max(pyramid.levels[-1].downsample), (0, 1, 2))
            loader.progressive = True
            loader.load_coarsest()
            before, stalls, shown = server.sent, [], {}
            level = pyramid.levels[0]
            start = time.perf_counter()
            for view in range(views):
                y, x = view * 700, view * 1100
                window = y, y + SCREEN[0], x, x + SCREEN[1]
                begun = time.perf_counter()
                loader.read_available(0, window)
                stalls.append(time.perf_counter() - begun)
                while loader.is_loading:
                    time.sleep(0.005)
                for key in level.tiles(*window):
                    shown[key] = True
            panned = time.perf_counter() - start
            with tifffile.TiffFile(path) as file:
                size = int(file.pages[0].databytecounts[0])
            sent = server.sent - before
        return {
            "gigapixels": round(pyramid.plane_shape[0] * pyramid.plane_shape[1] / 1e9, 2),
            "file_bytes": path.stat().st_size,
            "latency_s": latency,
            "open_s": round(opened, 3),
            "directory_bytes": directories,
            "views": views,
            "seconds_per_view": round(panned / views, 3),
            "stall_ms": round(1000 * max(stalls), 2),
            "tile_bytes": len(shown) * size,
            "read_bytes": sent,
            "read_ratio": round(sent / (len(shown) * size), 3),
        }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--views", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRVIEWER_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "large.tif"
        write_cog(path, options.side)
        print(json.dumps(measure(path, options.latency, options.views), indent=2))


if __name__ == "__main__":
    main()
