"""What fewer digits do to the answer, measured on the image at hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hrviewer.engine.device_scheduler import Priority
from hrviewer.engine.int8_calibration import highest_contrast, prepare_patch
from hrviewer.engine.plan_setup import LoadedModels
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import PlanContext, tiles

__all__ = ["PrecisionDeviation", "measure_deviation"]


@dataclass(frozen=True)
class PrecisionDeviation:
    """How far a precision is from float32.

    Parameters
    ----------
    precision : str
        Of the answers that are compared with float32's.
    tiles : int
        How many tiles of the image were looked at both ways.
    total : float
        The difference of the outputs' sums, as a part of float32's: of a density's the error of
        the count.
    rms : float
        The root mean square difference, as a part of the spread of float32's output.
    calibrated : int
        How many of the tiles it had been calibrated on: none where there were others.
    """

    precision: str
    tiles: int
    total: float
    rms: float
    calibrated: int = 0

    def __str__(self) -> str:
        known = f" ({self.calibrated} of which it was calibrated on)" if self.calibrated else ""
        return (
            f"{self.precision}: on {self.tiles} tiles of this image{known} the output's sum is off "
            f"by {self.total:+.2%}, and its values by {self.rms:.1%} of their spread, "
            "compared with float32"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for a run's header."""
        return asdict(self)


def measure_deviation(
    pyramid: Pyramid, models: LoadedModels, context: PlanContext, priority: Priority = Priority.RUN
) -> PrecisionDeviation | None:
    """Compare the main network with itself in float32, on tiles of the region.

    On the fullest of some that are spread over it: of glass nothing is said, and nothing is off.

    Parameters
    ----------
    pyramid, networks, scene
        What is looked at, with what, and what of it.
    priority : Priority
        On the device.

    Returns
    -------
    Off or None
        None where it runs in float32 anyway.
    """
    if models.precision == "float32":
        return None
    main, exact = models["main"], models.in_float32()
    there = tiles(context.main, context.region, context.native_scale)
    fresh = [patch for patch in there if all((patch.core & r).empty for r in models.calibrated)]
    pairs = []
    for patch in highest_contrast(pyramid, main, fresh or there):
        array = prepare_patch(pyramid, main, patch)
        pair = [models.device.submit(network, array, priority) for network in (exact, main)]
        pairs.append([np.asarray(future.result().output, float).ravel() for future in pair])
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    whole = float(np.abs(one.sum())) or 1.0
    spread_ = float(one.std()) or float(np.abs(one).max()) or 1.0
    rms = float(np.sqrt(np.mean((other - one) ** 2)))
    total = float(other.sum() - one.sum()) / whole
    known = 0 if fresh or not models.calibrated else len(pairs)
    return PrecisionDeviation(main.precision, len(pairs), total, rms / spread_, known)
