"""Cost of a model by input size: FLOPs, time and memory, and the largest input that fits.

FLOPs are counted; seconds and memory are measured at growing squares in a separate process
(`size_trials`), which may run out of memory without harm, and extrapolated by ``a + b · side²``;
where tokens attend to each other, by ``a + b · side² + c · side⁴``.
The largest square that fits, the effective maximum resolution, is bracketed by growing and found
by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Protocol

import numpy as np

from hrviewer.engine import RunControl
from hrviewer.errors import ModelError, ParameterError, RunError
from hrviewer.io.figures.plots import AxisLabel, CostCurve, plot_cost_by_side
from hrviewer.models.memory_usage import available_memory
from hrviewer.runs.attention_cost import SIDES, AttentionCost
from hrviewer.runs.model import ModelLike, as_bundle
from hrviewer.runs.progress import progress_messages
from hrviewer.runs.size_trials import SizeTrials, SquareCost

__all__ = ["Fit", "Scaling", "cost", "find_largest", "fit", "parse_bytes"]

FIRST_SIDE = 128
"""Side of the first square."""
GROWTH = 2**0.5
BISECTION_TOLERANCE = 1 / 64
"""Relative precision of the largest side."""
MAX_SIDE = 1 << 17
"""Largest side: 17 gigapixels in one input."""
MAX_ATTENTION_SIDE = 2048
"""Largest side that is measured by default where all tokens attend to each other."""
EXTRAPOLATED_SIDES = (4096, 16384, 65536, 131072)
"""Sides of the extrapolation."""


@dataclass(frozen=True)
class Fit:
    """``constant + per_pixel · side² + per_pair · side⁴``.

    Parameters
    ----------
    constant, per_pixel : float
        Not less than 0.
    max_deviation : float
        Largest relative deviation from the measurements.
    per_pair : float
        Not less than 0, and 0 unless tokens attend to each other.
    """

    constant: float
    per_pixel: float
    max_deviation: float
    per_pair: float = 0.0

    def predict(self, side: float) -> float:
        """Return the predicted cost at a side."""
        return self.constant + self.per_pixel * side**2 + self.per_pair * side**4


@dataclass(frozen=True)
class Scaling:
    """Cost of a model by input size.

    Parameters
    ----------
    model, role, device, backend : str
        The model, and where it ran.
    limit_bytes : int
        Memory limit.
    points : tuple of SquareCost
        The measurements, by side.
    fits : dict of str to Fit
        Of ``flops``, ``seconds`` and ``peak_bytes``.
    largest : int or None
        Side of the largest square that fitted; None if the search was off or stopped.
    failed : int or None
        Side of the smallest square that did not fit.
    attention : AttentionCost or None
        Of a transformer: the cost by attention pattern. Its points are of all tokens of a square
        at once.
    """

    model: str
    role: str
    device: str
    backend: str
    limit_bytes: int
    points: tuple[SquareCost, ...]
    fits: dict[str, Fit]
    largest: int | None
    failed: int | None
    attention: AttentionCost | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values for a JSON file, with the extrapolation to larger sides."""
        values = asdict(self)
        values["points"] = list(values["points"])
        values["extrapolated"] = [
            {"side": side, **{name: fit.predict(side) for name, fit in self.fits.items()}}
            for side in EXTRAPOLATED_SIDES
        ]
        if self.attention is not None:
            values["attention"]["flops"] = [
                {
                    "side": side,
                    **{name: way(side) for name, way in self.attention.by_pattern.items()},
                }
                for side in SIDES
            ]
        return values

    def curves(self) -> list[CostCurve]:
        """Return the measurements and fits as curves of a plot."""
        sides = [point.side for point in self.points]
        quantities = {
            "flops": AxisLabel("FLOPs", "FLOP"),
            "seconds": AxisLabel(f"time on {self.device}", "s"),
            "peak_bytes": AxisLabel("peak memory", "B"),
        }
        ways = self.attention.by_pattern if self.attention is not None else {}
        lines = {name: (SIDES, [way(side) for side in SIDES]) for name, way in ways.items()}
        return [
            CostCurve(
                quantity,
                sides,
                [getattr(point, name) for point in self.points],
                self.fits[name].constant,
                self.fits[name].per_pixel,
                self.fits[name].max_deviation,
                self.limit_bytes if name == "peak_bytes" else None,
                self.fits[name].per_pair,
                lines if name == "flops" else {},
            )
            for name, quantity in quantities.items()
        ]

    def _repr_png_(self) -> bytes | None:
        try:
            return plot_cost_by_side(self.curves(), self.largest)
        except ImportError:
            return None


