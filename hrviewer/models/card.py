"""Model cards: inputs and outputs of a network, as JSON that users can write.

A card is data, never code. Nothing here loads weights; a card is validated when its network is
loaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from hrviewer.errors import ModelError, validation_error
from hrviewer.models.accuracy import ModelAccuracy
from hrviewer.models.card_fields import Activation, Architecture, ModelInput, ModelOutput
from hrviewer.models.card_section import CardSection
from hrviewer.models.decode_formats import INSTANCE_DECODES, RELATIVE_DECODES
from hrviewer.models.json_file import read_json
from hrviewer.models.preprocessing import check_channels, prepare_pixels
from hrviewer.objects import MergeSettings

__all__ = ["Activation", "Architecture", "ModelCard", "ModelInput", "ModelOutput", "Task"]

Task = Literal[
    "density", "segmentation", "classification", "multi-label", "regression",
    "detection", "instances", "embedding", "saliency",
]  # fmt: skip
AVERAGED_TASKS: tuple[Task, ...] = ("classification", "multi-label", "regression")
"""Tasks of models with one prediction per tile, of which an estimate is the mean."""


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
        return prepare_pixels(self.name, self.input, pixels, out, value_range)

    def check_channels(self, available: int) -> None:
        """Raise `ModelError` if an image of so many channels cannot be prepared."""
        check_channels(self.name, self.input, available)
