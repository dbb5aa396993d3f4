"""Model cards: inputs and outputs of a network, as JSON that users can write.

A card is data, never code. Its preprocessing (`ModelCard.prepare`) is implemented here only, so a
network gets the same numbers in the window, a notebook and on the command line. Nothing here loads
weights; a card is validated when its network is loaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hrviewer.errors import ModelError, validation_error
from hrviewer.models.accuracy import ModelAccuracy
from hrviewer.models.card_section import CardSection
from hrviewer.models.class_sets import CLASS_SETS
from hrviewer.models.decode_formats import INSTANCE_DECODES, RELATIVE_DECODES, Decode
from hrviewer.models.json_file import read_json
from hrviewer.objects import CANDIDATE_SCORE, MergeSettings

__all__ = ["Activation", "Architecture", "ModelCard", "ModelInput", "ModelOutput", "Task"]

Task = Literal[
    "density", "segmentation", "classification", "multi-label", "regression",
    "detection", "instances", "embedding", "saliency",
]  # fmt: skip
AVERAGED_TASKS: tuple[Task, ...] = ("classification", "multi-label", "regression")
"""Tasks of models with one prediction per tile, of which an estimate is the mean."""

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


class ModelCard(CardSection):
    """Inputs, outputs, origin and licence of a network.

    Attributes
    ----------
    name, title
        A short identifier, and a title for the user.
    task
        ``density`` sums to a count, ``segmentation`` and ``detection`` are per class,
        ``classification`` (classes exclude one another), ``multi-label`` (they do not),
        ``regression`` (quantities) and ``embedding`` are per tile; ``saliency`` selects patches.
    architecture
        For safetensors weights only.
    sha256
        Hash of the weights file; verified if given.
    accuracy
        Measured accuracy, from which the intervals of estimates are made.
    training, metrics
        Free documentation; never read.
    """

    name: str
    title: str = ""
    task: Task
    input: ModelInput
    output: ModelOutput
    architecture: Architecture | None = None
    licence: str = ""
    citation: str = ""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    accuracy: ModelAccuracy = ModelAccuracy()
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_consistency(self) -> ModelCard:
        if self.task == "embedding":
            if self.output.width is None:
                raise ValueError("an embedding needs output.width")
        elif not self.output.classes and self.task != "saliency":
            raise ValueError(f"a {self.task} network needs output.classes")
        if self.detects and self.output.decode is None:
            raise ValueError(f"a network of the task {self.task} needs output.decode")
        if self.output.decode in INSTANCE_DECODES and self.task != "instances":
            raise ValueError(f"output.decode {self.output.decode!r} needs the task instances")
        if self.output.decode in RELATIVE_DECODES and not self.input.fixed:
            raise ValueError(
                f"output.decode {self.output.decode!r} needs input.fixed true: its positions are "
                "relative to the tile"
            )
        if isinstance(self.output.stride, tuple) and self.task != "detection":
            raise ValueError("output.stride is a list for detection only")
        if (self.output.units or self.output.range) and self.task != "regression":
            raise ValueError("output.units and output.range are for regression only")
        if len(self.output.units) not in (0, 1, len(self.output.classes)):
            raise ValueError(
                f"output.units has {len(self.output.units)} units for "
                f"{len(self.output.classes)} quantities"
            )
        if self.output.activation == "softmax" and len(self.output.classes) == 1:
            raise ValueError(
                "the softmax of one class is always 1: output.activation must be sigmoid"
            )
        if self.output.activation == "softmax" and self.task in ("multi-label", "regression"):
            raise ValueError(f"output.activation softmax does not fit the task {self.task}")
        chosen = self.output.score, self.output.overlap
        if not self.detects and chosen != (None, None):
            raise ValueError("output.score and output.overlap are for detection and instances only")
        if self.output.variance and self.task != "density":
            raise ValueError("output.variance is for density only")
        pooled = self.task == "classification" and self.output.activation == "softmax"
        if self.output.attention and not (pooled and isinstance(self.input.channels, int)):
            raise ValueError("output.attention is for classification of embeddings, by softmax")
        return self

    @classmethod
    def from_dict(cls, fields: object, source: str | Path) -> ModelCard:
        """Return the card with `fields`, as parsed from JSON.

        Parameters
        ----------
        fields
            A dictionary.
        source
            Name of the card in error messages, as its file.

        Raises
        ------
        ModelError
            If a field is missing, unknown or invalid.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise validation_error(
                error, source, advice="correct the card", kind=ModelError
            ) from None

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Return the card in a JSON file; raise `ModelError` if it is missing or invalid."""
        return cls.from_dict(read_json(path), path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class of each output channel; empty for an embedding."""
        return self.output.classes

    @property
    def averaged(self) -> bool:
        """Whether an estimate is the mean over tiles, and a tile has one prediction."""
        return self.task in AVERAGED_TASKS

    @property
    def exclusive(self) -> bool:
        """Whether every place has one class of several: shares of classes sum to one."""
        softmax = self.task == "classification" and self.output.activation == "softmax"
        return self.prediction_channels > 1 and (softmax or self.task == "segmentation")

    @property
    def has_shares(self) -> bool:
        """Whether the estimate is per area: shares of several classes, or means."""
        return self.averaged or self.exclusive

    def unit(self, channel: int) -> str:
        """Return the unit of a quantity; empty without one."""
        units = self.output.units
        return units[min(channel, len(units) - 1)] if units else ""

    @property
    def prediction_channels(self) -> int:
        """Number of prediction channels, ``k``: without variances and scores."""
        return self.output.width or len(self.output.classes) or 1

    @property
    def output_channels(self) -> int:
        """Number of output channels: ``k``, plus as many variances or one score, if any."""
        return self.prediction_channels * (1 + self.output.variance) + self.output.attention

    @property
    def stride(self) -> int:
        """Input pixels per output value of `Network.__call__`, at least 1.

        For a detector, that of its coarsest head. Instances are counted in cells of 16 pixels.
        """
        coarsest = max(1, int(self.output.scalar_stride))
        return math.lcm(coarsest, 16) if self.task == "instances" else coarsest

    @property
    def detects(self) -> bool:
        """Whether the network predicts objects: boxes or outlines."""
        return self.task in ("detection", "instances")

    @property
    def merge_settings(self) -> MergeSettings:
        """Which of a detector's predictions are objects by default."""
        given = {"score": self.output.score, "overlap": self.output.overlap}
        return MergeSettings(**{name: v for name, v in given.items() if v is not None})

    @property
    def counts(self) -> bool:
        """Whether the estimate is a count: of a density, or of objects."""
        return self.task == "density" or self.detects

    @property
    def step(self) -> int:
        """Alignment of tiles, in pixels: at multiples of this the output is not shifted."""
        return math.lcm(self.stride, self.input.multiple_of)

    @property
    def object_overlap(self) -> int:
        """Context, in pixels, for objects on the border of two tiles to be seen whole in one.

        Half of the overlap of neighbouring tiles, at least a quarter of the tile together, besides
        the margin; 0 for models that do not detect objects.
        """
        if not self.detects:
            return 0
        tile, step = self.input.tile, self.halo_step
        core = max(step, (tile - 2 * self.output.margin) * 3 // 4 // step * step)
        return max(0, (tile - core) // 2)

    @property
    def halo_step(self) -> int:
        """Pixels of which a halo is a multiple; 1 for one prediction per tile of fixed size."""
        if not self.input.fixed:
            return self.step
        return self.stride if self.stride < self.input.tile else 1

    @property
    def cache_key(self) -> str:
        """All fields that change the predictions, in one line: part of every cache key."""
        # Fields of later versions count only where they are given, so that caches stay valid.
        absent = {n for n in ("score", "overlap") if getattr(self.output, n) is None}
        return self.model_dump_json(
            include={"task", "input", "output", "architecture"}, exclude={"output": absent}
        )

    def prepare(
        self,
        pixels: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> NDArray[np.float32]:
        """Preprocess pixels for the network.

        Parameters
        ----------
        pixels
            ``(h, w, c)`` or ``(h, w)``. Values that are not finite become 0. An alpha channel is
            dropped.
        out
            Output array, ``(C, h, w)``; a new one by default.
        value_range
            Pixel values that become 0 and 255. By default those of the card, else the whole range
            of unsigned integers and booleans; floats and signed integers are used unchanged.

        Returns
        -------
        NDArray[np.float32]
            ``(C, h, w)``, contiguous. ``gray`` is ITU-R 601, for ``uint8`` rounded as in
            Pillow's ``L``.

        Raises
        ------
        ModelError
            If the image does not have the number of channels that the card requires.
        """
        x = self._select_channels(pixels[..., None] if pixels.ndim == 2 else pixels)
        if out is None:
            out = np.empty((x.shape[-1], *x.shape[:2]), np.float32)
        np.copyto(out, np.moveaxis(x, -1, 0), casting="unsafe")
        low, high = value_range or self.input.value_range or _full_range(pixels.dtype)
        if low:
            out -= np.float32(low)
        if high - low != 255:
            out /= np.float32((high - low) / 255)
        if x.dtype.kind == "f":
            np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if self.input.scale != 1:
            out *= np.float32(self.input.scale)
        if any(self.input.mean):
            out -= np.asarray(self.input.mean, np.float32)[:, None, None]
        if any(std != 1 for std in self.input.std):
            out /= np.asarray(self.input.std, np.float32)[:, None, None]
        return out

    def check_channels(self, available: int) -> None:
        """Raise `ModelError` if an image of so many channels cannot be prepared."""
        required = self.input.channels
        if isinstance(required, int) and available != required:
            raise ModelError(
                f"{self.name} takes {required} channels, but the image has {available}: choose "
                f"{required} of them with the option channels, or another model"
            )

    def _select_channels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return ``(h, w, C)``, with the image's values and dtype."""
        available, required = pixels.shape[-1], self.input.channels
        if isinstance(required, int):
            self.check_channels(available)
            return pixels
        if available < 3:  # gray, with or without alpha
            gray = pixels[..., :1]
            return gray if required == "gray" else np.repeat(gray, 3, axis=-1)
        rgb = pixels[..., :3]
        if required == "gray":
            return _luma(rgb)[..., None]
        return rgb[..., ::-1] if required == "bgr" else rgb


def _full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of unsigned integers and booleans; of other types none is known."""
    if dtype.kind == "b":
        return 0.0, 1.0
    return 0.0, float(np.iinfo(dtype).max) if dtype.kind == "u" else 255.0


def _luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return ITU-R 601 luma; 8-bit integers are rounded exactly as in Pillow."""
    weights = 19595, 38470, 7471
    if rgb.dtype != np.uint8:
        r, g, b = (rgb[..., c] * np.float64(w / 65536) for c, w in enumerate(weights))
        return np.asarray(r + g + b)
    weighted = sum(rgb[..., c].astype(np.uint32) * np.uint32(w) for c, w in enumerate(weights))
    return np.asarray((weighted + np.uint32(0x8000)) >> np.uint32(16), np.uint8)
