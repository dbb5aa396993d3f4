"""Cost against resolution: what a network takes as its input grows, and the largest that fits.

FLOPs are counted; seconds and memory are measured at growing squares in a process of its own
(`trials`), which may run out of memory without harm, and extrapolated by ``a + b · side²``;
where tokens attend to each other, by ``a + b · side² + c · side⁴``.
The largest square that fits, the effective maximum resolution, is bracketed by growing and found
by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hrviewer.engine import Control
from hrviewer.errors import UserError
from hrviewer.io.figures.plots import Curve, Quantity, cost_against_side
from hrviewer.models import Pack, open_pack
from hrviewer.models.memory_usage import host_room
from hrviewer.runs.attention_cost import SIDES, Attention
from hrviewer.runs.size_trials import Point, Trials

__all__ = ["Fit", "Scaling", "bytes_of", "cost", "fit", "largest"]

FIRST = 128
"""Side of the first square."""
GROWTH = 2**0.5
CLOSE = 1 / 64
"""As a part of the side, how near the largest square is found."""
WIDEST = 1 << 17
"""Nobody asks for more: 17 gigapixels at once."""
JOINED = 2048
"""Where tokens all attend to each other, nobody is measured beyond, unless asked for."""
ASKED = (4096, 16384, 65536, 131072)
"""Sides that are extrapolated to."""


@dataclass(frozen=True)
class Fit:
    """``constant + per_pixel · side² + per_pair · side⁴``.

    Parameters
    ----------
    constant, per_pixel : float
        Not less than 0.
    off : float
        The largest part by which it misses what was measured.
    per_pair : float
        Not less than 0, and 0 unless pixels attend to each other.
    """

    constant: float
    per_pixel: float
    off: float
    per_pair: float = 0.0

    def at(self, side: float) -> float:
        """Return what it says of a side."""
        return self.constant + self.per_pixel * side**2 + self.per_pair * side**4


@dataclass(frozen=True)
class Scaling:
    """What a network takes at every size.

    Parameters
    ----------
    model, role, device, backend : str
        Who ran where.
    limit_bytes : int
        What it might take.
    points : tuple of Point
        What was measured, by side.
    fits : dict of str to Fit
        Of ``flops``, ``seconds`` and ``peak_bytes``.
    largest : int or None
        Side of the largest square that fitted; None if it was not looked for to the end.
    failed : int or None
        Side of the smallest square that did not fit.
    attention : Attention or None
        Of a transformer: what attending costs, by who attends to whom. Its points are of all
        tokens of a square at once.
    """

    model: str
    role: str
    device: str
    backend: str
    limit_bytes: int
    points: tuple[Point, ...]
    fits: dict[str, Fit]
    largest: int | None
    failed: int | None
    attention: Attention | None = None

    def json(self) -> dict[str, Any]:
        """Return it for a file, with what is expected of larger sides."""
        told = asdict(self)
        told["points"] = list(told["points"])
        told["extrapolated"] = [
            {"side": side, **{name: fit.at(side) for name, fit in self.fits.items()}}
            for side in ASKED
        ]
        if self.attention is not None:
            told["attention"]["flops"] = [
                {"side": side, **{name: way(side) for name, way in self.attention.ways.items()}}
                for side in SIDES
            ]
        return told

    def curves(self) -> list[Curve]:
        """Return what was measured as it is plotted."""
        sides = [point.side for point in self.points]
        told = {
            "flops": Quantity("FLOPs", "FLOP"),
            "seconds": Quantity(f"time on {self.device}", "s"),
            "peak_bytes": Quantity("peak memory", "B"),
        }
        ways = self.attention.ways if self.attention is not None else {}
        lines = {name: (SIDES, [way(side) for side in SIDES]) for name, way in ways.items()}
        return [
            Curve(
                quantity,
                sides,
                [getattr(point, name) for point in self.points],
                self.fits[name].constant,
                self.fits[name].per_pixel,
                self.fits[name].off,
                self.limit_bytes if name == "peak_bytes" else None,
                self.fits[name].per_pair,
                lines if name == "flops" else {},
            )
            for name, quantity in told.items()
        ]

    def _repr_png_(self) -> bytes | None:
        try:
            return cost_against_side(self.curves(), self.largest)
        except ImportError:
            return None


class Asked(Protocol):
    """Whoever runs a square: `Trials`, or a test's stand-in."""

    def __call__(self, side: int) -> Point | None:
        """Return what it took, None if it did not fit."""


