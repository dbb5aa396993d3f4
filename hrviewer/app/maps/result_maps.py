"""What is drawn over an image: four maps that grow while a run goes on.

Invariants: every map is a plain ``float32`` array over the whole image, NaN where nothing was
looked at, and is written in place, so that a layer made from it never has to be replaced. `take`
is called on the run's thread, everything else on the window's; writes are of single numbers, so
the worst that a screen can catch is a patch half drawn. Nothing here knows of napari or Qt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.attention_map import AttentionMap
from hrviewer.app.maps.embedding_map import EmbeddingMap
from hrviewer.engine import Canvas, InferenceResult, PatchRow, RunRecord, Update
from hrviewer.engine.canvas import MapKind
from hrviewer.engine.cost import QUANTITIES
from hrviewer.geometry import Rect
from hrviewer.runs import Run
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest
from hrviewer.units import nice_ceiling

__all__ = ["COST_QUANTITIES", "MAPS", "CostQuantity", "MapName", "PyramidRaster", "ResultMaps"]

MapName = Literal["output", "saliency", "patches", "cost"]
MAPS: tuple[MapName, ...] = ("output", "saliency", "patches", "cost")


@dataclass(frozen=True)
class CostQuantity:
    """Something that looks cost, as the cost map draws it.

    Parameters
    ----------
    unit : str
        As the legend writes it.
    parts : tuple of str
        Of `Charge`, which add up to it.
    per_pixel : float
        Units per pixel of the image that one of these is.
    """

    unit: str
    parts: tuple[str, ...]
    per_pixel: float = 1.0


COST_QUANTITIES: dict[str, CostQuantity] = {
    "FLOPs": CostQuantity("FLOP per pixel", ("flops",)),
    "time": CostQuantity("ms per megapixel", ("read_s", "prepare_s", "infer_s", "post_s"), 1e9),
    "bytes": CostQuantity("bytes per pixel", ("bytes",)),
}
"""What the cost map can show, by name."""

MAX_CELLS = 4096**2
"""Cells of the output map, over all classes; a larger one is drawn with coarser cells."""


@dataclass(eq=False)
class PyramidRaster:
    """One map.

    Parameters
    ----------
    levels : list of ndarray of float32, shape (rows, columns)
        The map, then its means over 2 × 2, 4 × 4, … cells, for a screen that shows less; NaN
        where nothing was looked at.
    cell : float
        Side of the finest level's cells, level-0 pixels.
    unit : str
        Of the values, as the legend writes it.
    limits : tuple of float
        What the ends of the colour scale stand for.
    fixed_limits : bool
        Whether the limits are known beforehand; otherwise they follow in round steps.
    changed : bool
        Whether there is something new to show.
    """

    levels: list[NDArray[np.float32]]
    cell: float
    unit: str
    limits: tuple[float, float] = (0.0, 1.0)
    fixed_limits: bool = False
    changed: bool = False

    @property
    def values(self) -> NDArray[np.float32]:
        """The finest level."""
        return self.levels[0]

    def level_for(self, side: float) -> int:
        """Return the finest level whose cells are not smaller than `side` level-0 pixels."""
        wanted = math.ceil(math.log2(max(side / self.cell, 1.0)) - 1e-9)
        return min(wanted, len(self.levels) - 1)

    def autoscale(self, level: int = 0) -> bool:
        """Let the limits follow a level's values, in round steps; return whether they moved."""
        if self.fixed_limits:
            return False
        values = self.levels[level]
        step = max(1, math.isqrt(values.size // 250_000))
        some = values[::step, ::step]
        some = some[np.isfinite(some) & (some > 0)]
        if not some.size:
            return False
        limits = (0.0, nice_ceiling(float(np.percentile(some, 99.5))))
        if limits == self.limits:
            return False
        self.limits = limits
        return True

    def update_coarser(self, rect: Rect) -> None:
        """Bring the coarser levels up to date inside a rectangle of level-0 pixels."""
        for i in range(1, len(self.levels)):
            rows, columns = cell_slices(rect, self.cell * 2**i)
            part = self.levels[i - 1][
                2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop
            ]
            target = self.levels[i][rows, columns]
            target[:] = coarsen(part[None], 2, "intensity")[0][: target.shape[0], : target.shape[1]]


@dataclass
class Completion:
    """Whether a run is over: its layers know, and say so when they are saved before that."""

    is_final: bool = False


class ResultMaps:
    """The maps of one run, and what was spent and found so far.

    Parameters
    ----------
    image : Rect
        The whole image.
    cell : float
        Side of the network's output cells, level-0 pixels.
    kind : {"mass", "intensity"}
        Whether the output is counted or is a probability.
    classes : sequence of str
        What the network's outputs mean.
    pixel_size : tuple of float, optional
        µm per level-0 pixel.
    region : Rect, optional
        What the run answers for.

    Attributes
    ----------
    record : Record
        Totals, patches and maps in the engine's own terms.
    rasters : dict of str to Map
        What is drawn, by name.
    downsampling : int
        Output cells per drawn cell and side.
    class_index : int or None
        The class that is drawn; None for all of them together.
    warps : dict of Rect to Warp
        Through which grids was looked, by what the looks answer for; replaced, never changed.
    cost_quantity : str
        Of `COSTS`, what the cost map shows.
    embeddings : Codes or None
        What was encoded; replaced where a run or a choice begins anew.
    token_groups : dict of Rect to (Look, int)
        Which look's group tokens were part of, by what they answer for.
    attention : Attention or None
        What tokens attended to; there once somebody has asked.
    """

    def __init__(
        self,
        image: Rect,
        cell: float,
        kind: MapKind,
        classes: Sequence[str],
        pixel_size: tuple[float, float] | None = None,
        region: Rect | None = None,
    ) -> None:
        self.image, self.region = image, region or image
        self.completion = Completion()
        self.classes = tuple(classes)
        self.downsampling = 1
        k = max(1, len(classes))
        while k * math.prod(Canvas.shape(image, cell * self.downsampling)) > MAX_CELLS:
            self.downsampling *= 2
        cell = cell * self.downsampling
        canvas = Canvas.in_memory(image, cell, k, kind)
        self.record = record = RunRecord(image, canvas, self.region & image)
        # A probability is shown for one class at a time, the last: a background comes first.
        self.class_index = None if kind == "mass" else k - 1
        self.cost_quantity = next(iter(COST_QUANTITIES))
        self._current_request: PatchRequest | WarpRequest | FeatureRequest | None = None
        self._scores: dict[Rect, float] = {}
        self.warps: dict[Rect, WarpRequest] = {}
        self.embeddings: EmbeddingMap | None = None
        self.token_groups: dict[Rect, tuple[PatchRequest, int]] = {}
        self.attention: AttentionMap | None = None
        self._areas = cell_areas(image, cell, canvas.values.shape[1:])
        self._cost_areas = cell_areas(image, record.cost_map.cell, record.cost_map.values.shape[1:])
        per = 1e6 if pixel_size is None else 1e6 / (pixel_size[0] * pixel_size[1])
        self._per_area = per if kind == "mass" else None
        what = self.classes[0] if len(self.classes) == 1 else "objects"
        area = "megapixel" if pixel_size is None else "mm²"
        unit = f"{what} per {area}" if kind == "mass" else "probability"
        grid = record.cost_map.values.shape[1:]
        self.rasters: dict[MapName, PyramidRaster] = {
            "output": PyramidRaster(
                empty_levels(canvas.values.shape[1:]), cell, unit, fixed_limits=kind != "mass"
            ),
            "saliency": PyramidRaster(
                [record.saliency.values[0]], record.saliency.cell, "interest"
            ),
            "patches": PyramidRaster([empty_raster(grid)], record.cost_map.cell, "order of looks"),
            "cost": PyramidRaster(
                [empty_raster(grid)], record.cost_map.cell, COST_QUANTITIES[self.cost_quantity].unit
            ),
        }

    @classmethod
    def from_run(cls, run: Run) -> ResultMaps:
        """Return the maps of a run folder."""
        array, cell = run.map("output")
        estimate = run.estimate
        kind: MapKind = "mass" if estimate and estimate["kind"] == "count" else "intensity"
        names = list(estimate["per_class"]) if estimate else []
        names = names if len(names) == array.shape[0] else [f"{i}" for i in range(array.shape[0])]
        image = Rect(0, 0, *run.image_shape)
        picture = cls(image, cell, kind, names, run.pixel_size, run.region)
        record, n = picture.record, picture.downsampling
        canvas = record.output.values
        for row in range(0, canvas.shape[1], 512):
            strip = np.asarray(array[:, row * n : (row + 512) * n])
            canvas[:, row : row + 512] = coarsen(strip, n, kind)
        if record.saliency.values[0].shape == run.saliency.shape:
            record.saliency.values[0] = run.saliency
        cost, _ = run.map("cost")
        record.cost_map.values[:] = cost[:]
        record.patches.extend(
            PatchRow(**{str(name): value for name, value in row.items()})
            for row in run.patches.to_dict("records")
        )
        if (run.path / "embeddings").is_dir():
            picture.embeddings = EmbeddingMap.from_array(image, *run.map("embeddings"))
        spent = run.cost
        record.cost_map.total = replace(
            record.cost_map.total,
            flops=spent["flops"],
            bytes=spent["bytes_read"],
            pixels=spent["pixels_read"],
            **{name: spent[name] for name in ("read_s", "prepare_s", "infer_s", "post_s")},
        )
        for patch in record.patches:
            picture._mark_patch(patch)
        picture._redraw(image)
        picture.completion.is_final = True
        for drawn in picture.rasters.values():
            drawn.changed = True
            drawn.autoscale()
        return picture

    def update(self, update: Update) -> None:
        """Draw what a run says of itself; on the run's thread."""
        if isinstance(update, PatchRequest | WarpRequest | FeatureRequest):
            self._current_request = update
            self._scores = {}
            if isinstance(update, PatchRequest) and update.scores is not None:
                self._scores = {
                    patch.core & self.region: score
                    for patch, score in zip(update.patches, update.scores, strict=True)
                }
            if isinstance(update, PatchRequest) and update.group is not None:
                for patch, number in zip(update.patches, update.group, strict=True):
                    self.token_groups[patch.core & self.region] = update, number
        elif isinstance(update, InferenceResult) and self._current_request is not None:
            if not update.patch.core.empty:  # else it is context, and answers for nothing
                self._add(self._current_request, update)
        elif isinstance(update, Publish):
            self.record.publish(update)
            self.rasters["saliency"].changed = True

    def clear(self, rect: Rect) -> None:
        """Draw nothing in a rectangle, as if it had not been looked at; totals stay."""
        record = self.record
        for canvas in (record.output, record.saliency):
            rows, columns = cell_slices(rect, canvas.cell)
            canvas.values[:, rows, columns] = np.nan
            canvas.scales[rows, columns] = np.nan
        rows, columns = cell_slices(rect, record.cost_map.cell)
        record.cost_map.values[:, rows, columns] = 0
        for name, drawn in self.rasters.items():
            if name != "saliency":
                drawn.values[cell_slices(rect, drawn.cell)] = np.nan
                drawn.update_coarser(rect)
            drawn.changed = True
        warps = {core: warp for core, warp in self.warps.items() if (core & rect).empty}
        if len(warps) < len(self.warps):  # another mapping is drawn anew
            self.warps = warps
        if rect == self.image:
            self.embeddings = self.attention = None
            self.token_groups = {}
        for kept in (self.embeddings, self.attention):
            if kept is not None:
                kept.clear(rect)
        left = [p for p in record.patches if (Rect(p.y, p.x, p.h, p.w) & rect).empty]
        if len(left) < len(record.patches):
            record.patches = left

    def set_class(self, class_index: int | None) -> None:
        """Draw another class, or all of them together."""
        self.class_index = class_index
        self._redraw(self.image)
        self.rasters["output"].changed = True

    def set_cost_quantity(self, quantity: str) -> None:
        """Draw another cost, of `COSTS`."""
        self.cost_quantity = quantity
        drawn = self.rasters["cost"]
        drawn.unit, drawn.changed = COST_QUANTITIES[quantity].unit, True
        self._redraw_cost(self.image)

    def patch_at(self, y: float, x: float) -> PatchRow | None:
        """Return the finest look whose core holds a point; of these the smallest, then the last."""
        found = [
            row
            for row in self.record.patches
            if row.y <= y < row.y + row.h and row.x <= x < row.x + row.w
        ]
        return min(reversed(found), key=lambda row: (row.scale, row.h * row.w), default=None)

    def _add(
        self, request: PatchRequest | WarpRequest | FeatureRequest, result: InferenceResult
    ) -> None:
        core = result.patch.core
        if isinstance(request, PatchRequest):
            score = self._scores.get(core)
            scores = None if score is None else (score,)
            request = replace(request, patches=(result.patch,), group=None, scores=scores)
        elif isinstance(request, WarpRequest):
            self.warps = {**self.warps, core: request}
        self.record.add(request, [result])
        if request.target == "embeddings" and result.status != "failed":
            if self.embeddings is None:
                width, rows, _ = result.map.shape
                self.embeddings = EmbeddingMap(self.image, width, result.box[2] / rows)
            self.embeddings.update(result)
        self._mark_patch(self.record.patches[-1])
        self._redraw(core)
        if request.target == "saliency":
            self.rasters["saliency"].changed = True

    def _mark_patch(self, row: PatchRow) -> None:
        core = Rect(row.y, row.x, row.h, row.w)
        drawn = self.rasters["patches"]
        drawn.values[cell_slices(core, drawn.cell)] = row.order + 1
        drawn.changed = True

    def _redraw(self, rect: Rect) -> None:
        """Bring the drawn output and cost up to date inside `rect`."""
        canvas, drawn = self.record.output, self.rasters["output"]
        where = cell_slices(rect, canvas.cell)
        values = np.asarray(canvas.values[:, where[0], where[1]])
        chosen = values.sum(axis=0) if self.class_index is None else values[self.class_index]
        if self._per_area is not None:
            chosen = chosen / self._areas[where] * self._per_area
        drawn.values[where] = chosen
        drawn.update_coarser(rect)
        drawn.changed = True
        self._redraw_cost(rect)

    def _redraw_cost(self, rect: Rect) -> None:
        ledger, drawn, quantity = (
            self.record.cost_map,
            self.rasters["cost"],
            COST_QUANTITIES[self.cost_quantity],
        )
        rows, columns = cell_slices(rect, ledger.cell)
        # The same place is seen whatever is shown: where looks were cheap, too.
        seen = ledger.values[0, rows, columns] > 0
        amount = sum(
            ledger.values[QUANTITIES.index(part), rows, columns] for part in quantity.parts
        )
        per_pixel = amount * quantity.per_pixel / self._cost_areas[rows, columns]
        drawn.values[rows, columns] = np.where(seen, per_pixel, np.nan)
        drawn.changed = True


def empty_raster(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a map of nothing."""
    return np.full(tuple(shape), np.nan, np.float32)


def empty_levels(shape: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return maps of nothing, each half the one before, down to a few cells."""
    levels = [empty_raster(shape)]
    while max(levels[-1].shape) > 32:
        levels.append(empty_raster([-(-n // 2) for n in levels[-1].shape]))
    return levels


def cell_slices(rect: Rect, cell: float) -> tuple[slice, slice]:
    """Return the cells that a rectangle touches."""
    return (
        slice(max(0, math.floor(rect.y / cell + 1e-9)), math.ceil(rect.y1 / cell - 1e-9)),
        slice(max(0, math.floor(rect.x / cell + 1e-9)), math.ceil(rect.x1 / cell - 1e-9)),
    )


def cell_areas(image: Rect, cell: float, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return how many pixels of the image each cell covers; its border cuts the last ones."""
    sides = [
        np.diff(np.minimum(np.arange(n + 1) * cell, length))
        for n, length in zip(shape, (image.h, image.w), strict=True)
    ]
    return np.asarray(np.outer(*sides), np.float32)


def coarsen(values: NDArray[np.floating], n: int, kind: MapKind) -> NDArray[np.float32]:
    """Join cells, n × n, keeping the sum or the mean; NaN where none of them was seen."""
    if n == 1:
        return np.asarray(values, np.float32)
    k, rows, columns = values.shape
    grown = np.full((k, -(-rows // n) * n, -(-columns // n) * n), np.nan, np.float32)
    grown[:, :rows, :columns] = values
    cells = grown.reshape(k, grown.shape[1] // n, n, grown.shape[2] // n, n)
    seen = np.isfinite(cells).sum(axis=(2, 4))
    total = np.nansum(cells, axis=(2, 4))
    joined = total if kind == "mass" else total / np.maximum(seen, 1)
    return np.where(seen > 0, joined, np.nan).astype(np.float32)
