"""The measured accuracy of a network: the part of its card that intervals are made from.

``python -m benchmarks.accuracy`` measures it, and writes it into the card.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Annotated, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hrviewer.models.card_section import CardSection
from hrviewer.models.learned_domain import LearnedDomain

__all__ = [
    "ASSUMED_ERROR",
    "CountError",
    "Measurement",
    "ModelAccuracy",
    "PredictionError",
    "ScaleCurve",
    "ScalePoint",
]

NORMAL_RANGE = -1.96, 1.96

Quantified = TypeVar("Quantified", "CountError", "PredictionError", "ScaleCurve")


class Measurement(CardSection):
    """The origin of a measured figure.

    Attributes
    ----------
    domain
        The kind of images it was measured on, for the user: ``"synthetic images `crowd`"``.
    synthetic
        Name of the synthetic image, as in ``sample:NAME``; None if it was measured on real images.
        A figure from synthetic images holds for images of that name alone, one from real images for
        all others.
    images
        Number of images.
    data
        The images: their sizes and seeds, or the photos. Photos by which a training was chosen are
        called so here.
    command
        The command that repeats the measurement.
    """

    domain: str
    synthetic: str | None = None
    images: PositiveInt
    data: str
    command: str


def check_quantiles(error: Quantified) -> Quantified:
    """Refuse quantiles between which there is no zero."""
    if not error.quantiles[0] < 0 < error.quantiles[1]:
        raise ValueError("quantiles are a negative and a positive number")
    return error


class CountError(Measurement):
    """Error of a network's counts against the ground truth, at native scale.

    Given a count ``c``, the true count is near ``c / (1 + bias)``, and its difference from that has
    the standard deviation ``sqrt(constant² + per_object * c + (relative * c)²)``: small counts are
    less certain in proportion.

    Attributes
    ----------
    bias
        Relative error of the counts altogether: 0.03 if they are 3 % too high.
    constant, per_object, relative
        Terms of the standard deviation.
    quantiles
        2.5 % and 97.5 % quantile of the difference over its standard deviation.
    counts
        Smallest and largest count measured.
    """

    bias: Annotated[float, Field(gt=-1)] = 0.0
    constant: NonNegativeFloat = 0.0
    per_object: NonNegativeFloat = 0.0
    relative: NonNegativeFloat = 0.0
    quantiles: tuple[float, float] = NORMAL_RANGE
    counts: tuple[NonNegativeFloat, NonNegativeFloat]

    _check_quantiles = model_validator(mode="after")(check_quantiles)

    def deviation(self, count: float) -> float:
        """Return the standard deviation of the true count, given the network's count."""
        count = max(count, 0.0)
        return math.sqrt(self.constant**2 + self.per_object * count + (self.relative * count) ** 2)


class PredictionError(Measurement):
    """Error of a scout's or scanner's counts against those of ``main``, over many cells together.

    For cells that were not measured, whose predictions sum to ``p`` with the variance ``v``,
    ``main`` counts about ``ratio * p``. The difference has the variance
    ``spread² * v + per_object * ratio * p + (ratio_deviation * ratio * p)² + (slack * total)²``:
    errors that are independent from cell to cell or from object to object, one that all cells of an
    image share, and a last one relative to the total.

    Attributes
    ----------
    ratio, ratio_deviation
        Mean of the ratio over images, and its standard deviation relative to it.
    spread
        Standard deviation of independent errors over the predicted one.
    per_object
        Variance of independent errors that the predicted ones lack, per object.
    cell_deviation
        Standard deviation of single cells' ratios, relative to the image's: a few measurements that
        agree by chance prove no more than this.
    slack
        Standard deviation of what the model of cells does not explain, relative to the total.
    quantiles
        2.5 % and 97.5 % quantile of the difference over its standard deviation.
    """

    ratio: PositiveFloat = 1.0
    ratio_deviation: NonNegativeFloat
    spread: NonNegativeFloat = 1.0
    per_object: NonNegativeFloat = 0.0
    cell_deviation: NonNegativeFloat = 0.0
    slack: NonNegativeFloat = 0.0
    quantiles: tuple[float, float] = NORMAL_RANGE

    _check_quantiles = model_validator(mode="after")(check_quantiles)


