"""Labelled training photos: pixels and nuclei."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from hrviewer.errors import GroundTruthError
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Photo", "read_photos", "shrink"]


MIN_VISIBLE_MASS = 0.01
"""Fraction of its mass from which a nucleus counts as visible."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo with its nuclei."""

    name: str
    count: int
    diameter: float
    """Of the median nucleus, in pixels."""
    layers: Tensor
    """``(5, h, w)``: red, green, blue from 0 to 1, the density, and the mask of all nuclei.

    The mask fades towards each nucleus' own rim: where two touch, the seam must stay visible.
    """
    labels: Tensor
    """``(h, w)``: which nucleus, from 1; 0 between them."""

    def crop(self, y: int, x: int, h: int, w: int) -> Tensor:
        """Return the layers of a crop ``(5, h, w)``, in which every visible nucleus counts 1.

        As in the whole photo: a nucleus cut by the border is labelled, and counted, like any other,
        so the network counts it as one.
        """
        piece = self.layers[:, y : y + h, x : x + w].clone()
        labels = self.labels[y : y + h, x : x + w]
        visible = torch.bincount(labels.ravel(), piece[3].ravel(), self.count + 1)
        piece[3] *= torch.where(
            visible > MIN_VISIBLE_MASS, 1 / visible.clamp(min=MIN_VISIBLE_MASS), 0
        )[labels]
        return piece


def read_photos(folder: Path, split: str) -> list[Photo]:
    """Read the photos of one split (``train``, ``val``) that ``index.csv`` lists.

    Raises
    ------
    UserError
        Where there is no such list.
    """
    if not (folder / "index.csv").is_file():
        raise GroundTruthError(
            f"{folder} holds no index.csv: give the folder of the labelled photos"
        )
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [_read_photo(folder, row["name"], int(row["nuclei"])) for row in rows]


def _read_photo(folder: Path, name: str, count: int) -> Photo:
    rgb = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"), np.float32) / 255
    labels = tifffile.imread(folder / f"{name}.labels.tif")
    # Every nucleus has mass 1, more of it towards its middle, all of it inside the photo.
    mass, mask = np.zeros((2, *labels.shape), np.float32)
    numbers = np.zeros(labels.shape, np.int64)
    areas = []
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is not None:
            inside = np.pad(labels[window] == label, 1)
            depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
            mass[window] += depth / depth.sum()
            mask[window] += np.clip(depth / max(1.5, 0.25 * depth.max()), 0, 1)
            areas.append(inside.sum())
            numbers[window][inside[1:-1, 1:-1]] = len(areas)
    if len(areas) != count:
        raise ValueError(f"{name}: {len(areas)} nuclei are labelled, but the index has {count}")
    layers = np.stack([*np.moveaxis(rgb, -1, 0), mass, mask])
    diameter = float(np.sqrt(4 / np.pi * np.median(areas)))
    return Photo(name, count, diameter, torch.from_numpy(layers), torch.from_numpy(numbers))


def shrink(rgb: Tensor, factor: int) -> Tensor:
    """Average blocks of ``factor²`` pixels of ``(…, h, w)``, as a pyramid's coarser level does."""
    return rgb if factor == 1 else F.avg_pool2d(rgb, factor)
