"""What a run has seen and spent so far: the maps, the ledger, the patches, the estimate.

A record is only ever added to by requests, in the order of the plan, so that a replayed run
paints the same maps bit for bit, whatever order results came in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cost import CostMap
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.geometry import Rect
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = ["MAP_SIDE", "PatchRow", "PublishedEstimate", "RunRecord", "map_cell_side"]

MAP_SIDE = 1024
"""Cells along the longer side of the saliency and cost maps, at most."""


def map_cell_side(image: Rect) -> int:
    """Return the side of the overview maps' cells: a power of two of at least 16 pixels."""
    octave = math.ceil(math.log2(max(image.h, image.w, 1) / MAP_SIDE))
    return 1 << max(4, octave)


@dataclass(frozen=True, slots=True)
class PatchRow:
    """A row of the table of patches."""

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


@dataclass(frozen=True, slots=True)
class PublishedEstimate:
    """An estimate that a strategy published: its sum over classes, after how many FLOPs."""

    flops: float
    value: float
    interval: tuple[float, float] | None


class RunRecord:
    """What a run has seen and spent.

    Parameters
    ----------
    image : Rect
        The whole image.
    output : Canvas
        Where ``main``'s answers are painted.
    region : Rect, optional
        Nothing is painted outside; the image by default.
    create_embeddings : callable, optional
        Makes the map that a role's codes are kept in, of its name, their width and the side of
        their cells in level-0 pixels. Without it they are not kept.

    Attributes
    ----------
    cost_map : Ledger
        Totals and the cost map.
    saliency : Canvas
        One plane; what the strategy found worth a look.
    patches : list of PatchRow
        Every look, in the order of the plan.
    estimate : ndarray or None
        The last one shown.
    interval : tuple of float or None
        Its 95 % interval.
    published : list of Published
        All of them, in order.
    embeddings : Canvas or None
        What was encoded, where it is kept.
    """

    def __init__(
        self,
        image: Rect,
        output: Canvas,
        region: Rect | None = None,
        create_embeddings: Callable[[str, int, float], Canvas] | None = None,
    ) -> None:
        self.image, self.output, self.region = image, output, region or image
        self.embeddings: Canvas | None = None
        self._create_embeddings = create_embeddings
        cell = map_cell_side(image)
        self.cost_map = CostMap(image, cell)
        self.saliency = Canvas.in_memory(image, cell, 1, "intensity")
        self.patches: list[PatchRow] = []
        self.estimate: NDArray[np.float64] | None = None
        self.interval: tuple[float, float] | None = None
        self.published: list[PublishedEstimate] = []

    def add(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
        *,
        replayed: bool = False,
    ) -> None:
        """Book, list and paint one request's looks.

        Parameters
        ----------
        request : Look, Warp or Think
            What was asked.
        results : sequence of Seen
            What came, in the order asked.
        replayed : bool
            Whether an earlier session paid for them.
        """
        scores = request.scores if isinstance(request, PatchRequest) else None
        # A network that says how sure it is gives its variances after its answers.
        answers = slice(self.output.values.shape[0] if request.target == "output" else None)
        for i, look in enumerate(results):
            if look.patch.core.empty:  # context: what it was context of bears its cost
                continue
            paid = look.status != "cached" and not replayed
            self.cost_map.add(look.cost, look.patch.core, spent=paid, weights=look.cost_weights)
            core = look.patch.core
            number = len(self.patches)
            cost = look.cost
            self.patches.append(
                PatchRow(
                    number,
                    *core.astuple(),
                    look.patch.scale,
                    look.role,
                    number,
                    scores[i] if scores else math.nan,
                    float(look.value[answers].sum()),
                    cost.flops,
                    cost.read_s,
                    cost.prepare_s,
                    cost.infer_s,
                    cost.post_s,
                    cost.bytes,
                    cost.pixels,
                    look.status,
                    look.error,
                )
            )
        there = [look for look in results if look.status != "failed" and not look.patch.core.empty]
        if not there:
            return
        if (
            request.target == "embeddings"
            and self._create_embeddings is not None
            and self.embeddings is None
        ):
            first = there[0]
            cell = first.box[2] / first.map.shape[1]
            self.embeddings = self._create_embeddings(first.role, len(first.map), cell)
        canvases = {"output": self.output, "saliency": self.saliency, "embeddings": self.embeddings}
        canvas = canvases.get(request.target or "")
        if canvas is None:
            return

        def plane(look: InferenceResult) -> NDArray[np.floating[Any]]:
            return look.map.mean(axis=0, keepdims=True) if canvas is self.saliency else look.map

        # Coarse first, so that one request's finer looks lie on top.
        there.sort(key=lambda look: -look.patch.scale)
        canvas.paint_all(
            (plane(look)[answers], look.box, look.patch.core, look.patch.scale) for look in there
        )

    def publish(self, publication: Publish) -> None:
        """Take what the strategy published."""
        if publication.kind == "estimate":
            self.estimate, self.interval = np.asarray(publication.map, float), publication.interval
            total, flops = float(self.estimate.sum()), self.cost_map.total.flops
            self.published.append(PublishedEstimate(flops, total, publication.interval))
            return
        box: Any = tuple(map(float, publication.rect.astuple()))
        core = publication.rect & self.region
        self.saliency.paint(np.asarray(publication.map, np.float32)[None], box, core, 0.0)

    def counts(self) -> dict[str, int]:
        """Return how many looks were done, served from the cache, failed."""
        states = Counter(row.status for row in self.patches)
        return {
            "planned": len(self.patches),
            "done": states["done"],
            "cached": states["cached"],
            "failed": states["failed"],
        }
