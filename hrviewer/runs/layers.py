"""The maps of a run as napari's layer-data tuples, without napari."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrviewer.io.exportable import Exportable
from hrviewer.io.figures.map_styles import MAP_STYLES, MapStyle
from hrviewer.io.geojson import class_colors
from hrviewer.io.run_maps import MapName, coarsen, most_likely, open_map
from hrviewer.runs.estimates import pluralize
from hrviewer.runs.object_layer import object_tuples
from hrviewer.units import AREA_UNITS, area_unit, nice_ceiling

__all__ = ["LayerDataTuple", "layer_tuples"]

LayerDataTuple = tuple[Any, dict[str, Any], str]

MAX_SIDE = 1024
"""Cells along the longer side of a layer; finer maps are coarsened."""

Plane = NDArray[np.float32]


class DisplayableRun(Exportable, Protocol):
    """A run with what its layers need."""

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """µm per level-0 pixel, ``(y, x)``."""

    @property
    def estimate(self) -> Any:
        """The estimate; None where there is none."""

    @property
    def patches(self) -> Any:
        """Table of patches."""


@dataclass(frozen=True)
class LayerStyle:
    """Appearance of a map.

    Parameters
    ----------
    style : MapStyle
        Its colours.
    hexadecimal : str
        Nine of them, without matplotlib and napari.
    visible : bool
        Whether the layer is shown at first.
    """

    style: MapStyle
    hexadecimal: str
    visible: bool = False

    @property
    def colormap(self) -> dict[str, Any]:
        """The keywords of napari's `Colormap`."""
        rgb = np.array([[*bytes.fromhex(colour)] for colour in self.hexadecimal.split()]) / 255
        opaque = np.column_stack([rgb, np.ones(len(rgb))])
        colours = self.style.colors(lambda _: opaque, len(rgb)).astype(np.float32)
        return {"colors": colours, "name": f"hrviewer run {self.style.colormap_name}"}


CIVIDIS = "00224e 1a386f 434e6c 61656f 7d7c78 9b9476 bcae6c dec958 fee838"
INFERNO = "160b39 470b6a 751b6e a32c61 cc4248 ec6726 fb9906 f7d13d fcffa4"
MAGMA = "140e36 400f74 6e1e81 9c2e7f ca3e72 f05f5e fd9467 feca8d fcfdbf"
VIRIDIS = "355f8d 2b758e 238a8d 1fa088 2fb47c 56c667 8bd646 c5e021 fde725"
"""Without their darkest parts, which resemble shadows on an image."""

STYLES = {
    "cost": LayerStyle(MAP_STYLES["cost"], CIVIDIS),
    "saliency": LayerStyle(MAP_STYLES["saliency"], INFERNO),
    "patches": LayerStyle(MAP_STYLES["patches"], MAGMA),
    "output": LayerStyle(MAP_STYLES["output"], VIRIDIS, visible=True),
}
"""In the order of drawing, the top layer last."""


def layer_tuples(run: DisplayableRun) -> list[LayerDataTuple]:
    """Return cost, saliency, patches, output and objects as layers over the run's image.

    Returns
    -------
    list of tuple
        ``(data, settings, "image")``: data is a float32 array of at most 1024 cells per side, NaN
        outside the processed patches; settings hold scale, translate and units of napari's layer.
        Where classes exclude one another also labels of the most likely one, 1 for the first. Of
        a detector also `object_tuples`.
    """
    planes: dict[str, Callable[[DisplayableRun], tuple[Plane, float, str]]] = {
        "cost": cost_plane,
        "saliency": saliency_plane,
        "patches": patch_plane,
        "output": output_plane,
    }
    tuples: list[LayerDataTuple] = []
    for name, style in STYLES.items():
        plane, cell, unit = planes[name](run)
        size = run.pixel_size
        scale = (cell, cell) if size is None else (cell * size[0], cell * size[1])
        limits = (0.0, 1.0) if unit == "probability" else (0.0, upper_limit(plane))
        if name == "output" and (run.estimate or {}).get("range"):
            limits = tuple(run.estimate["range"])
        settings = {
            "name": name,
            "colormap": style.colormap,
            "contrast_limits": limits,
            "opacity": style.style.opacity,
            "visible": style.visible,
            "interpolation2d": "nearest",
            "blending": "translucent_no_depth",
            "scale": scale,
            # The centre of the first cell, where that of the first pixel is the origin.
            "translate": tuple((side - side / cell) / 2 for side in scale),
            "units": ("pixel", "pixel") if size is None else ("um", "um"),
            "metadata": {"hrviewer": {"overlay": name, "unit": unit}},
        }
        tuples.append((plane, settings, "image"))
        if name == "output":
            tuples += class_tuples(run, settings)
    return tuples + object_tuples(run, run.pixel_size)