ASSUMED_ERROR = PredictionError(
    domain="not measured",
    images=1,
    data="assumed: predicted variances are right, and the ratio is 1 ± 0.3",
    command="none",
    ratio_deviation=0.3,
)
"""Error of predictions whose card has none."""


class ScalePoint(CardSection):
    """The counts of a network at one scale, against its own at native scale.

    Attributes
    ----------
    scale
        Model pixels are so many times as wide as at native scale.
    gain
        The counts over those at native scale: 1.3 if they are 30 % too high.
    per_object, relative
        The counts over `gain` differ from those at native scale by the standard deviation
        ``sqrt(per_object * (c + 1) + (relative * c)²)``, where ``c`` is the corrected count: that
        nothing was found at a scale is not certain.
    """

    scale: PositiveFloat
    gain: PositiveFloat
    per_object: NonNegativeFloat = 0.0
    relative: NonNegativeFloat = 0.0

    def deviation(self, count: float) -> float:
        """Return the standard deviation of a corrected count from that at native scale."""
        count = max(count, 0.0)
        return math.sqrt(self.per_object * (count + 1) + (self.relative * count) ** 2)


class ScaleCurve(Measurement):
    """The counts of a network by scale.

    Attributes
    ----------
    points
        By rising scale; the first is 1, with a gain of 1.
    quantiles
        2.5 % and 97.5 % quantile of the difference from the count at native scale, over its
        standard deviation, at all scales together.
    """

    points: Annotated[tuple[ScalePoint, ...], Field(min_length=1)]
    quantiles: tuple[float, float] = NORMAL_RANGE

    _check_quantiles = model_validator(mode="after")(check_quantiles)

    @model_validator(mode="after")
    def _check_scales(self) -> ScaleCurve:
        scales = [point.scale for point in self.points]
        if scales != sorted(set(scales)):
            raise ValueError("the scales of a curve rise")
        return self

    def at(self, scale: float) -> ScalePoint | None:
        """Return the point at a scale, interpolated in its logarithm; None beyond the last one.

        Up to 1 it is that of native scale.
        """
        scales = [point.scale for point in self.points]
        scale = max(scale, scales[0])
        if scale > scales[-1]:
            return None
        after = bisect_left(scales, scale)
        if scales[after] == scale:
            return self.points[after]
        low, high = self.points[after - 1], self.points[after]
        part = math.log(scale / low.scale) / math.log(high.scale / low.scale)
        gain, per_object, relative = (
            (1 - part) * getattr(low, name) + part * getattr(high, name)
            for name in ("gain", "per_object", "relative")
        )
        return ScalePoint(scale=scale, gain=gain, per_object=per_object, relative=relative)


class ModelAccuracy(CardSection):
    """The measured accuracy of a network.

    Attributes
    ----------
    count_error
        Errors against the ground truth, one for each domain.
    scale_curve
        Counts by scale, one curve for each domain.
    prediction_error
        Of a scout or scanner, the error against ``main``.
    learned_domain
        The kind of images it learned from: runs on others have a note.
    """

    count_error: tuple[CountError, ...] = ()
    prediction_error: PredictionError | None = None
    scale_curve: tuple[ScaleCurve, ...] = ()
    learned_domain: LearnedDomain | None = None

    def count_error_for(self, synthetic: str | None) -> CountError | None:
        """Return the error of counts for a synthetic image's name, or for real images (None)."""
        return next((one for one in self.count_error if one.synthetic == synthetic), None)

    def scale_curve_for(self, synthetic: str | None) -> ScaleCurve | None:
        """Return the curve for a synthetic image's name, or for real images (None)."""
        return next((one for one in self.scale_curve if one.synthetic == synthetic), None)