class Prober(Protocol):
    """Runs squares: `SizeTrials`, or a substitute in tests."""

    def __call__(self, side: int) -> SquareCost | None:
        """Run a square of `side` pixels; return None if it did not fit."""


def cost(
    model: ModelLike | None = None,
    *,
    role: str = "main",
    device: str = "auto",
    memory: str | int | None = None,
    sides: Sequence[int] | None = None,
    search: bool = True,
    progress: bool = True,
    on_progress: Callable[[str], None] | None = None,
    control: RunControl | None = None,
) -> Scaling:
    """Measure FLOPs, time and memory of a model by input size.

    Parameters
    ----------
    model : str, Path, Model or ModelBundle
        A model of `run`.
    role : str
        Role in the model bundle.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    memory : str or int, optional
        Memory limit, as ``4GB`` or in bytes: of the process on a CPU, of the device on CUDA. Most
        of the free memory by default.
    sides : sequence of int, optional
        Squares to measure, pixels; growing by √2 from 128 to the last that fits by default.
    search : bool
        Whether to search for the largest side that fits.
    progress : bool
        Whether to show a progress bar, in a terminal or a notebook.
    on_progress : callable, optional
        Called with a message before each measurement.
    control : RunControl, optional
        Stops from another thread; the measurements so far are returned.

    Returns
    -------
    Scaling
        With ``points``, ``fits`` and ``largest``; a plot in a notebook.

    Raises
    ------
    HrviewerError
        If there is no such role, its input size is fixed, or nothing fits.

    Examples
    --------
    >>> scaling = hrviewer.cost("model.onnx", sides=[64, 128], search=False, progress=False)
    >>> small, large = scaling.points
    >>> small.side, large.side  # pixels; `largest` is known after a search
    (64, 128)
    >>> round(large.flops / small.flops)
    4
    >>> scaling.fits["flops"].predict(10_000) / scaling.fits["flops"].predict(1_000)
    100.0
    """
    limit = available_memory() if memory is None else parse_bytes(memory)
    if sides is not None and not (sides and all(isinstance(n, Integral) and n > 0 for n in sides)):
        raise ParameterError(f"sides are positive whole numbers, as [256, 512], not {sides!r}")
    bundle = as_bundle(model)
    weights, card = bundle.weights(role), bundle.roles[role]
    with (
        progress_messages(progress, on_progress) as report,
        SizeTrials(weights, card, device, limit, control or RunControl(), bundle.trust) as trials,
    ):
        info = trials.info
        joined = {int(n): flops for n, flops in info["token_flops"].items()}
        if card.input.fixed and not joined:
            raise ModelError(
                f"{card.name} has a fixed input of {card.input.tile} pixels a side: choose a model "
                "of variable input size"
            )
        step = card.input.tile if joined else card.step
        if joined:  # time limits these long before memory does
            search = False

        def measure(side: int) -> SquareCost | None:
            report(f"{side:,} × {side:,} pixels")
            return trials(side)

        points: list[SquareCost] = []
        best: int | None = None
        failed: int | None = None
        widest = MAX_ATTENTION_SIDE if joined and sides is None else MAX_SIDE
        for side in _growing_sides(step) if sides is None else sorted(_rounded_sides(sides, step)):
            if trials.stopped or side > widest:
                break
            point = measure(side)
            if point is None:
                failed = side
                break
            points.append(point)
        if search and not trials.stopped and points:
            more, best, failed = find_largest(
                measure, points[-1].side, failed, step, trials.should_continue
            )
            points += more
        if trials.stopped:
            best = failed = None
        if not points:
            if trials.stopped:
                raise RunError("stopped before the first measurement")
            raise ModelError(
                f"{failed} × {failed} pixels do not fit into {limit / 1e9:.2g} GB: allow more "
                "memory"
            )
    points.sort(key=lambda point: point.side)
    areas = [point.side**2 for point in points]
    fits = {
        name: fit(areas, [getattr(point, name) for point in points], pairs=bool(joined))
        for name in ("flops", "seconds", "peak_bytes")
    }
    return Scaling(
        bundle.name, role, info["device"], info["backend"], limit, tuple(points), fits,
        best, failed, AttentionCost.from_counts(joined, card.input.tile) if joined else None,
    )  # fmt: skip


