"""The requests and responses that a strategy and the engine exchange.

A strategy is a pure policy: a generator that yields *requests* and is sent *responses*. It never
reads a pixel or runs inference itself, so every pixel and every FLOP passes through the engine, is
metered in the same way for all strategies, and a policy can be tested without files or devices.

A policy must be deterministic in its context, parameters and responses: no clock, no order of
arrival. Resuming a run replays the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.models import ModelCard
from hrviewer.models.accuracy import PredictionError, ScaleCurve
from hrviewer.objects import DetectedObjects
from hrviewer.regions import Region, rect_areas

__all__ = [
    "Estimate",
    "FeatureRequest",
    "ModelInfo",
    "PatchRequest",
    "PatchResult",
    "Plan",
    "PlanContext",
    "Publish",
    "Rates",
    "Request",
    "Response",
    "Target",
    "WarpRequest",
]

Target = Literal["output", "saliency", "embeddings"]
"""The map that the predictions are painted into; embeddings are stored for later requests."""


class PatchResult(Protocol):
    """The prediction for one patch; arrays are lazy, so that a policy may hold many of them."""

    @property
    def patch(self) -> Patch:
        """The patch: its core, scale and halo."""
        ...

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Extent of `map`, ``(y, x, h, w)`` in level-0 pixels; at least the core."""
        ...

    @property
    def value(self) -> NDArray[np.float64]:
        """The prediction for the core, ``(k,)``: counts, areas, probabilities or an embedding.

        NaN if inference failed. For a head with attention pooling, the partial sums that
        `aggregate` combines into one prediction.
        """
        ...

    @property
    def map(self) -> NDArray[np.floating]:
        """The model's output over the core, ``(k, rows, columns)``.

        NaN if inference failed, and in cells in which the image has no data: these add nothing to
        the value.
        In float32; embeddings in float16, as they are stored.
        """
        ...

    @property
    def objects(self) -> DetectedObjects | None:
        """Of a detector, all candidates for objects in the patch and its halo; else None."""
        ...


@dataclass(frozen=True, slots=True)
class PatchRequest:
    """Run a model on a batch of patches, at most a few hundred.

    Parameters
    ----------
    role : str
        A role of the model bundle, or a built-in one such as ``"@entropy"``. ``"scanner/2"`` is
        the scanner at two shifts along each axis, for a map twice as dense.
    patches : tuple of Patch
        The patches to process.
    target : {"output", "saliency", "embeddings"}, optional
        The map to paint; finer predictions replace coarser ones on their core. The first two
        maps are clipped to the region.
    order : {"any", "given"}
        ``"given"`` returns results only as prefixes; ``"any"`` lets the engine process the
        patches nearest to the view's centre first.
    group : tuple of int, optional
        One number per patch; patches with the same number are tokens of one joint input, each
        read at the model's tile size. A patch with an empty core is context: it has no
        prediction of its own.
    merge : float
        Fraction of the tokens of a joint input that each layer of the model merges.
    scores : tuple of float, optional
        One score per patch, by which it was selected. Only recorded.
    """

    role: str
    patches: tuple[Patch, ...]
    target: Target | None = None
    order: Literal["any", "given"] = "any"
    group: tuple[int, ...] | None = None
    merge: float = 0.0
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WarpRequest:
    """Sample a rectangle through a non-uniform grid, run a model on it, and un-warp the output.

    Parameters
    ----------
    role : str
        Role of the model.
    rect : Rect
        The rectangle to sample, in level-0 pixels; cut at the image's border.
    grid : ndarray of float, shape (g, g, 2)
        Sampling positions of the canvas's nodes in `rect`: ``(y, x)`` in 0..1, the corner nodes
        on the canvas's corners; monotone along both axes.
    shape : tuple of int
        Size of the canvas, ``(h, w)`` in model pixels.
    target : {"output", "saliency"}, optional
        The map to paint.
    core : Rect, optional
        The part of `rect` that the prediction covers; the rest is context. All by default.
    following : WarpRequest, optional
        The warp that the policy requests next unless the run ends, as far as it knows: the engine
        may read it while this one is inferred. Not part of the request's result.
    """

    role: str
    rect: Rect
    grid: NDArray[np.float64]
    shape: tuple[int, int]
    target: Target | None = None
    core: Rect | None = None
    following: WarpRequest | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRequest:
    """Run a model on the output maps of earlier requests: embeddings or scores.

    Parameters
    ----------
    role : str
        Role of the model.
    results : tuple of PatchResult
        Results of one model at one scale; their maps are stitched into one input.
    region : Rect
        The rectangle that the prediction covers; what `results` cover beyond it is context.
    target : {"output", "saliency"}, optional
        The map to paint.
    attribution : bool
        Whether to compute the attribution of each input cell, too: the output's last plane. It
        costs twice as much as the prediction.
    """

    role: str
    results: tuple[PatchResult, ...]
    region: Rect
    target: Target | None = None
    attribution: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    """Publish an intermediate map or estimate. Free of cost.

    Parameters
    ----------
    kind : {"saliency", "estimate"}
        A saliency map over `rect`, or a partial estimate.
    map : ndarray
        The map, ``(rows, columns)``, NaN where unknown; or the estimate, ``(k,)``.
    rect : Rect
        Extent of the map.
    interval : tuple of float, optional
        95 % interval of the estimate's sum over classes.
    class_intervals : ndarray, shape (k, 2), optional
        95 % interval of each class.
    """

    kind: Literal["saliency", "estimate"]
    map: NDArray[np.floating]
    rect: Rect
    interval: tuple[float, float] | None = None
    class_intervals: NDArray[np.float64] | None = None


