"""Time to draw the overlays of many patches: ``python -m benchmarks.overlays --patches 100000``.

One JSON object is printed. Result maps are filled with that many patches, on a grid over
an image of as many tiles, as a run fills it (this is ``draw_s``, on the run's thread, not the
window's). Then, in a window without a screen's drawing:

``create_s``
    Making the four raster overlays and the outlines, and showing them.
``update_s``
    One refresh of all of them after the last patch has come, with all of the image in view.
``outlines_s``, ``outlined``
    Moving the view to full resolution: outlines of the visible patches.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TILE_SIDE = 256
CELL = 32


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overlays", description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    print(json.dumps(measure(parser.parse_args(arguments).patches), indent=1))


def measure(patches: int) -> dict[str, Any]:
    """Return what was measured, in seconds."""
    from napari.components import ViewerModel
    from napari.layers import Image

    from hrviewer.app.image_session import Viewport
    from hrviewer.app.maps.raster import MAPS
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.engine import Cost, InferenceResult
    from hrviewer.geometry import Patch, Rect
    from hrviewer.strategies import PatchRequest
    from hrviewer.viewer.layers.overlays import Overlays

    across = math.ceil(math.sqrt(patches))
    side = across * TILE_SIDE
    image = Rect(0, 0, side, side)
    maps = ResultMaps(image, CELL, "mass", ["thing"])
    cells = TILE_SIDE // CELL
    values = np.ones((1, cells, cells), np.float32)

    def take(i: int) -> None:
        core = Rect(i // across * TILE_SIDE, i % across * TILE_SIDE, TILE_SIDE, TILE_SIDE)
        patch = Patch(core, 1.0, 0)
        box = (float(core.y), float(core.x), float(TILE_SIDE), float(TILE_SIDE))
        charge = Cost(flops=1e9, infer_s=1e-3)
        maps.update(PatchRequest("main", (patch,), target="output"))
        maps.update(InferenceResult(patch, "main", np.array([values.sum()]), values, box, charge))

    start = time.perf_counter()
    for i in range(patches - 1):
        take(i)
    draw = time.perf_counter() - start

    viewer = ViewerModel()
    base = viewer.add_layer(Image(np.broadcast_to(np.uint8(0), (side, side)), name="base"))
    overlays: Overlays | None = None

    def create() -> None:
        nonlocal overlays
        overlays = Overlays(viewer, base, maps)
        for name in MAPS:
            overlays.set_visible(name, True)
        overlays.refresh()
        overlays.follow_view(Viewport(image, (side / 1000,) * 2))

    create_s = time_call(create)
    assert overlays is not None
    take(patches - 1)
    for drawn in maps.rasters.values():
        drawn.changed = True

    def update() -> None:
        overlays.refresh()
        overlays.follow_view(Viewport(image, (side / 1000,) * 2))

    update_s = time_call(update)
    middle = Rect(side // 2, side // 2, 1000, 1000)
    outlines_s = time_call(lambda: overlays.follow_view(Viewport(middle)))
    return {
        "patches": len(maps.record.patches),
        "image": [side, side],
        "create_s": round(create_s, 4),
        "update_s": round(update_s, 4),
        "outlines_s": round(outlines_s, 4),
        "outlined": overlays.outlines.count,
        "draw_s": round(draw, 4),
    }


def time_call(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
