"""Real tissue sections of several sources; of some all nuclei are marked by points.

``index.json`` of the folder lists the sources, their pixel sizes, files and labels, lines of
``row column class``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from hrviewer.errors import GroundTruthError
from hrviewer.ground_truth import GroundTruth
from hrviewer.training.warps import Warp, mass_between, random_warp, warp_pixels
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hrviewer_histology.negatives import cover, negative_field
from hrviewer_histology.stains import make_textures, restain, simulate_camera

__all__ = ["COARSE", "Section", "SectionFields", "UnlabelledSections", "read_sections"]

PIXEL_SIZE = 0.5
"""Of sections as they are read, µm; those of larger pixels stay as they are."""
NUCLEUS_SIDE = 18.0
"""Side of the box that stands for a nucleus, in pixels of 0.5 µm."""
TEXTURES = 48
COARSE = (1.0, 4.5)
"""Range of the reductions of coarse fields: a nucleus is at least three pixels wide."""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A section and its nuclei.

    Attributes
    ----------
    name, source
        File and the source by which data are split: a hospital or laboratory.
    rgb
        Pixels ``(h, w, 3)`` of about 0.5 µm, uint8.
    truth
        All of its nuclei, where they are marked; else none.
    licence
        Of its source.
    """

    name: str
    source: str
    rgb: NDArray[np.uint8]
    truth: GroundTruth
    licence: str = ""