Request = PatchRequest | WarpRequest | FeatureRequest | Publish


@dataclass(frozen=True, slots=True)
class Response:
    """The engine's response to a request.

    Parameters
    ----------
    results : tuple of PatchResult
        Results in the order of the request; only a prefix of them when `stop` is set.
    spent, remaining : float
        FLOPs spent so far, and FLOPs left in the budget (infinite without one). Of a limit of
        seconds, those that the time left is expected to pay for.
    stop : bool
        The request exceeded the budget: return an `Estimate` now.
    """

    results: tuple[PatchResult, ...] = ()
    spent: float = 0.0
    remaining: float = float("inf")
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The final estimate of a policy.

    Parameters
    ----------
    values : ndarray of float, shape (k,), optional
        Per class: counts, areas in level-0 pixels, or probabilities. None for embeddings.
    interval : tuple of float, optional
        95 % interval of the sum over classes that exhaustive inference would give, of counts and
        of the area of a single class.
    note : str
        One line for the user, or empty.
    coverage : float, optional
        Fraction of the region that the estimate rests on; by default that in which a model of the
        bundle was run.
    common_error : float
        The part of the interval's half-width that all parts of a region have in common, in a cell
        of a live view: over the cells it adds up, while their other errors are independent.
    exhaustive : bool
        Whether the answering model ran on the whole region at its native scale, with enough
        context: no interval is needed.
    class_intervals : ndarray, shape (k, 2), optional
        95 % interval of each class, of shares and means.
    certain : bool
        Whether these are limits that hold for every possible rest: nothing was drawn at random.
    area : float, optional
        Level-0 pixels that shares and means are of, where that is not the whole region: its
        foreground.
    """

    values: NDArray[np.float64] | None
    interval: tuple[float, float] | None = None
    note: str = ""
    coverage: float | None = None
    common_error: float = 0.0
    exhaustive: bool = False
    class_intervals: NDArray[np.float64] | None = None
    certain: bool = False
    area: float | None = None


Plan = Generator[Request, Response, Estimate]


def _unmeasured() -> int:
    raise ModelError("the receptive field of this model cannot be measured: choose mode=tiles")


def _unknown_memory() -> float:
    return float("inf")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Properties of a model that a policy may use free of cost.

    Parameters
    ----------
    card : ModelCard
        Description of input and output.
    stride, halo : int
        Model pixels per output cell, and model pixels of context that a cell needs.
    flops : callable
        Nominal FLOPs of one input of ``(h, w)`` model pixels.
    period : int
        Inputs must begin at multiples of this many model pixels for tiles to be stitched exactly.
    bytes_per_pixel : callable
        Returns the memory of inference on one input, in bytes per model pixel, about.
    measure_halo : callable
        Measures, once, the context in model pixels with which stitched tiles equal inference on
        the whole image; raises `ModelError` if no context is enough.
    token_flops : callable, optional
        Nominal FLOPs of a joint input of `n` tokens, of which each layer merges a fraction.
    has_attribution : bool
        Whether a `FeatureRequest` may ask for the attribution.
    """

    card: ModelCard
    stride: int
    halo: int
    flops: Callable[[int, int], float]
    period: int = 1
    bytes_per_pixel: Callable[[], float] = _unknown_memory
    measure_halo: Callable[[], int] = _unmeasured
    token_flops: Callable[[int, float], float] | None = None
    has_attribution: bool = False

    @property
    def context(self) -> int:
        """Model pixels of context with which a prediction is nearly exact."""
        enough = self.card.output.context
        return self.halo if enough is None else min(enough, self.halo)

    def flops_per_pixel(self) -> float:
        """Return the FLOPs per model pixel, at the card's tile size."""
        tile = self.card.input.tile
        return self.flops(tile, tile) / tile**2


