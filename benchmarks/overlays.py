"""How long the overlays of many patches take: ``python -m benchmarks.overlays --patches 100000``.

One JSON object goes to standard output. A picture is filled with that many patches, on a grid over
an image of as many tiles, as a run fills it (this is ``draw_s``, on the run's thread, not the
window's). Then, in a window without a screen's drawing:

``create_s``
    Making the four raster overlays and the outlines, and showing them.
``update_s``
    One refresh of all of them after the last patch has come, with all of the image in view.
``outlines_s``, ``outlined``
    Following the view to a place at full resolution: outlines of what is visible there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TILE = 256
CELL = 32


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlays", description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    print(json.dumps(measure(parser.parse_args(arguments).patches), indent=1))


def measure(patches: int) -> dict[str, Any]:
    """Return what was measured, in seconds."""
    from napari.components import ViewerModel
    from napari.layers import Image

    from hrviewer.app.maps.result_maps import MAPS, Picture
    from hrviewer.engine import Charge, Seen
    from hrviewer.geometry import Patch, Rect
    from hrviewer.strategies import Look
    from hrviewer.viewer.layers.overlays import Overlays

    across = math.ceil(math.sqrt(patches))
    side = across * TILE
    image = Rect(0, 0, side, side)
    picture = Picture(image, CELL, "mass", ["thing"])
    cells = TILE // CELL
    values = np.ones((1, cells, cells), np.float32)

    def take(i: int) -> None:
        core = Rect(i // across * TILE, i % across * TILE, TILE, TILE)
        patch = Patch(core, 1.0, 0)
        box = (float(core.y), float(core.x), float(TILE), float(TILE))
        charge = Charge(flops=1e9, infer_s=1e-3)
        picture.take(Look("main", (patch,), into="output"))
        picture.take(Seen(patch, "main", np.array([values.sum()]), values, box, charge))

    start = time.perf_counter()
    for i in range(patches - 1):
        take(i)
    draw = time.perf_counter() - start

    viewer = ViewerModel()
    base = viewer.add_layer(Image(np.broadcast_to(np.uint8(0), (side, side)), name="base"))
    overlays: Overlays | None = None

    def create() -> None:
        nonlocal overlays
        overlays = Overlays(viewer, base, picture)
        for name in MAPS:
            overlays.show(name, True)
        overlays.refresh()
        overlays.follow(image, side / 1000)

    create_s = timed(create)
    assert overlays is not None
    take(patches - 1)
    for drawn in picture.maps.values():
        drawn.changed = True

    def update() -> None:
        overlays.refresh()
        overlays.follow(image, side / 1000)

    update_s = timed(update)
    middle = Rect(side // 2, side // 2, 1000, 1000)
    outlines_s = timed(lambda: overlays.follow(middle, 1.0))
    return {
        "patches": len(picture.record.patches),
        "image": [side, side],
        "create_s": round(create_s, 4),
        "update_s": round(update_s, 4),
        "outlines_s": round(outlines_s, 4),
        "outlined": overlays.outlines.outlined,
        "draw_s": round(draw, 4),
    }


def timed(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