def read_sections(folder: Path, *, labelled: bool = True) -> list[Section]:
    """Read the sections whose nuclei are marked, or all.

    Parameters
    ----------
    folder
        The folder that holds ``index.json``. Sections of The Cancer Genome Atlas are of the source
        that their barcode gives, as ``TCGA-A8``.
    labelled
        Whether those without marks are left out.

    Raises
    ------
    GroundTruthError
        If there is no such list.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise GroundTruthError(f"{folder} has no index.json: give the folder of the sections")
    sources = json.loads(index.read_text(encoding="utf-8"))["sources"]
    listed = [
        (name, source, entry)
        for name, source in sources.items()
        for entry in source["files"]
        if entry.get("label") or not labelled
    ]
    return sorted((_read(folder, *each) for each in listed), key=lambda section: section.name)


def _read(folder: Path, name: str, source: dict[str, str], entry: dict[str, str]) -> Section:
    image = Image.open(folder / entry["file"]).convert("RGB")
    stated = re.search(r"0\.\d+", source.get("um_per_px", ""))
    finer = PIXEL_SIZE / float(stated[0]) if stated else 1.0
    label = entry.get("label", "")
    if not label and finer > 1:
        image = image.resize([round(n / finer) for n in image.size], Image.Resampling.BOX)
    rows = np.loadtxt(folder / label, ndmin=2).reshape(-1, 3) if label else np.empty((0, 3))
    points = rows[:, :2] + 0.5
    boxes = np.hstack([points - NUCLEUS_SIDE / 2, np.full_like(points, NUCLEUS_SIDE)])
    site = re.search(r"TCGA-\w\w", entry["file"])
    truth = GroundTruth(points, ("nucleus",), boxes=boxes, source=label)
    return Section(
        entry["file"],
        site[0] if site else name,
        np.asarray(image),
        truth,
        source.get("licence", ""),
    )


class UnlabelledSections(Dataset[tuple[Tensor]]):
    """Batches of unlabelled fields of sections: ``(n, 3, side, side)``, see `SectionFields`."""

    def __init__(
        self, sections: Sequence[Section], steps: int, seed: int = 0, *, batch: int, side: int
    ) -> None:
        self.fields = SectionFields(sections, steps, seed, batch=batch, negatives=0, side=side)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, step: int) -> tuple[Tensor]:
        """Return the pictures of the fields of this step."""
        return (self.fields[step][0],)


class SectionFields(Dataset[tuple[Tensor, Tensor]]):
    """Batches of restained fields of sections, and hard negatives, with their densities.

    Each is a function of the seed and its number alone.

    Parameters
    ----------
    sections
        What fields are cut from.
    steps, seed
        Number of batches, and random seed.
    batch, negatives
        Fields per batch, and how many more of them are without nuclei (see `negatives`).
    side
        Side of a field, in pixels.
    """

    def __init__(
        self,
        sections: Sequence[Section],
        steps: int,
        seed: int = 0,
        *,
        batch: int = 8,
        negatives: int = 2,
        side: int = 160,
    ) -> None:
        self.sections, self.steps, self.seed = sections, steps, seed
        self.batch, self.negatives, self.side = batch, negatives, side
        self.textures = make_textures(np.random.default_rng(seed), TEXTURES, max(256, side))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images ``(n, 3, side, side)`` from 0 to 1 and densities at a quarter the side."""
        rng = np.random.default_rng((self.seed, step, 2))
        images, densities = [], []
        for _ in range(self.batch):
            image, density, scale = self._field(rng)
            image = restain(image, rng)
            if rng.random() < 0.15:
                covering = negative_field(rng, self.side, self.textures, scale)
                image, density = cover(rng, image, density, covering)
            images.append(image)
            densities.append(density)
        for _ in range(self.negatives):
            scale = float(np.exp(rng.uniform(np.log(0.6), np.log(4))))
            images.append(negative_field(rng, self.side, self.textures, scale))
            densities.append(torch.zeros(1, self.side // 4, self.side // 4))
        return simulate_camera(torch.stack(images), rng), torch.stack(densities)

    def _field(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
        """Return a field at a random scale, its density and the scale: of one section, or more."""
        scales = (0.7, 1.4) if rng.random() < 0.6 else COARSE
        warp = random_warp(rng, self.side, scales)
        whole = np.median([min(section.rgb.shape[:2]) for section in self.sections])
        across = math.ceil(max(warp.sides) / whole)
        cut = np.linspace(0, self.side // 4, across + 1).round().astype(int) * 4
        tiles = [
            [self._cut(rng, warp, top, bottom, left, right) for left, right in pairwise(cut)]
            for top, bottom in pairwise(cut)
        ]
        image, density = (
            torch.cat([torch.cat([tile[k] for tile in row], 2) for row in tiles], 1) for k in (0, 1)
        )
        if rng.random() < 0.5:
            image, density = image.transpose(1, 2), density.transpose(1, 2)
        return image, density, max(warp.sides) / self.side

    def _cut(
        self, rng: np.random.Generator, warp: Warp, top: int, bottom: int, left: int, right: int
    ) -> tuple[Tensor, Tensor]:
        """Return the part of a field between some rows and columns, cut from one section."""
        section = self.sections[rng.integers(len(self.sections))]
        pixels, points = section.rgb, section.truth
        rows, columns = warp.rows[top : bottom + 1], warp.columns[left : right + 1]
        part = Warp(rows - rows[0], columns - columns[0]).limited(*pixels.shape[:2])
        y, x = (
            int(rng.integers(length - extent + 1))
            for length, extent in zip(pixels.shape[:2], part.sides, strict=True)
        )
        h, w = part.sides
        near = pixels[y : y + h, x : x + w]
        finer = part.finest < 1
        if finer:
            # Enlarged smoothly first: means over less than a pixel would be blocks.
            near = np.asarray(
                Image.fromarray(near).resize((2 * w, 2 * h), Image.Resampling.BICUBIC)
            )
        image = warp_pixels(near, part, 0.5 if finer else 1.0) / 255
        bounds = []
        for start, lines, length in ((y, part.rows, h), (x, part.columns, w)):
            cells = start + lines[::4].copy()
            whole = section.rgb.shape[len(bounds)]
            # A nucleus that the section's border cuts counts one.
            cells[0] = -np.inf if start == 0 else cells[0]
            cells[-1] = np.inf if start + length == whole else cells[-1]
            bounds.append(cells)
        density = mass_between(points, *bounds)
        axes = [axis for axis in (1, 2) if rng.random() < 0.5]
        return image.flip(axes), density.flip(axes)