def find_largest(
    probe: Prober,
    fitting_side: int,
    failing_side: int | None,
    step: int,
    should_continue: Callable[[], bool] = lambda: True,
) -> tuple[list[SquareCost], int, int | None]:
    """Find the largest square that fits: grow until one does not, then bisect.

    Parameters
    ----------
    probe : callable
        Runs a square.
    fitting_side : int
        A side that fits.
    failing_side : int or None
        A side that does not fit.
    step : int
        Sides are multiples of it.
    should_continue : callable
        Whether to continue.

    Returns
    -------
    points : list of SquareCost
        The measurements of the search.
    side : int
        The largest that fitted, within `BISECTION_TOLERANCE` of one that did not.
    failing_side : int or None
        The smallest side that did not fit; None if all did.
    """
    points: list[SquareCost] = []
    while should_continue() and (
        failing_side is None
        or failing_side - fitting_side > max(step, BISECTION_TOLERANCE * fitting_side)
    ):
        if failing_side is None:
            side = _round_to_step(fitting_side * GROWTH, step)
            if side > MAX_SIDE:
                break
        else:
            side = max(fitting_side + step, (fitting_side + failing_side) // 2 // step * step)
            if side >= failing_side:
                break
        point = probe(side)
        if point is None:
            failing_side = side
        else:
            fitting_side = side
            points.append(point)
    return points, fitting_side, failing_side


def fit(areas: Sequence[float], values: Sequence[float], *, pairs: bool = False) -> Fit:
    """Fit a line with least relative deviation; no coefficient is negative.

    Parameters
    ----------
    areas, values : sequence of float, length n
        Pixels, and their cost.
    pairs : bool
        Whether to fit a parabola, for tokens that attend to each other.
    """
    from scipy.optimize import nnls

    x, y = np.asarray(areas, float), np.asarray(values, float)
    top = x.max()
    terms = np.column_stack([(x / top) ** power for power in range(3 if pairs else 2)])
    factors, _ = nnls(terms / y[:, None], np.ones_like(y))
    deviation = float(np.abs(terms @ factors / y - 1).max())
    constant, slope, *curvature = (float(f / top**power) for power, f in enumerate(factors))
    return Fit(constant, slope, deviation, *curvature)


def parse_bytes(memory: str | int) -> int:
    """Parse ``500MB``, ``4GB`` or ``4GiB``; a number is bytes.

    Raises
    ------
    HrviewerError
        If it is not an amount of memory.
    """
    units = {"GIB": 1 << 30, "MIB": 1 << 20, "GB": 10**9, "MB": 10**6, "B": 1}
    text = str(memory).strip().upper()
    for unit, size in units.items():
        if text.endswith(unit):
            text, factor = text[: -len(unit)].strip(), size
            break
    else:
        factor = 1
    try:
        amount = int(float(text) * factor)
    except (ValueError, OverflowError):
        amount = 0
    if amount <= 0:
        raise ParameterError(f"{memory!r} is not an amount of memory: write it as 500MB or 4GB")
    return amount


def _growing_sides(step: int) -> Iterator[int]:
    """Yield sides that grow by √2."""
    side = last = 0
    n = 0
    while True:
        side = _round_to_step(FIRST_SIDE * GROWTH**n, step)
        if side > last:
            yield side
        last, n = side, n + 1


def _rounded_sides(sides: Sequence[int], step: int) -> set[int]:
    return {_round_to_step(side, step) for side in sides}


def _round_to_step(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