def class_tuples(run: DisplayableRun, place: Mapping[str, Any]) -> list[LayerDataTuple]:
    """Return the map of the most likely class as labels, where classes exclude one another."""
    if not open_map(run, "output").exclusive:
        return []
    values, _, _ = read_map(run, "output")
    names = [*run.estimate["per_class"]]
    colors: dict[int | None, Any] = dict(enumerate(np.array(class_colors(names)) / 255, start=1))
    colors[None] = np.zeros(4)
    settings = {
        "name": "most likely class",
        "colormap": colors,
        "opacity": 0.6,
        "visible": len(names) > 2,
        "features": {"index": range(len(names) + 1), "class": ["", *names]},
        "metadata": {"hrviewer": {"overlay": "most likely class"}},
        **{name: place[name] for name in ("blending", "scale", "translate", "units")},
    }
    labels = (most_likely(values) + 1).astype(np.uint16)
    return [(labels, settings, "labels")]


def upper_limit(plane: Plane) -> float:
    """Return a round upper end of the colour scale, at the 99.5th percentile."""
    positive = plane[np.isfinite(plane) & (plane > 0)]
    return nice_ceiling(float(np.percentile(positive, 99.5))) if positive.size else 1.0


def read_map(run: DisplayableRun, name: MapName) -> tuple[Plane, float, bool]:
    """Return a map of at most `MAX_SIDE` cells a side, its cell, and whether its cells add up."""
    run_map = open_map(run, name)
    _, rows, columns = run_map.cells.shape
    longer, shorter = max(rows, columns), min(rows, columns)
    n = 1
    while -(-longer // n) > MAX_SIDE:
        n *= 2
    values, cell = coarsen(run_map, -(-longer // n) * -(-shorter // n))
    return values, cell, run_map.additive


def output_plane(run: DisplayableRun) -> tuple[Plane, float, str]:
    """Return the density of all objects, or the probability or quantity of the last class."""
    values, cell, additive = read_map(run, "output")
    if not additive:
        units = (run.estimate or {}).get("units") or {}
        name, unit = list(units.items())[-1] if units else ("probability", "")
        return values[-1], cell, f"{name} ({unit})" if unit else name
    size = run.pixel_size
    area, per = "megapixel", 1e-6
    if size is not None:
        area, square = AREA_UNITS[area_unit(size)]
        per = size[0] * size[1] / square
    names = list(run.estimate["per_class"]) if run.estimate else []
    unit = f"{pluralize(names[0]) if len(names) == 1 else 'objects'} per {area}"
    return values.sum(axis=0) * (1 / (cell**2 * per)), cell, unit


def saliency_plane(run: DisplayableRun) -> tuple[Plane, float, str]:
    """Return the saliency that the strategy selected patches by."""
    values, cell, _ = read_map(run, "saliency")
    return values[0], cell, "saliency"


def cost_plane(run: DisplayableRun) -> tuple[Plane, float, str]:
    """Return FLOPs per pixel, NaN where there are none."""
    values, cell, _ = read_map(run, "cost")
    return np.where(values[0] > 0, values[0] / cell**2, np.nan), cell, "FLOP per pixel"


def patch_plane(run: DisplayableRun) -> tuple[Plane, float, str]:
    """Return the order in which patches were processed, on the grid of the cost map."""
    values, cell, _ = read_map(run, "cost")
    plane = np.full(values.shape[1:], np.nan, np.float32)
    table = run.patches.sort_values("scale", ascending=False, kind="stable")
    y, x, h, w, order = table[["y", "x", "h", "w", "order"]].to_numpy(np.float64).T
    top, left = (y // cell).astype(int), (x // cell).astype(int)
    bottom = np.maximum(top + 1, np.rint((y + h) / cell).astype(int))
    right = np.maximum(left + 1, np.rint((x + w) / cell).astype(int))
    for i, number in enumerate(order):
        plane[top[i] : bottom[i], left[i] : right[i]] = number + 1
    return plane, cell, "order of patches"
