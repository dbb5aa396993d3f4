"""Annotated fields of a real H&E slide, a stain that no photo has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import tifffile
import torch
from hrviewer.errors import GroundTruthError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.training import density_map
from torch import Tensor
from torch.utils.data import Dataset

from hrviewer_histology.stains import restain, simulate_camera

__all__ = ["AnnotatedField", "AnnotatedFields", "read_annotated_fields"]

ANNOTATIONS_FILE = "cmu_1.json"
MARGIN, SHIFT, BORDER = 16, 16, 4
"""Pixels about a field that are shown with it, by how many it is moved about in them, and how
many at its own border are ignored: unmarked nuclei outside reach in."""
NUCLEUS_SIDE = 20.0
"""Side of the box that stands for a nucleus, in pixels: marks are some pixels off its middle."""


@dataclass(frozen=True, slots=True)
class AnnotatedField:
    """A field ``(3, h, w)`` with its surroundings, and the nuclei in it."""

    rgb: Tensor
    """From 0 to 1; the field itself is `known`."""
    annotated_rect: Rect
    truth: GroundTruth


def read_annotated_fields(data: Path) -> list[AnnotatedField]:
    """Read the slide, from the folder of data or ``wsi`` beside it, and cut its marked fields.

    Raises
    ------
    UserError
        Where there is no such slide.
    """
    marks = json.loads(files(__package__).joinpath(ANNOTATIONS_FILE).read_text(encoding="utf-8"))
    name, side = marks["slide"], int(marks["side"])
    path = next((p for p in (data / name, data.parent / "wsi" / name) if p.is_file()), None)
    if path is None or hashlib.sha256(path.read_bytes()).hexdigest() != marks["sha256"]:
        raise GroundTruthError(f"{name}, whose fields were marked, is not in {data}: put it there")
    slide = tifffile.imread(path, key=0)
    pad = MARGIN + SHIFT
    fields = []
    for mark in marks["fields"]:
        top, left = mark["y"] - pad, mark["x"] - pad
        rgb = slide[top : top + side + 2 * pad, left : left + side + 2 * pad]
        points = np.array(mark["nuclei"], np.float64).reshape(-1, 2) - (top, left) + 0.5
        boxes = np.hstack([points - NUCLEUS_SIDE / 2, np.full_like(points, NUCLEUS_SIDE)])
        fields.append(
            AnnotatedField(
                torch.from_numpy(rgb).permute(2, 0, 1).float() / 255,
                Rect(pad, pad, side, side).pad(-BORDER),
                GroundTruth(points, ("nucleus",), boxes=boxes, source=f"{name}, by eye"),
            )
        )
    return fields


class AnnotatedFields(Dataset[tuple[Tensor, Tensor]]):
    """Batches of marked fields and their densities, NaN where nothing was marked.

    Parameters
    ----------
    fields
        What is drawn from.
    steps, seed, batch
        As of `Fields`.
    side
        Side of the crop around a field, in pixels.
    """

    def __init__(
        self,
        fields: Sequence[AnnotatedField],
        steps: int,
        seed: int = 0,
        *,
        batch: int = 2,
        side: int = 160,
    ) -> None:
        self.fields, self.steps, self.seed = fields, steps, seed
        self.batch, self.side = batch, side

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images ``(n, 3, side, side)`` from 0 to 1 and densities at a quarter the side."""
        rng = np.random.default_rng((self.seed, step, 1))
        images, densities = [], []
        for number in rng.integers(len(self.fields), size=self.batch):
            image, there = self._crop(self.fields[number], rng)
            axes = [axis for axis in (1, 2) if rng.random() < 0.5]
            image, there = image.flip(axes), there.flip(axes)
            if rng.random() < 0.5:
                image, there = image.transpose(1, 2), there.transpose(1, 2)
            images.append(restain(image, rng) if rng.random() < 0.5 else image)
            densities.append(there)
        return simulate_camera(torch.stack(images), rng), torch.stack(densities)

    def _crop(self, field: AnnotatedField, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        room = field.rgb.shape[1] - self.side
        y, x = (4 * int(rng.integers(room // 4 + 1)) for _ in range(2))
        rect = Rect(y, x, self.side, self.side)
        there = density_map(field.truth, rect, 4)
        visible = field.annotated_rect & rect
        known = torch.zeros(there.shape[1:], dtype=torch.bool)
        known[
            (visible.y - y) // 4 : (visible.y1 - y) // 4,
            (visible.x - x) // 4 : (visible.x1 - x) // 4,
        ] = True
        image = field.rgb[:, y : y + self.side, x : x + self.side]
        return image, torch.where(known, there, torch.nan)