@dataclass(frozen=True, slots=True)
class Rates:
    """Wall time of inference on an image, as measured on a few tiles.

    Parameters
    ----------
    per_flop : float
        Seconds per FLOP of ``main``.
    per_pixel : float
        Seconds per pixel that is read and decoded.
    flops_per_second : float
        FLOPs per second at native scale, including reading.
    """

    per_flop: float
    per_pixel: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Properties of the image, models and budget that a policy may use free of cost.

    Parameters
    ----------
    shape : tuple of int
        Height and width, level-0 pixels.
    downsamples : tuple of float
        Scales of the stored levels.
    pixel_size : tuple of float, optional
        µm per level-0 pixel, ``(y, x)``.
    region : Rect
        The part of the image that the estimate covers.
    native_scale : float
        The scale at which ``main`` gets pixels of the size that it was trained on.
    models : mapping of str to ModelInfo
        The bundle's models and the built-in ones, by role.
    budget : float
        FLOPs for all models together; infinite without a limit. Of a limit of seconds, the FLOPs
        that it is expected to pay for.
    seed : int
        Random seed.
    priors : mapping of str to ndarray
        Prior maps by name: drawn by the user, or taken from earlier runs.
    pixel_bytes : int
        Bytes of one level-0 pixel, all channels together, uncompressed.
    seconds : float
        Limit of wall time, infinite without one; the clock may end the run before the FLOPs.
    rates : Rates, optional
        Of a limit of seconds, the measured rates.
    whole : PlanContext, optional
        Context of the region that this one is a part of, for a cell of a live view.
    scale_curve : ScaleCurve, optional
        Measured counts of ``main`` by scale, on images of this kind.
    synthetic : str, optional
        Name of the synthetic image, as in ``sample:NAME``, on which errors of models depend.
    mask : Region, optional
        The part of the region that counts: what was drawn, or tissue; all by default. Outside,
        inference costs nothing and predicts nothing.
    """

    shape: tuple[int, int]
    downsamples: tuple[float, ...]
    pixel_size: tuple[float, float] | None
    region: Rect
    native_scale: float
    models: Mapping[str, ModelInfo]
    budget: float = float("inf")
    seed: int = 0
    priors: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    pixel_bytes: int = 3
    seconds: float = float("inf")
    rates: Rates | None = None
    whole: PlanContext | None = None
    scale_curve: ScaleCurve | None = None
    synthetic: str | None = None
    mask: Region | None = None

    def prediction_error(self, role: str) -> PredictionError | None:
        """Return a role's error against ``main`` if it was measured on images of this kind."""
        error = self.models[role].card.accuracy.prediction_error
        return error if error and error.synthetic == self.synthetic else None

    def gain(self, scale: float) -> float:
        """Return the factor by which counts of ``main`` at a scale are too high; 1 if unknown."""
        if self.scale_curve is None or self.main.card.task != "density":
            return 1.0
        point = self.scale_curve.at(scale / self.native_scale)
        return point.gain if point else 1.0

    @property
    def rect(self) -> Rect:
        """The whole image."""
        return Rect(0, 0, *self.shape)

    @property
    def tiled_region(self) -> Rect:
        """The rectangle that is cut into tiles: of a part of a region, the region's own tiles."""
        return self.region if self.whole is None else self.whole.region

    @property
    def once_per_pixel(self) -> float:
        """FLOPs of ``main`` once on every pixel that counts, at native scale, without halos.

        The unit of budgets in percent, and of costs in tables.
        """
        return self.main.flops_per_pixel() * self.area / self.native_scale**2

    @property
    def area(self) -> float:
        """Area that counts, in level-0 pixels: that of the mask, or of the region."""
        return float(self.region.area) if self.mask is None else self.mask.area

    def counting_areas(self, rects: Sequence[Rect]) -> NDArray[np.float64]:
        """Return the area that counts of each rectangle, ``(n,)``, in level-0 pixels."""
        if self.mask is not None:
            return rect_areas(self.mask, rects)
        return np.array([float((rect & self.region).area) for rect in rects])

    @property
    def main(self) -> ModelInfo:
        """The model whose prediction is estimated."""
        return self.models["main"]

    def expected_seconds(self, flops: float, scale: float) -> float:
        """Return the wall time of inference on the region at a scale; 0 if it is not limited."""
        if self.rates is None:
            return 0.0
        downsample = max((d for d in self.downsamples if d <= scale * (1 + 1e-3)), default=1.0)
        pixels = self.region.area / downsample**2
        return flops * self.rates.per_flop + pixels * self.rates.per_pixel

    def scale_of(self, role: str) -> float:
        """Return the scale at which a role's model gets the pixel size that it was trained on."""
        return snap_scale(self.native_scale * self.models[role].card.input.downsample)
