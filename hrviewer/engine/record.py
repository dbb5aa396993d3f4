"""Record of a run in progress: maps, cost, patches and estimates.

Requests are added to a record in the order of the plan only, so that a replayed run paints the same
maps bit for bit, in whichever order its results arrived.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cost import CostMap
from hrviewer.engine.coverage import covered_area, union_area
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.geometry import Rect
from hrviewer.objects import DetectedObjects, drop_refined
from hrviewer.regions import Region
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = ["MAP_SIDE", "PatchRow", "PublishedEstimate", "RunRecord", "map_cell_side"]

MAP_SIDE = 1024
"""Most cells along the longer side of the saliency and cost maps."""


def map_cell_side(image: Rect) -> int:
    """Return the cell side of saliency and cost maps: a power of two of at least 16 pixels."""
    octave = math.ceil(math.log2(max(image.h, image.w, 1) / MAP_SIDE))
    return 1 << max(4, octave)


@dataclass(frozen=True, slots=True)
class PatchRow:
    """A row of the table of patches; lengths in level-0 pixels, times in seconds.

    `value` is the sum of the predictions, `values` has each class's where they are painted.
    """

    id: int
    y: int
    x: int
    h: int
    w: int
    scale: float
    role: str
    order: int
    score: float
    value: float
    flops: float
    read_s: float
    prepare_s: float
    infer_s: float
    post_s: float
    bytes: float
    pixels: float
    status: str
    error: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedEstimate:
    """A published estimate: its sum over classes, and the FLOPs spent until then."""

    flops: float
    value: float
    interval: tuple[float, float] | None


class RunRecord:
    """Maps, cost, patches and estimates of a run so far.

    Parameters
    ----------
    image : Rect
        The whole image.
    output : Canvas
        Map that predictions of ``main`` are painted on.
    region : Rect, optional
        Nothing is painted outside; the image by default.
    create_embeddings : callable, optional
        Makes the map of a role's embeddings, from the role, their dimension and the side of their
        cells in level-0 pixels. Without it embeddings are not stored.
    keep_objects : bool
        Whether the candidates of detectors are kept, for `candidates`.
    mask : Region, optional
        The part of the region that counts; all by default.

    Attributes
    ----------
    cost_map : CostMap
        Totals and the cost map.
    saliency : Canvas
        One plane: the saliency that the strategy selects patches by.
    patches : list of PatchRow
        All patches, in the order of the plan.
    estimate : ndarray or None
        The last one published, per class.
    interval : tuple of float or None
        Its 95 % interval.
    class_intervals : ndarray, shape (k, 2), or None
        The 95 % interval of each class, of shares and means.
    published : list of PublishedEstimate
        All published estimates, in order.
    embeddings : Canvas or None
        Map of the embeddings, if they are stored.
    """

    def __init__(
        self,
        image: Rect,
        output: Canvas,
        region: Rect | None = None,
        create_embeddings: Callable[[str, int, float], Canvas] | None = None,
        *,
        keep_objects: bool = False,
        mask: Region | None = None,
    ) -> None:
        self.image, self.output, self.region = image, output, region or image
        self.mask, self.skipped = mask, 0
        self.embeddings: Canvas | None = None
        self._create_embeddings = create_embeddings
        self._keep_objects = keep_objects
        self._objects: list[DetectedObjects] = []
        self._object_patches: list[int] = []
        self._covered: set[Rect] = set()
        cell = map_cell_side(image)
        self.cost_map = CostMap(image, cell)
        self.saliency = Canvas.in_memory(image, cell, 1, "intensity")
        self.patches: list[PatchRow] = []
        self.estimate: NDArray[np.float64] | None = None
        self.interval: tuple[float, float] | None = None
        self.class_intervals: NDArray[np.float64] | None = None
        self.published: list[PublishedEstimate] = []

    def add(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
        *,
        replayed: Container[int] = (),
    ) -> None:
        """Add a request's results to patches, cost map and maps.

        Parameters
        ----------
        request : PatchRequest, WarpRequest or FeatureRequest
            The request.
        results : sequence of InferenceResult
            Its results, in the order of the request.
        replayed : container of int
            Indices of those that an earlier session computed.
        """
        scores = request.scores if isinstance(request, PatchRequest) else None
        # A network that predicts variances gives them after its predictions.
        predictions = slice(self.output.values.shape[0] if request.target == "output" else None)
        for i, result in enumerate(results):
            core, cost = result.patch.core, result.cost
            if core.empty:  # context: its cost is attributed to the tokens that it is context of
                continue
            if result.status == "skipped":
                self.skipped += 1
                continue
            spent = result.status != "cached" and i not in replayed
            if result.status != "failed" and not isinstance(request, FeatureRequest):
                self._add_covered(result)
            self.cost_map.add(cost, core, spent=spent, weights=result.cost_weights)
            number = len(self.patches)
            if self._keep_objects and request.target == "output" and result.objects is not None:
                self._objects.append(result.objects.with_patch(number))
                self._object_patches.append(number)
            self.patches.append(
                PatchRow(
                    number,
                    *core.astuple(),
                    result.patch.scale,
                    result.role,
                    number,
                    scores[i] if scores else math.nan,
                    float(result.value[predictions].sum()),
                    cost.flops,
                    cost.read_s,
                    cost.prepare_s,
                    cost.infer_s,
                    cost.post_s,
                    cost.bytes,
                    cost.pixels,
                    result.status,
                    result.error,
                    tuple(result.value[predictions].tolist()) if predictions.stop else (),
                )
            )
        unpainted = "failed", "skipped"
        painted = [r for r in results if r.status not in unpainted and not r.patch.core.empty]
        if not painted:
            return
        if (
            request.target == "embeddings"
            and self._create_embeddings is not None
            and self.embeddings is None
        ):
            first = painted[0]
            cell = first.box[2] / first.map.shape[1]
            self.embeddings = self._create_embeddings(first.role, len(first.map), cell)
        canvases = {"output": self.output, "saliency": self.saliency, "embeddings": self.embeddings}
        canvas = canvases.get(request.target or "")
        if canvas is None:
            return

        def planes(result: InferenceResult) -> NDArray[np.floating[Any]]:
            saliency = canvas is self.saliency
            return result.map.mean(axis=0, keepdims=True) if saliency else result.map

        # Coarse first, so that finer results of the same request replace them.
        painted.sort(key=lambda result: -result.patch.scale)
        canvas.paint_all(
            (planes(r)[predictions], r.box, r.patch.core, r.patch.scale) for r in painted
        )

    def publish(self, publication: Publish) -> None:
        """Record a saliency map or an estimate that the strategy published."""
        if publication.kind == "estimate":
            self.estimate, self.interval = np.asarray(publication.map, float), publication.interval
            self.class_intervals = publication.class_intervals
            total, flops = float(self.estimate.sum()), self.cost_map.total.flops
            self.published.append(PublishedEstimate(flops, total, publication.interval))
            return
        box: Any = tuple(map(float, publication.rect.astuple()))
        core = publication.rect & self.region
        self.saliency.paint(np.asarray(publication.map, np.float32)[None], box, core, 0.0)

    @property
    def candidates(self) -> DetectedObjects:
        """Candidates for objects so far, in the order of the plan.

        Where a finer patch ran inference again, those of the coarser one are left out.
        """
        objects = DetectedObjects.concatenate(self._objects)
        rows = [self.patches[number] for number in self._object_patches]
        if len({row.scale for row in rows}) < 2:
            return objects
        cores = np.zeros((len(self.patches), 4))
        scales = np.full(len(self.patches), np.inf)
        cores[self._object_patches] = [(row.y, row.x, row.h, row.w) for row in rows]
        scales[self._object_patches] = [row.scale for row in rows]
        return drop_refined(objects, cores, scales)

    def _add_covered(self, result: InferenceResult) -> None:
        """Count the core of a result as covered; built-in models only direct the others."""
        core = result.patch.core & self.region
        if not result.role.startswith("@") and not core.empty:
            self._covered.add(core)

    @property
    def coverage(self) -> float:
        """Fraction of the region in which a model of the bundle was run."""
        if self.mask is None:
            return union_area(self._covered) / self.region.area
        return covered_area(self.mask, self._covered) / self.mask.area

    def counts(self) -> dict[str, int]:
        """Return the numbers of patches by status."""
        states = Counter(row.status for row in self.patches)
        return {
            "planned": len(self.patches),
            "done": states["done"],
            "cached": states["cached"],
            "failed": states["failed"],
            "skipped": self.skipped,
        }
