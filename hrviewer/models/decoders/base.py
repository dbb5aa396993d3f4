"""Candidates for objects, and the base class of decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard

__all__ = ["Candidates", "Decoder", "boxes_from_centers", "with_oriented_boxes"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Candidates for objects in one input, in any order, not clipped and with duplicates.

    Attributes
    ----------
    boxes : NDArray[np.float32]
        ``(m, 4)``: y0, x0, y1, x1 in input pixels.
    scores : NDArray[np.float32]
        ``(m,)``, 0 to 1.
    classes : NDArray[np.int64]
        ``(m,)``, indices into the card's classes.
    outline : callable, optional
        Returns the corners ``(c, 2)``, (y, x) in input pixels, of a candidate by its index, where
        objects are no upright boxes.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    outline: Callable[[int], NDArray[np.floating[Any]]] | None = None


class Decoder(ABC):
    """Format of a detector's raw output.

    Attributes
    ----------
    name : str
        Value of a card's ``output.decode``.
    duplicates : bool
        Whether an object has several candidates, which non-maximum suppression reduces to one.
    """

    name: ClassVar[str]
    duplicates: ClassVar[bool] = True

    @abstractmethod
    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the candidates of each input; those below a score may be left out.

        Parameters
        ----------
        outputs
            The network's outputs for inputs of the card's tile size.
        card
            Gives the classes; the tile and the strides, where the output has no absolute positions.
        score_threshold
            Least score.

        Raises
        ------
        ModelError
            If the outputs do not have the shapes of this format.
        """

    def mismatch(self, card: ModelCard, expected: str, outputs: Sequence[Floats]) -> ModelError:
        """Return the error for outputs of other shapes."""
        found = ", ".join(str(output.shape[1:]) for output in outputs)
        return ModelError(
            f"{card.name}: output.decode {self.name!r} with {len(card.classes)} classes reads "
            f"{expected} numbers, but the network gives {found}: correct the card's output.decode "
            "(hrviewer models init suggests one), its classes or its tile"
        )


def boxes_from_centers(xywh: NDArray[Any]) -> Floats:
    """Return boxes y0, x0, y1, x1 for ``(m, 4)`` centres and sizes x, y, w, h."""
    center, half = xywh[:, 1::-1], xywh[:, 3:1:-1] / 2
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)


def with_oriented_boxes(found: Candidates, xywh: NDArray[Any], angle: NDArray[Any]) -> Candidates:
    """Return candidates with the outlines of boxes ``(m, 4)`` rotated by angles in radians.

    Their upright boxes are those around the outlines.
    """
    center, (w, h) = xywh[:, :2], xywh[:, 2:4].T / 2
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = np.stack([w * cos, w * sin], 1), np.stack([-h * sin, h * cos], 1)
    signs = (1, 1), (1, -1), (-1, -1), (-1, 1)
    xy = np.stack([center + a * along + b * across for a, b in signs], axis=1)
    corners = np.asarray(xy[..., ::-1], np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return replace(found, boxes=boxes, outline=corners.__getitem__)
