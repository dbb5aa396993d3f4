"""Rendering rate of synthetic images: ``python -m benchmarks.synthetic_images [NAME …]``.

One JSON object is printed. Rates are by the processor time of the one thread that
renders, over tiles of 512 pixels spread evenly over images of several seeds; opening is the wall
time until the coarsest level has been read, with everything compiled.
"""

from __future__ import annotations

import argparse
import json
import time

from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.synthetic import make_synthetic_image, synthetic_image_names
from hrviewer.pyramid.tile_cache import tile_cache

TILE = 512
SEEDS = (0, 1, 2, 3)
SCALES = (1, 4, 16, 64)


def render_rate(name: str, size: int, scale: int, side: int = 5) -> float:
    """Return megapixels per second of processor time."""
    pixels, seconds = 0, 0.0
    length = TILE * scale
    for seed in SEEDS:
        image = make_synthetic_image(name, size, seed)
        corners = [k * (size - length) // (side - 1) // scale * scale for k in range(side)]
        for y in corners:
            for x in corners:
                start = time.thread_time()
                image.render(Rect(y, x, length, length), scale)
                seconds += time.thread_time() - start
                pixels += TILE * TILE
    return pixels / seconds / 1e6


def open_seconds(name: str, size: int) -> float:
    """Return the seconds from a URL to the coarsest level of the image."""
    tile_cache().clear()
    start = time.perf_counter()
    with open_pyramid(f"sample:{name}?size={size}&seed=5") as pyramid:
        height, width, _ = pyramid.levels[-1].shape
        pyramid.levels[-1].read(0, height, 0, width)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="synthetic images; all that are installed by default"
    )
    parser.add_argument("--size", type=int, default=32_768)
    options = parser.parse_args()
    found = {}
    for name in options.names or synthetic_image_names():
        make_synthetic_image(name, 1024, 0).render(Rect(0, 0, 64, 64), 1)  # compiles
        found[name] = {
            "size": options.size,
            "megapixels_per_core_second": {
                str(scale): round(render_rate(name, options.size, scale, 5 if scale < 16 else 2), 1)
                for scale in SCALES
            },
            "open_131072_s": round(open_seconds(name, 131_072), 2),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
