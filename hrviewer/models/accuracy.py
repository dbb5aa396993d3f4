"""The measured accuracy of a network: the part of its card that intervals are made from.

``python -m benchmarks.accuracy`` measures it, and writes it into the card.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hrviewer.models.card_section import CardSection

__all__ = ["CountError", "Measurement", "ModelAccuracy", "ScaleCurve", "ScalePoint"]

NORMAL_RANGE = -1.96, 1.96


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

    @model_validator(mode="after")
    def _check_quantiles(self) -> CountError:
        if not self.quantiles[0] < 0 < self.quantiles[1]:
            raise ValueError("quantiles are a negative and a positive number")
        return self

    def deviation(self, count: float) -> float:
        """Return the standard deviation of the true count, given the network's count."""
        count = max(count, 0.0)
        return math.sqrt(self.constant**2 + self.per_object * count + (self.relative * count) ** 2)


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
        ``sqrt(per_object * c + (relative * c)²)``, where ``c`` is the corrected count.
    """

    scale: PositiveFloat
    gain: PositiveFloat
    per_object: NonNegativeFloat = 0.0
    relative: NonNegativeFloat = 0.0

    def deviation(self, count: float) -> float:
        """Return the standard deviation of a corrected count from that at native scale."""
        count = max(count, 0.0)
        return math.sqrt(self.per_object * count + (self.relative * count) ** 2)


class ScaleCurve(Measurement):
    """The counts of a network by scale.

    Attributes
    ----------
    points
        By rising scale; the first is 1, with a gain of 1.
    """

    points: Annotated[tuple[ScalePoint, ...], Field(min_length=1)]

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
    """

    count_error: tuple[CountError, ...] = ()
    scale_curve: tuple[ScaleCurve, ...] = ()

    def count_error_for(self, synthetic: str | None) -> CountError | None:
        """Return the error of counts for a synthetic image's name, or for real images (None)."""
        return next((one for one in self.count_error if one.synthetic == synthetic), None)

    def scale_curve_for(self, synthetic: str | None) -> ScaleCurve | None:
        """Return the curve for a synthetic image's name, or for real images (None)."""
        return next((one for one in self.scale_curve if one.synthetic == synthetic), None)
