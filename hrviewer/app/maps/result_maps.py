"""Result maps over an image: four rasters that fill while inference goes on.

Invariants: every raster is a plain ``float32`` array over the whole image, NaN where there is no
prediction, and is written in place, so that a layer made from it never has to be replaced. `update`
is called on the run's thread, everything else on the front end's; single numbers are written, so
the worst that a screen can show is half a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hrviewer.app.maps.attention_map import AttentionMap
from hrviewer.app.maps.colour_scale import ColourScale, ColourScales
from hrviewer.app.maps.embedding_map import EmbeddingMap
from hrviewer.app.maps.object_map import ObjectMap
from hrviewer.app.maps.prediction_kinds import quantities_of
from hrviewer.app.maps.raster import (
    COST_QUANTITIES,
    OUTLINES,
    PATCH_QUANTITIES,
    MapName,
    PyramidRaster,
    cell_areas,
    cell_slices,
    coarsen,
    empty_levels,
    empty_raster,
)
from hrviewer.engine import (
    Canvas,
    InferenceResult,
    PatchRow,
    RunRecord,
    Update,
    map_kind,
    native_scale,
)
from hrviewer.engine.canvas import MapKind
from hrviewer.engine.cost import QUANTITIES
from hrviewer.formatting import pluralize
from hrviewer.geometry import Rect
from hrviewer.io.object_table import has_objects, object_thresholds, read_objects
from hrviewer.io.run_maps import most_likely
from hrviewer.models import ModelCard, Network
from hrviewer.objects import CANDIDATE_SCORE
from hrviewer.pyramid import Pyramid
from hrviewer.runs import Run
from hrviewer.runs.patch_table import patch_row
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest
from hrviewer.units import AREA_UNITS, area_unit

__all__ = ["MOST_LIKELY", "Completion", "ResultMaps", "empty_result_maps"]

MOST_LIKELY = -1
"""In place of a class: the most likely one in each place."""

MIN_CLASSES = 3
"""Classes from which the most likely one is displayed at first."""

SHARED_SCALES: tuple[MapName, ...] = ("output", "cost")
"""Maps that show the same quantity for every strategy: saliencies and orders are a run's own."""

MAX_CELLS = 4096**2
"""Cells of the output map, over all classes; a larger map has coarser cells."""


@dataclass
class Completion:
    """Whether a run has ended; its layers warn when they are saved before that."""

    is_final: bool = False


