"""Deviation of a lower precision from float32, measured on the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.device_scheduler import Priority
from hrviewer.engine.int8_calibration import highest_contrast, prepare_patch
from hrviewer.engine.loaded_models import LoadedModels
from hrviewer.models import ModelCard
from hrviewer.models.detection import Detections, non_max_suppression
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import PlanContext, tiles

__all__ = ["PrecisionDeviation", "measure_deviation"]


@dataclass(frozen=True)
class PrecisionDeviation:
    """Deviation of a precision from float32.

    Parameters
    ----------
    precision : str
        The precision compared with float32.
    tiles : int
        Tiles of the image on which inference was run in both.
    total : float
        Difference of the outputs' sums, relative to float32: for a density, the error of the
        count.
    rms : float
        Root mean square difference, relative to the standard deviation of float32's output.
    calibrated : int
        How many of the tiles it was calibrated on: none where there were others.
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
            f"by {self.total:+.2%}, and its values by {self.rms:.1%} of their standard deviation, "
            "compared with float32"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a run's header."""
        return asdict(self)


def measure_deviation(
    pyramid: Pyramid, models: LoadedModels, context: PlanContext, priority: Priority = Priority.RUN
) -> PrecisionDeviation | None:
    """Compare the main network with itself in float32, on tiles of the region.

    Of tiles spread over the region, those with the most contrast are taken: on empty background
    nothing is predicted and nothing deviates.

    Parameters
    ----------
    pyramid, models, context
        Image, loaded models and context of the run.
    priority : Priority
        Of the jobs on the device.

    Returns
    -------
    PrecisionDeviation or None
        None if the models run in float32.
    """
    if models.precision == "float32":
        return None
    main, float32 = models["main"], models.in_float32()
    all_tiles = tiles(context.main, context.region, context.native_scale)
    fresh = [patch for patch in all_tiles if all((patch.core & r).empty for r in models.calibrated)]
    pairs = []
    for patch in highest_contrast(pyramid, main, fresh or all_tiles):
        array = prepare_patch(pyramid, main, patch)
        pair = [models.device.submit(network, array, priority) for network in (float32, main)]
        pairs.append([flatten(main.card, future.result().output) for future in pair])
    exact, approximate = (np.concatenate(side) for side in zip(*pairs, strict=True))
    magnitude = float(np.abs(exact.sum())) or 1.0
    deviation = float(exact.std()) or float(np.abs(exact).max()) or 1.0
    rms = float(np.sqrt(np.mean((approximate - exact) ** 2)))
    total = float(approximate.sum() - exact.sum()) / magnitude
    calibrated = 0 if fresh or not models.calibrated else len(pairs)
    return PrecisionDeviation(main.precision, len(pairs), total, rms / deviation, calibrated)


def flatten(card: ModelCard, output: Any) -> NDArray[np.float64]:
    """Return the numbers of an output: of a detector, the objects of each class."""
    if isinstance(output, Detections):
        settings = card.merge_settings
        confident = output.scores >= settings.score
        kept = non_max_suppression(
            output.boxes[confident],
            output.scores[confident],
            output.classes[confident],
            settings.overlap,
        )
        classes = output.classes[confident][kept]
        return np.bincount(classes, minlength=card.prediction_channels).astype(np.float64)
    return np.asarray(output, np.float64).ravel()