def cost(
    model: str | Path | Pack,
    *,
    role: str = "main",
    device: str = "auto",
    memory: str | int | None = None,
    sides: Sequence[int] | None = None,
    search: bool = True,
    watch: Callable[[str], None] | None = None,
    control: Control | None = None,
) -> Scaling:
    """Measure what a network takes as its input grows.

    Parameters
    ----------
    model : str, Path or Pack
        As `run` takes it.
    role : str
        Which of its networks.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    memory : str or int, optional
        What it may take, as ``4GB`` or in bytes: of the process on a CPU, of the device's memory
        on CUDA. Most of what is free by default.
    sides : sequence of int, optional
        Squares to measure, pixels; growing by √2 from 128 to the last that fits by default.
    search : bool
        Whether the largest that fits is looked for.
    watch : callable, optional
        Told in words how far it is.
    control : Control, optional
        To stop from another thread; what was measured stays.

    Raises
    ------
    UserError
        If there is no such network, it takes one size only, or nothing fits.
    """
    limit = host_room() if memory is None else bytes_of(memory)
    say = watch or (lambda words: None)
    pack = model if isinstance(model, Pack) else open_pack(model)
    weights, card = pack.weights(role), pack.roles[role]
    with Trials(weights, card, device, limit, control or Control()) as trials:
        about = trials.about
        joined = {int(n): flops for n, flops in about["joined"].items()}
        if card.input.fixed and not joined:
            raise UserError(f"{card.name} takes {card.input.tile} pixels a side and no other")
        step = card.input.tile if joined else card.step
        if joined:  # time ends it long before memory does
            search = False

        def ask(side: int) -> Point | None:
            say(f"{side:,} × {side:,} pixels")
            return trials(side)

        found: list[Point] = []
        best: int | None = None
        failed: int | None = None
        widest = JOINED if joined and sides is None else WIDEST
        for side in _growing(step) if sides is None else sorted(_rounded(sides, step)):
            if trials.stopped or side > widest:
                break
            point = ask(side)
            if point is None:
                failed = side
                break
            found.append(point)
        if search and not trials.stopped and found:
            more, best, failed = largest(ask, found[-1].side, failed, step, trials.alive)
            found += more
        if trials.stopped:
            best = failed = None
        if not found:
            if trials.stopped:
                raise UserError("stopped before anything was measured")
            raise UserError(
                f"not even {failed} × {failed} pixels fit into {limit / 1e9:.2g} GB: allow more "
                "memory"
            )
    found.sort(key=lambda point: point.side)
    areas = [point.side**2 for point in found]
    fits = {
        name: fit(areas, [getattr(point, name) for point in found], pairs=bool(joined))
        for name in ("flops", "seconds", "peak_bytes")
    }
    return Scaling(
        pack.name, role, about["device"], about["backend"], limit, tuple(found), fits,
        best, failed, Attention.of(joined, card.input.tile) if joined else None,
    )  # fmt: skip


def largest(
    ask: Asked, fits: int, fails: int | None, step: int, alive: Callable[[], bool] = lambda: True
) -> tuple[list[Point], int, int | None]:
    """Find the largest square that fits: grow until one does not, then bisect.

    Parameters
    ----------
    ask : callable
        Runs a square.
    fits : int
        A side that is known to fit.
    fails : int or None
        One that is known not to.
    step : int
        Sides are multiples of it.
    alive : callable
        Whether to go on.

    Returns
    -------
    points : list of Point
        What was measured on the way.
    side : int
        The largest that fitted, within `CLOSE` of one that did not.
    fails : int or None
        The smallest that did not; None if all did.
    """
    points: list[Point] = []
    while alive() and (fails is None or fails - fits > max(step, CLOSE * fits)):
        if fails is None:
            side = _multiple(fits * GROWTH, step)
            if side > WIDEST:
                break
        else:
            side = max(fits + step, (fits + fails) // 2 // step * step)
            if side >= fails:
                break
        point = ask(side)
        if point is None:
            fails = side
        else:
            fits = side
            points.append(point)
    return points, fits, fails


def fit(areas: Sequence[float], values: Sequence[float], *, pairs: bool = False) -> Fit:
    """Fit a line that misses each value by as small a part as it can; no term is negative.

    Parameters
    ----------
    areas, values : sequence of float, length n
        Pixels, and what they took.
    pairs : bool
        Whether it is a parabola: pixels attend to each other.
    """
    from scipy.optimize import nnls

    x, y = np.asarray(areas, float), np.asarray(values, float)
    top = x.max()
    terms = np.column_stack([(x / top) ** power for power in range(3 if pairs else 2)])
    factors, _ = nnls(terms / y[:, None], np.ones_like(y))
    off = float(np.abs(terms @ factors / y - 1).max())
    constant, slope, *bend = (float(f / top**power) for power, f in enumerate(factors))
    return Fit(constant, slope, off, *bend)


def bytes_of(memory: str | int) -> int:
    """Read ``500MB``, ``4GB`` or ``4GiB``; a number is bytes.

    Raises
    ------
    UserError
        If it is none of these.
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
        found = int(float(text) * factor)
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise UserError(f"{memory!r} is no amount of memory: write it as 500MB or 4GB")
    return found


def _growing(step: int) -> Iterator[int]:
    """Yield sides that grow by √2."""
    side = last = 0
    n = 0
    while True:
        side = _multiple(FIRST * GROWTH**n, step)
        if side > last:
            yield side
        last, n = side, n + 1


def _rounded(sides: Sequence[int], step: int) -> set[int]:
    return {_multiple(side, step) for side in sides}


def _multiple(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
