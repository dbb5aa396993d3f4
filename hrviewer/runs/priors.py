"""Prior maps from files: the predictions of another run, or an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid import open_pyramid
from hrviewer.runs.run import Run

__all__ = ["as_priors", "predicted_density", "prior_sources"]

MAX_SIDE = 1024
"""Cells along the longer side of a prior map that is made of a larger one."""


def as_priors(values: Mapping[str, Any]) -> dict[str, NDArray[np.floating]]:
    """Return prior maps as arrays.

    Parameters
    ----------
    values : mapping
        By name: arrays ``(rows, columns)`` over the whole image; runs or their folders, for their
        predictions; images or their paths, for their brightness.

    Raises
    ------
    HrviewerError
        If a file cannot be read.
    """
    return {name: _as_prior(value) for name, value in values.items()}


def prior_sources(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the places of those prior maps that `as_priors` reads from files, by name."""
    return {
        name: _absolute(value.path if isinstance(value, Run) else value)
        for name, value in values.items()
        if isinstance(value, str | Path | Run)
    }


def _absolute(place: str | Path) -> str:
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else str(place)  # a URL stays as it is


def _as_prior(value: Any) -> NDArray[np.floating]:
    if isinstance(value, str | Path) and str(value).rstrip("/").endswith(".run.zarr"):
        value = Run(value)
    if isinstance(value, Run):
        return predicted_density(value)
    if isinstance(value, str | Path):
        with open_pyramid(str(value)) as pyramid:
            scale = max(1.0, max(pyramid.plane_shape) / MAX_SIDE)
            pixels = pyramid.read(pyramid.rect, scale)[..., :3].astype(np.float32)
        return np.asarray(pixels.mean(axis=2))
    return np.asarray(value)


def predicted_density(run: Run) -> NDArray[np.float32]:
    """Return the predictions of a run, over all classes, in at most `MAX_SIDE` cells a side."""
    array, _ = run.map("output")
    _, rows, columns = array.shape
    n = max(1, math.ceil(max(rows, columns) / MAX_SIDE))
    density = np.zeros((-(-rows // n), -(-columns // n)), np.float32)
    wide = np.zeros((n, density.shape[1] * n), np.float32)
    for i in range(len(density)):
        strip = np.nan_to_num(np.asarray(array[:, i * n : (i + 1) * n])).sum(axis=0)
        wide[:] = 0
        wide[: strip.shape[0], :columns] = strip
        density[i] = wide.reshape(n, -1, n).sum(axis=(0, 2))
    return density
