"""The words a strategy and the engine exchange.

A strategy is a pure policy: a generator that yields *requests* and is sent *results*. It never
reads a pixel by itself, so every pixel and every FLOP passes through the engine, is metered the
same way for every strategy, and a policy can be tested without files, devices or a screen.

A policy must be deterministic in its scene, parameters and results: no clock, no arrival order.
Resuming a run replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.models import ModelCard

__all__ = [
    "Estimate",
    "FeatureRequest",
    "ModelInfo",
    "PatchRequest",
    "PatchResult",
    "Plan",
    "PlanContext",
    "Publish",
    "Request",
    "Response",
    "Target",
    "WarpRequest",
]

Target = Literal["output", "saliency", "embeddings"]
"""The map that a request's results are painted into; codes are kept, to think about later."""


class PatchResult(Protocol):
    """What one look gave; lazy, so that a policy may hold many of them."""

    @property
    def patch(self) -> Patch:
        """Where was looked, and at which scale."""
        ...

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What `map` covers, ``(y, x, h, w)`` in level-0 pixels; at least the core."""
        ...

    @property
    def value(self) -> NDArray[np.float64]:
        """The core's answer, ``(k,)``: counts, areas, probabilities or a code. NaN if it failed.

        Of a head that attends it is what `aggregate` joins to one answer.
        """
        ...

    @property
    def map(self) -> NDArray[np.floating]:
        """The network's output over the core, ``(k, rows, columns)``. NaN if it failed.

        In float32; an embedding's codes in float16, as they are kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class PatchRequest:
    """Run a role's network on patches: one round, at most a few hundred.

    Parameters
    ----------
    role : str
        A role of the pack, or a built-in one such as ``"@entropy"``. ``"scanner/2"`` is the
        scanner at two shifts along each axis, for a map twice as dense.
    patches : tuple of Patch
        Where to look.
    target : {"output", "saliency", "embeddings"}, optional
        The map to paint; finer looks replace coarser ones on their core. The first two are
        answers, clipped to the region.
    order : {"any", "given"}
        ``"given"`` releases results only as prefixes; ``"any"`` lets the engine take the patches
        nearest to the view's centre first.
    group : tuple of int, optional
        One number per patch; patches of one number are tokens of one joint input, each read at
        the network's tile. One whose core is empty is context: it is answered for by nobody.
    merge : float
        Of a joint input, which part of its tokens every layer of the network merges.
    scores : tuple of float, optional
        One number per patch: why it was chosen. Only recorded.
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
    """Sample a rectangle through a non-uniform grid, run, and un-warp.

    Parameters
    ----------
    role : str
        Which network.
    rect : Rect
        What is sampled, in level-0 pixels; cut at the image's border.
    grid : ndarray of float, shape (g, g, 2)
        Where in `rect` the canvas's nodes take their sample: ``(y, x)`` in 0..1, the corner nodes
        on the canvas's corners; monotone along both axes.
    shape : tuple of int
        The canvas, ``(h, w)`` in network pixels.
    target : {"output", "saliency"}, optional
        The map to paint.
    core : Rect, optional
        The part of `rect` that it answers for; the rest is context. All of it by default.
    """

    role: str
    rect: Rect
    grid: NDArray[np.float64]
    shape: tuple[int, int]
    target: Target | None = None
    core: Rect | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRequest:
    """Run a network on what was already seen: codes or scores, in rows and columns.

    Parameters
    ----------
    role : str
        Which network.
    results : tuple of Handle
        Their maps, of one network and scale, become one input, each where it lies.
    region : Rect
        The rectangle that the answer speaks of; what the handles hold beyond is context.
    target : {"output", "saliency"}, optional
        The map to paint.
    attribution : bool
        Whether to ask, too, how much each place of the input mattered: the answer's last plane.
        Twice what the answer costs.
    """

    role: str
    results: tuple[PatchResult, ...]
    region: Rect
    target: Target | None = None
    attribution: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    """Publish something to the screen. Free.

    Parameters
    ----------
    kind : {"saliency", "estimate"}
        A saliency map over `rect`, or a partial estimate.
    map : ndarray
        The map, ``(rows, columns)``, NaN where nothing is known; or the estimate, ``(k,)``.
    rect : Rect
        What the map covers.
    interval : tuple of float, optional
        The estimate's 95 % interval, of its sum over classes.
    """

    kind: Literal["saliency", "estimate"]
    map: NDArray[np.floating]
    rect: Rect
    interval: tuple[float, float] | None = None


Request = PatchRequest | WarpRequest | FeatureRequest | Publish


@dataclass(frozen=True, slots=True)
class Response:
    """The engine's answer to a request.

    Parameters
    ----------
    results : tuple of Handle
        In the order asked; only a prefix of it when `stop` is set.
    spent, remaining : float
        FLOPs so far, and what the budget still holds (infinite without one).
    stop : bool
        The request passed the budget: return an `Answer` now.
    """

    results: tuple[PatchResult, ...] = ()
    spent: float = 0.0
    remaining: float = float("inf")
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a policy concludes.

    Parameters
    ----------
    values : ndarray of float, shape (k,), optional
        Per class: counts, areas in level-0 pixels, or probabilities. None for embeddings.
    interval : tuple of float, optional
        95 % interval of the estimate's sum over classes.
    note : str
        One line for the person, or empty.
    """

    values: NDArray[np.float64] | None
    interval: tuple[float, float] | None = None
    note: str = ""


