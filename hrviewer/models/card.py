"""The card: what goes into a network and what comes out, in words a person can write.

A card is data, never code. What it says of pixels (`Card.prepare`) is done here, in one place, so
that a network sees the same numbers from the window, the notebook and the command line. Nothing
here loads weights; whether the card tells the truth is found out when its network is loaded.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hrviewer.errors import HrviewerError, ModelError, validation_error

__all__ = ["Activation", "Architecture", "ModelCard", "ModelInput", "ModelOutput", "Task"]

Task = Literal["density", "segmentation", "classification", "detection", "embedding", "saliency"]
Activation = Literal["none", "sigmoid", "softmax", "relu"]

_CLASS_SETS = {
    "coco80": """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,
    fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,
    giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,
    baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,
    knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,
    couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,
    microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,
    toothbrush"""
}


class _CardSection(BaseModel):
    """Frozen, finite, and a field that nobody knows is an error: a typo must not pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelInput(_CardSection):
    """What the network takes.

    Attributes
    ----------
    channels
        ``"gray"``, ``"rgb"``, ``"bgr"``, or how many channels the image must have.
    scale, mean, std
        Pixels of 0–255 become ``(x · scale − mean) / std``; `mean` and `std` are one number or one
        per channel.
    tile
        The side at which the network is meant to run, in pixels; the only one if `fixed`.
    multiple_of
        Sides must be a multiple of this.
    fixed
        Whether the network runs at ``tile × tile`` only.
    pixel_size
        The side of a pixel in µm that the network learned from, if that matters.
    letterbox
        What fills the rest of a tile that the picture does not (0–255), where the network was
        taught so; otherwise the picture is reflected.
    downsample
        By how much what it learned from was shrunk, where that is meant so: a scout of 8 sees
        pixels eight times as wide as ``main`` does.
    """

    channels: Literal["gray", "rgb", "bgr"] | PositiveInt
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[PositiveFloat, ...] = (1.0,)
    tile: PositiveInt
    multiple_of: PositiveInt = 1
    fixed: bool = False
    pixel_size: PositiveFloat | None = None
    letterbox: float | None = None
    downsample: PositiveFloat = 1.0

    @property
    def channel_count(self) -> int:
        """How many channels the network takes."""
        return {"gray": 1, "rgb": 3, "bgr": 3}.get(str(self.channels)) or int(self.channels)

    @model_validator(mode="after")
    def _check_consistency(self) -> ModelInput:
        for name, values in ("mean", self.mean), ("std", self.std):
            if len(values) not in (1, self.channel_count):
                raise ValueError(
                    f"{name} has {len(values)} numbers for {self.channel_count} channels"
                )
        if self.tile % self.multiple_of:
            raise ValueError(f"tile {self.tile} is not a multiple of {self.multiple_of}")
        return self


