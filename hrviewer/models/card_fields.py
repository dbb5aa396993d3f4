"""The sections of a model card: a network's input, its output and its architecture."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from hrviewer.models.card_section import CardSection
from hrviewer.models.class_sets import CLASS_SETS
from hrviewer.models.decode_formats import Decode
from hrviewer.objects import CANDIDATE_SCORE

__all__ = ["Activation", "Architecture", "ModelInput", "ModelOutput"]

Activation = Literal["none", "sigmoid", "softmax", "relu"]

Side = Annotated[int, Field(ge=1, le=8192)]
"""Pixels of an input; loading runs inference on one."""

Context = Annotated[int, Field(ge=0, le=8192)]
"""Pixels of context on one side of a tile."""


class ModelInput(CardSection):
    """Inputs of a network.

    Attributes
    ----------
    channels
        ``"gray"``, ``"rgb"``, ``"bgr"``, or the number of channels.
    scale, mean, std
        Pixels of 0–255 become ``(x · scale − mean) / std``; `mean` and `std` are one number or one
        per channel.
    tile
        Side of an input, in pixels; the only size if `fixed`.
    multiple_of
        Sides must be a multiple of this.
    fixed
        Whether the network takes ``tile × tile`` only.
    value_range
        Pixel values that are 0 and 255 for the network, as ``[0, 10000]`` for reflectances;
        ``[0, 255]`` leaves all numbers as they are. The image's own by default.
    pixel_size
        Side of a pixel of the training data in µm, if that matters.
    letterbox
        Fill value (0–255) outside the image, if trained so; otherwise the image is reflected.
    downsample
        Downsampling of the training data relative to ``main``: 8 for pixels eight times as wide.
    """

    channels: Literal["gray", "rgb", "bgr"] | Annotated[int, Field(ge=1, le=1 << 16)]
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[PositiveFloat, ...] = (1.0,)
    tile: Side
    multiple_of: Side = 1
    fixed: bool = False
    value_range: tuple[float, float] | None = None
    pixel_size: PositiveFloat | None = None
    letterbox: float | None = None
    downsample: PositiveFloat = 1.0

    @property
    def channel_count(self) -> int:
        """Number of input channels."""
        return {"gray": 1, "rgb": 3, "bgr": 3}.get(str(self.channels)) or int(self.channels)

    def border_fill(
        self, dtype: np.dtype[Any], value_range: tuple[float, float]
    ) -> float | Literal["reflect"]:
        """Return what lies beyond an image's border: `letterbox` as a pixel value, if given."""
        if self.letterbox is None:
            return "reflect"
        low, high = value_range
        fill = low + self.letterbox * (high - low) / 255
        if dtype.kind == "f":
            return fill
        info = np.iinfo(dtype)
        return float(min(max(round(fill), int(info.min)), int(info.max)))

    @model_validator(mode="after")
    def _check_consistency(self) -> ModelInput:
        for name, values in ("mean", self.mean), ("std", self.std):
            if len(values) not in (1, self.channel_count):
                raise ValueError(
                    f"{name} has {len(values)} numbers for {self.channel_count} channels"
                )
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range {self.value_range} does not ascend")
        if self.tile % self.multiple_of:
            raise ValueError(f"tile {self.tile} is not a multiple of {self.multiple_of}")
        return self


class ModelOutput(CardSection):
    """Outputs of a network.

    Attributes
    ----------
    stride
        Input pixels per output value; a half where the network doubles the size (its output is
        then pooled to 1); the tile's side for one prediction per tile; a list for a detector.
    halo
        Input pixels of context around a tile with which its predictions equal those from the whole
        image. Measured if missing.
    context
        Input pixels of context with which predictions are nearly exact, if fewer than `halo`
        suffice: used for patches sampled at random, where the sampling error is larger.
    classes
        Name of the class, or for regression of the quantity, of each output channel; or a named
        set (``"coco80"``).
    names
        Names of the outputs of an ONNX graph that are used, in this order; all by default.
    units, range
        Of regression: the unit of each quantity (or one for all), and the least and largest value.
    activation
        Activation to apply to the network's output, over its channels.
    decode
        Format of a detector's raw output; see `hrviewer.models.decoders`.
    width
        Number of values of an embedding.
    bound
        Maximum count of a patch, for confidence intervals.
    margin
        Input pixels without output on every side (of a network without padding).
    variance
        Whether a density network predicts its uncertainty: the densities of the classes are
        followed by as many channels of variances of the counts in each cell, which add up.
    score, overlap
        Of a detector: the least score of an object, and the intersection over union above which two
        predictions of a class are one object. By default those of `hrviewer.objects.MergeSettings`.
    attention
        Whether a head makes one prediction for all places together: the classes of each are
        followed by its attention score (`hrviewer.models.attention_pooling`).
    """

    stride: PositiveInt | PositiveFloat | tuple[PositiveInt, ...]
    halo: Context | None = None
    context: Context | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    activation: Activation = "none"
    decode: Decode | None = None
    width: PositiveInt | None = None
    bound: PositiveFloat | None = None
    margin: Context = 0
    variance: bool = False
    attention: bool = False
    score: Annotated[float, Field(ge=CANDIDATE_SCORE, le=1)] | None = None
    overlap: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def scalar_stride(self) -> float:
        """The stride as one number: of a list, that of the coarsest head."""
        return float(max(self.stride) if isinstance(self.stride, tuple) else self.stride)

    @field_validator("classes", mode="before")
    @classmethod
    def _expand_class_set(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in CLASS_SETS:
            raise ValueError(f"no set of classes is named {value!r}; known: {[*CLASS_SETS]}")
        return CLASS_SETS[value]

    @field_validator("stride")
    @classmethod
    def _check_stride(cls, value: int | float | tuple[int, ...]) -> int | float | tuple[int, ...]:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("an empty list")
        elif (value > 1 and value % 1) or (value < 1 and 1 / value % 1):
            raise ValueError("neither a whole number nor one part of a whole number")
        return value


class Architecture(CardSection):
    """Architecture of safetensors weights: a registered name and its parameters."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