Plan = Generator[Request, Response, Estimate]


def _unmeasured() -> int:
    raise HrviewerError("nobody can measure how far this network sees: choose mode=tiles")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a policy may know of a network for nothing.

    Parameters
    ----------
    card : Card
        What goes in and comes out.
    stride, halo : int
        Network pixels per output cell, and of context that a cell needs.
    flops : callable
        Nominal FLOPs of one input of ``(h, w)`` network pixels.
    period : int
        Network pixels at whose multiples an input may begin so that tiles meet.
    measure_halo : callable
        Measures, once, the context in network pixels with which joined tiles equal one look at
        everything; `UserError` where there is none.
    token_flops : callable, optional
        The same of a joint input of `n` tokens, of which every layer merges a part.
    has_attribution : bool
        Whether it can be asked what mattered, in a `Think`.
    """

    card: ModelCard
    stride: int
    halo: int
    flops: Callable[[int, int], float]
    period: int = 1
    measure_halo: Callable[[], int] = _unmeasured
    token_flops: Callable[[int, float], float] | None = None
    has_attribution: bool = False

    @property
    def context(self) -> int:
        """Network pixels around a tile with which an answer is nearly right."""
        enough = self.card.output.context
        return self.halo if enough is None else min(enough, self.halo)

    def flops_per_pixel(self) -> float:
        """FLOPs per network pixel, at the card's tile."""
        tile = self.card.input.tile
        return self.flops(tile, tile) / tile**2


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a policy may know of the image for nothing.

    Parameters
    ----------
    shape : tuple of int
        Height and width, level-0 pixels.
    downsamples : tuple of float
        The stored levels' scales.
    pixel_size : tuple of float, optional
        µm per level-0 pixel, ``(y, x)``.
    region : Rect
        The part that the answer speaks of.
    native_scale : float
        The scale at which ``main`` sees pixels of the size that it was trained on.
    models : mapping of str to Role
        The pack's networks and the built-in ones.
    budget : float
        FLOPs for all roles together; infinite without a limit.
    seed : int
        Of whatever the policy draws at random.
    priors : mapping of str to ndarray
        What the person drew, or earlier runs' maps, by name.
    pixel_bytes : int
        Of one level-0 pixel, all channels together, uncompressed.
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

    @property
    def rect(self) -> Rect:
        """The whole image."""
        return Rect(0, 0, *self.shape)

    @property
    def main(self) -> ModelInfo:
        """The network whose answer is wanted."""
        return self.models["main"]

    def scale_of(self, role: str) -> float:
        """Return the scale at which a role's network sees what it was trained on."""
        return snap_scale(self.native_scale * self.models[role].card.input.downsample)