class ModelOutput(_CardSection):
    """What the network gives.

    Attributes
    ----------
    stride
        Input pixels per output value; a half where the network doubles the size (its output is
        then pooled to 1); the tile's side for one answer per tile; a list for a detector's heads.
    halo
        Input pixels of context around a tile with which it comes out as it would from the whole
        image. Measured where it is missing.
    context
        Input pixels of context with which an answer about a tile is nearly right, where fewer than
        `halo` are enough: for looks at places drawn at random, whose own error is larger.
    classes
        What each output channel means, or a named set (``"coco80"``).
    activation
        What is still to be applied to the network's output, over its channels.
    decode
        How a detector's raw output is read.
    width
        An embedding's number of values.
    bound
        The largest count that a patch can have, for intervals.
    margin
        Input pixels that the output leaves out on every side (a network without padding).
    variance
        Whether a density network says how sure it is: after the classes' densities come as many
        channels with the variances of the counts in each cell, which add up as counts do.
    attention
        Whether a head gives one answer for all places: after the classes of each comes how much
        it is to matter, as a score (`hrviewer.models.attention_pooling`).
    """

    stride: PositiveInt | PositiveFloat | tuple[PositiveInt, ...]
    halo: Annotated[int, Field(ge=0)] | None = None
    context: Annotated[int, Field(ge=0)] | None = None
    classes: tuple[str, ...] = ()
    activation: Activation = "none"
    decode: Literal["yolox"] | None = None
    width: PositiveInt | None = None
    bound: PositiveFloat | None = None
    margin: Annotated[int, Field(ge=0)] = 0
    variance: bool = False
    attention: bool = False

    @field_validator("classes", mode="before")
    @classmethod
    def _expand_class_set(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in _CLASS_SETS:
            raise ValueError(f"no set of classes is named {value!r}; known: {[*_CLASS_SETS]}")
        return [" ".join(name.split()) for name in _CLASS_SETS[value].split(",")]

    @field_validator("stride")
    @classmethod
    def _check_stride(cls, value: int | float | tuple[int, ...]) -> int | float | tuple[int, ...]:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("an empty list")
        elif (value > 1 and value % 1) or (value < 1 and 1 / value % 1):
            raise ValueError("neither a whole number nor one part of a whole number")
        return value


class Architecture(_CardSection):
    """What the numbers in a safetensors file are weights of: a registered name and parameters."""

    name: str
    params: dict[str, Any] = {}


class ModelCard(_CardSection):
    """What a network takes and gives, who made it, and under which licence.

    Attributes
    ----------
    name, title
        A short identifier, and what a person reads.
    task
        ``density`` sums to a count, ``segmentation`` and ``detection`` are per class,
        ``classification`` and ``embedding`` speak of a whole tile; ``saliency`` of interest.
    architecture
        For safetensors weights only.
    sha256
        Of the weights file; verified when it is there.
    training, metrics
        Anything worth knowing; never read.
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
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_consistency(self) -> ModelCard:
        if self.task == "embedding":
            if self.output.width is None:
                raise ValueError("an embedding needs output.width")
        elif not self.output.classes and self.task != "saliency":
            raise ValueError(f"a {self.task} network needs output.classes")
        if self.task == "detection" and self.output.decode is None:
            raise ValueError("a detection network needs output.decode")
        if isinstance(self.output.stride, tuple) and self.task != "detection":
            raise ValueError("output.stride is a list for detection only")
        if self.output.variance and self.task != "density":
            raise ValueError("output.variance is for density only")
        pooled = self.task == "classification" and self.output.activation == "softmax"
        if self.output.attention and not (pooled and isinstance(self.input.channels, int)):
            raise ValueError("output.attention is for classification of codes, by softmax")
        return self

    @classmethod
    def from_dict(cls, fields: object, source: str | Path) -> ModelCard:
        """Return the card made of `fields`, as parsed from JSON.

        Parameters
        ----------
        fields
            A dictionary.
        where
            What to call it when it is wrong.

        Raises
        ------
        UserError
            Where a field is missing, unknown or impossible.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise validation_error(
                error, source, advice="correct the card", kind=ModelError
            ) from None

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Return the card in a JSON file; `UserError` where there is none or it is wrong."""
        return cls.from_dict(read_json(path), path)

    @property
    def classes(self) -> tuple[str, ...]:
        """What each output channel means; empty for an embedding."""
        return self.output.classes

    @property
    def prediction_channels(self) -> int:
        """Output channels that answer: ``k``."""
        return self.output.width or len(self.output.classes) or 1

    @property
    def output_channels(self) -> int:
        """Output channels: ``k``, and as many variances or one score, where there are such."""
        return self.prediction_channels * (1 + self.output.variance) + self.output.attention

    @property
    def stride(self) -> int:
        """Input pixels per output value of `Network.__call__`, at least 1.

        A detector's is its coarsest head's.
        """
        stride = self.output.stride
        return max(stride) if isinstance(stride, tuple) else max(1, int(stride))

    @property
    def step(self) -> int:
        """Where tiles may be cut without shifting the output: multiples of this, in pixels."""
        return math.lcm(self.stride, self.input.multiple_of)

    @property
    def cache_key(self) -> str:
        """What of the card changes the network's answer, in one line: part of every cache key."""
        return self.model_dump_json(include={"task", "input", "output", "architecture"})

    def prepare(
        self, pixels: NDArray[Any], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return pixels as the network takes them.

        Parameters
        ----------
        pixels
            ``(h, w, c)`` or ``(h, w)``. Unsigned integers are brought to 0–255 (``uint16 / 257``),
            booleans to 0 and 255; floats and signed integers are taken as they are. What is not
            finite becomes 0. An alpha channel is left out.
        out
            Where to write them, ``(C, h, w)``; a new array by default.

        Returns
        -------
        NDArray[np.float32]
            ``(C, h, w)``, contiguous. ``gray`` is ITU-R 601, for ``uint8`` rounded as in
            Pillow's ``L``.

        Raises
        ------
        UserError
            Where the image has too few channels, or not exactly as many as the card asks for.
        """
        x = self._select_channels(pixels[..., None] if pixels.ndim == 2 else pixels)
        if out is None:
            out = np.empty((x.shape[-1], *x.shape[:2]), np.float32)
        np.copyto(out, np.moveaxis(x, -1, 0), casting="unsafe")
        if x.dtype == bool:
            out *= 255
        elif x.dtype.kind == "u" and x.dtype.itemsize > 1:
            out /= np.float32(np.iinfo(x.dtype).max / 255)
        elif x.dtype.kind == "f":
            np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if self.input.scale != 1:
            out *= np.float32(self.input.scale)
        if any(self.input.mean):
            out -= np.asarray(self.input.mean, np.float32)[:, None, None]
        if any(std != 1 for std in self.input.std):
            out /= np.asarray(self.input.std, np.float32)[:, None, None]
        return out

    def _select_channels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return ``(h, w, C)``, in the image's own numbers."""
        have, want = pixels.shape[-1], self.input.channels
        if isinstance(want, int):
            if have != want:
                raise HrviewerError(
                    f"{self.name} takes {want} channels, the image has {have}: choose the channels"
                )
            return pixels
        if have < 3:  # gray, with or without alpha
            gray = pixels[..., :1]
            return gray if want == "gray" else np.repeat(gray, 3, axis=-1)
        rgb = pixels[..., :3]
        if want == "gray":
            return _luma(rgb)[..., None]
        return rgb[..., ::-1] if want == "bgr" else rgb


def _luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """ITU-R 601 luma; integers of 8 bits are rounded as Pillow does, to stay what it gives."""
    weights = 19595, 38470, 7471
    if rgb.dtype != np.uint8:
        # A boolean is 0 or 1 here, and the luma between them: bring it to 0-255 with the rest.
        full = np.float64(255 if rgb.dtype == bool else 1)
        if rgb.dtype.kind == "u":
            full = np.float64(255 / np.iinfo(rgb.dtype).max)
        r, g, b = (rgb[..., c] * (full * w / 65536) for c, w in enumerate(weights))
        return np.asarray(r + g + b)
    whole = sum(rgb[..., c].astype(np.uint32) * np.uint32(w) for c, w in enumerate(weights))
    return np.asarray((whole + np.uint32(0x8000)) >> np.uint32(16), np.uint8)


def read_json(path: Path) -> object:
    """Return what a JSON file holds; `UserError` where it is missing or is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise HrviewerError(f"{path} is missing: write the network's card there") from None
    except (ValueError, OSError) as error:
        raise HrviewerError(f"{path} cannot be read as JSON ({error}): correct it") from None