class ResultMaps:
    """The maps of one run or of Live, with the cost and the estimate so far.

    Parameters
    ----------
    image : Rect
        The whole image.
    cell : float
        Side of the network's output cells, level-0 pixels.
    kind : {"mass", "intensity"}
        Whether predictions are counts or probabilities.
    classes : sequence of str
        Names of the output channels.
    pixel_size : tuple of float, optional
        µm per level-0 pixel.
    region : Rect, optional
        Region of the run.
    detects : bool
        Whether the model detects objects.
    units : sequence of str
        Units of the quantities of a regression.
    limits : tuple of float, optional
        Ends of the colour scale of probabilities or quantities; the values' by default.
    task : {"count", "area", "probabilities", "mean"}
        What the predictions are, as in `EstimateDict`.
    exclusive : bool
        Whether a place has one of several classes.

    Attributes
    ----------
    record : RunRecord
        Totals, patches and maps as the engine has them.
    rasters : dict of str to PyramidRaster
        The displayed maps by name.
    downsampling : int
        Output cells per displayed cell and side.
    units : tuple of str
        Units of the quantities of a regression.
    class_index : int or None
        The displayed class; None for all of them together, `MOST_LIKELY` for the most likely one.
    hidden_classes : frozenset of int
        Classes that the map of the most likely ones leaves out.
    warps : dict of Rect to WarpRequest
        Warps by the core that they predict; replaced, never changed.
    cost_quantity : str
        Quantity of `COST_QUANTITIES` that the cost map shows.
    patch_quantity : str
        Quantity of `PATCH_QUANTITIES` by which patches are coloured.
    embeddings : EmbeddingMap or None
        Embeddings; replaced when a run or a selection begins.
    token_groups : dict of Rect to (PatchRequest, int)
        Request and group of each token, by its core.
    halos : dict of str to int
        Halo of each role's patches, in model pixels; of a run folder that of the main model, where
        it was given.
    attention : AttentionMap or None
        Attention of tokens, once a token was clicked.
    objects : ObjectMap or None
        Detected objects; None if the model detects none.
    """

    def __init__(
        self,
        image: Rect,
        cell: float,
        kind: MapKind,
        classes: Sequence[str],
        pixel_size: tuple[float, float] | None = None,
        region: Rect | None = None,
        *,
        detects: bool = False,
        units: Sequence[str] = (),
        limits: tuple[float, float] | None = (0.0, 1.0),
        task: str = "",
        exclusive: bool = False,
    ) -> None:
        self.task, self.exclusive, self.units = task, exclusive and len(classes) > 1, tuple(units)
        self.hidden_classes: frozenset[int] = frozenset()
        self.objects = ObjectMap(image, classes) if detects else None
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
        if self.exclusive and k >= MIN_CLASSES:
            self.class_index = MOST_LIKELY
        self.cost_quantity = next(iter(COST_QUANTITIES))
        self.patch_quantity = OUTLINES
        self._current_request: PatchRequest | WarpRequest | FeatureRequest | None = None
        self._scores: dict[Rect, float] = {}
        self.warps: dict[Rect, WarpRequest] = {}
        self.halos: dict[str, int] = {}
        self.embeddings: EmbeddingMap | None = None
        self.token_groups: dict[Rect, tuple[PatchRequest, int]] = {}
        self.attention: AttentionMap | None = None
        per, area = 1e6, "megapixel"
        if pixel_size is not None:
            area, unit_area = AREA_UNITS[area_unit(pixel_size)]
            per = unit_area / (pixel_size[0] * pixel_size[1])
        self._per_area = per if kind == "mass" else None
        what = pluralize(self.classes[0]) if len(self.classes) == 1 else "objects"
        self._density = f"{what} per {area}"
        bounded = kind != "mass" and limits is not None
        self._scale = ColourScale(limits or (0.0, 1.0), held=bounded, fitted=bounded)
        self._colour_scales = ColourScales()
        grid = record.cost_map.values.shape[1:]
        self.rasters: dict[MapName, PyramidRaster] = {
            "output": PyramidRaster(empty_levels(canvas.values.shape[1:]), cell, "", self._scale),
            "saliency": PyramidRaster(
                [record.saliency.values[0]], record.saliency.cell, "saliency"
            ),
            "patches": PyramidRaster(
                [empty_raster(grid)], record.cost_map.cell, PATCH_QUANTITIES[self.patch_quantity]
            ),
            "cost": PyramidRaster(
                [empty_raster(grid)], record.cost_map.cell, COST_QUANTITIES[self.cost_quantity].unit
            ),
        }
        self._describe_output()

    @classmethod
    def from_run(cls, run: Run) -> ResultMaps:
        """Return the maps of a run folder."""
        array, cell = run.map("output")
        estimate = run.estimate
        kind: MapKind = "mass" if estimate and estimate["kind"] == "count" else "intensity"
        names = list(estimate["per_class"]) if estimate else []
        names = names if len(names) == array.shape[0] else [f"{i}" for i in range(array.shape[0])]
        image = Rect(0, 0, *run.image_shape)
        detects = has_objects(run)
        maps = cls(
            image,
            cell,
            kind,
            names,
            run.pixel_size,
            run.region,
            detects=detects,
            **quantities_of(estimate),
        )
        maps.load_objects(run)
        record, n = maps.record, maps.downsampling
        canvas = record.output.values
        rows, columns = cell_slices(run.region & image, record.output.cell)  # elsewhere NaN
        for row in range(rows.start, rows.stop, 512):
            end = min(row + 512, rows.stop)
            strip = np.asarray(array[:, row * n : end * n, columns.start * n : columns.stop * n])
            canvas[:, row:end, columns] = coarsen(strip, n, kind)
        if record.saliency.values[0].shape == run.saliency.shape:
            record.saliency.values[0] = run.saliency
        cost, _ = run.map("cost")
        record.cost_map.values[:] = cost[:]
        record.patches.extend(
            patch_row({str(name): value for name, value in row.items()})
            for row in run.patches.to_dict("records")
        )
        if (halo := run.header["params"].get("halo", -1)) >= 0:
            maps.halos["main"] = halo
        if (run.path / "embeddings").is_dir():
            maps.embeddings = EmbeddingMap.from_array(image, *run.map("embeddings"))
        spent = run.cost
        record.cost_map.total = replace(
            record.cost_map.total,
            flops=spent["flops"],
            bytes=spent["bytes_read"],
            pixels=spent["pixels_read"],
            **{name: spent[name] for name in ("read_s", "prepare_s", "infer_s", "post_s")},
        )
        for patch in record.patches:
            maps._mark_patch(patch)
        maps._redraw(run.region & image)
        maps._redraw_cost(image)
        maps.completion.is_final = True
        for drawn in maps.rasters.values():
            drawn.changed = True
            drawn.autoscale()
        return maps

    def update(self, update: Update) -> None:
        """Draw an update of the run; on the run's thread."""
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
            if not update.patch.core.empty:  # else it is context without a prediction
                self._add(self._current_request, update)
        elif isinstance(update, Publish):
            self.record.publish(update)
            self.rasters["saliency"].changed = True

    def clear(self, rect: Rect) -> None:
        """Remove the predictions in a rectangle; totals stay."""
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
        if len(warps) < len(self.warps):  # another mapping is redrawn
            self.warps = warps
        if rect == self.image:
            self.embeddings = self.attention = None
            self.token_groups = {}
        for feature_map in (self.embeddings, self.attention, self.objects):
            if feature_map is not None:
                feature_map.clear(rect)
        left = [p for p in record.patches if (Rect(p.y, p.x, p.h, p.w) & rect).empty]
        if len(left) < len(record.patches):
            record.patches = left

    def load_objects(self, run: Run) -> None:
        """Display the objects of a run, merged over the borders of tiles; it reads."""
        if self.objects is not None and has_objects(run):
            self.objects.apply_thresholds(object_thresholds(run))
            self.objects.replace(read_objects(run, score=CANDIDATE_SCORE)[1])

    def set_class(self, class_index: int | None) -> None:
        """Draw another class, all of them together, or the most likely one."""
        self.class_index = class_index
        self._describe_output()
        self._redraw(self.image)
        self.rasters["output"].changed = True

    def share_scales(self, scales: ColourScales) -> None:
        """Take the colour scales of the image; those it lacks become these maps' own."""
        self._colour_scales = scales
        for name in SHARED_SCALES:
            drawn = self.rasters[name]
            if drawn.categories:
                continue
            drawn.scale = scales.share(name, drawn.unit, drawn.scale)

    def settle_scales(self) -> None:
        """Hold the colour scales: what is displayed is complete."""
        for name in SHARED_SCALES:
            self.rasters[name].scale.settle()

    def hide_classes(self, hidden: Iterable[int]) -> None:
        """Leave classes out of the map of the most likely ones."""
        self.hidden_classes = frozenset(hidden)
        if self.class_index == MOST_LIKELY:
            self._redraw(self.image)
            self.rasters["output"].changed = True

    def _describe_output(self) -> None:
        """Set unit and limits of the displayed output."""
        drawn, i = self.rasters["output"], self.class_index
        drawn.categories = self.classes if i == MOST_LIKELY else ()
        if i == MOST_LIKELY:
            drawn.unit = "most likely class"
            ends = 0.0, float(len(self.classes))
            drawn.scale = ColourScale(ends, held=True, fitted=True)
            return
        if self._per_area is not None:
            drawn.unit = self._density
        elif self.task == "mean" and i is not None:
            unit = self.units[i] if i < len(self.units) else ""
            drawn.unit = f"{self.classes[i]} ({unit})" if unit else self.classes[i]
        else:
            drawn.unit = "probability"
        scale = self._scale
        drawn.scale = self._colour_scales.share(
            "output", drawn.unit, ColourScale(scale.limits, scale.held, scale.fitted)
        )

    def set_cost_quantity(self, quantity: str) -> None:
        """Draw another quantity of `COST_QUANTITIES`."""
        self.cost_quantity = quantity
        drawn = self.rasters["cost"]
        drawn.unit, drawn.changed = COST_QUANTITIES[quantity].unit, True
        drawn.scale = self._colour_scales.share("cost", drawn.unit, ColourScale())
        self._redraw_cost(self.image)

    @property
    def colours_patches(self) -> bool:
        """Whether patches are coloured, and not outlined only."""
        return self.patch_quantity != OUTLINES

    def set_patch_quantity(self, quantity: str) -> None:
        """Colour patches by another quantity of `PATCH_QUANTITIES`."""
        self.patch_quantity = quantity
        drawn = self.rasters["patches"]
        drawn.unit, drawn.changed = PATCH_QUANTITIES[quantity], True
        drawn.values[:] = np.nan
        for row in self.record.patches:
            self._mark_patch(row)

    def patch_at(self, y: float, x: float) -> PatchRow | None:
        """Return the finest patch whose core has a point; of these the smallest, then the last."""
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
        if not core.empty:
            self.halos[result.role] = result.patch.halo
        self.record.add(request, [result])
        if request.target == "embeddings" and result.status != "failed":
            if self.embeddings is None:
                width, rows, _ = result.map.shape
                self.embeddings = EmbeddingMap(self.image, width, result.box[2] / rows)
            self.embeddings.update(result)
        if self.objects is not None and request.target == "output":
            self.objects.update(result)
        self._mark_patch(self.record.patches[-1])
        self._redraw(core)
        if request.target == "saliency":
            self.rasters["saliency"].changed = True

    def _mark_patch(self, row: PatchRow) -> None:
        core = Rect(row.y, row.x, row.h, row.w)
        drawn = self.rasters["patches"]
        value = row.score if self.patch_quantity == "score" else row.order + 1
        drawn.values[cell_slices(core, drawn.cell)] = value
        drawn.changed = True

    def _redraw(self, rect: Rect) -> None:
        """Update the displayed output and cost inside `rect`."""
        canvas, drawn = self.record.output, self.rasters["output"]
        where = cell_slices(rect, canvas.cell)
        values = np.asarray(canvas.values[:, where[0], where[1]])
        if self.class_index == MOST_LIKELY:
            best = most_likely(values)
            hidden = np.isin(best, [-1, *self.hidden_classes])
            chosen = np.where(hidden, np.nan, best + 0.5)
        else:
            chosen = values.sum(axis=0) if self.class_index is None else values[self.class_index]
        if self._per_area is not None:
            areas = cell_areas(self.image, canvas.cell, chosen.shape, [s.start for s in where])
            chosen = chosen / areas * self._per_area
        drawn.values[where] = chosen
        drawn.update_coarser(rect)
        drawn.changed = True
        self._redraw_cost(rect)

    def _redraw_cost(self, rect: Rect) -> None:
        costs, drawn, quantity = (
            self.record.cost_map,
            self.rasters["cost"],
            COST_QUANTITIES[self.cost_quantity],
        )
        rows, columns = cell_slices(rect, costs.cell)
        # The same cells have a value for every quantity, also where a patch cost none of it.
        known = costs.values[0, rows, columns] > 0
        amount = sum(costs.values[QUANTITIES.index(part), rows, columns] for part in quantity.parts)
        areas = cell_areas(self.image, costs.cell, known.shape, (rows.start, columns.start))
        drawn.values[rows, columns] = np.where(known, amount * quantity.per_pixel / areas, np.nan)
        drawn.changed = True


def empty_result_maps(
    pyramid: Pyramid, main: Network, card: ModelCard, region: Rect | None = None
) -> ResultMaps:
    """Return empty maps for the predictions that a card describes.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    main : Network
        The network whose output cells the maps have.
    card : ModelCard
        Card of the network whose predictions are the estimate.
    region : Rect, optional
        The region of the run.
    """
    native, _ = native_scale(main.card, pyramid)
    names = card.output.classes or [f"{i}" for i in range(card.prediction_channels)]
    cell, kind = main.stride * native, map_kind(card)
    regression = card.task == "regression"
    tasks = {"regression": "mean", "segmentation": "area"}
    maps = ResultMaps(
        pyramid.rect,
        cell,
        kind,
        names,
        pyramid.pixel_size,
        region,
        detects=card.detects,
        units=[card.unit(i) for i in range(len(names))] if regression else (),
        limits=card.output.range if regression else (0.0, 1.0),
        task="count" if card.counts else tasks.get(card.task, "probabilities"),
        exclusive=card.task in ("classification", "segmentation"),
    )
    if maps.objects is not None:
        maps.objects.apply_thresholds(card.merge_settings)
    return maps
