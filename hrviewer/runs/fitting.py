"""A head for codes of any encoder, fitted from given truth in seconds.

Ridge regression of the number of objects in each code's cell: a linear head, whose strength is
chosen by leave-one-out within each fit. How wrong it is on what it was not fitted to is measured
by cross-validation over blocks of cells, since neighbours are alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.models import Card
from hrviewer.pyramid import open_pyramid
from hrviewer.runs.judge import find_truth
from hrviewer.runs.run import Run
from hrviewer.truth import Truth

__all__ = ["Fitted", "fit_head"]

FOLDS = 5
BLOCK = 8
"""Side, in cells, of the blocks that are left out together."""
MOST = 400_000
"""Cells that are fitted to; of more, whole blocks are drawn at random."""
STRENGTHS = np.logspace(-2, 6, 17)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, and how good it is on what it was not fitted to.

    Parameters
    ----------
    path : Path
        Its pack: a folder with the role ``head`` alone.
    cells, objects : int
        What it was fitted to.
    error : float
        Mean absolute error of the count of a block that was left out, over the mean count.
    bias : float
        Of the sum of all of them, over the true sum.
    correlation : float
        Of the counts of blocks with the true ones.
    """

    path: Path
    cells: int
    objects: int
    error: float
    bias: float
    correlation: float


def fit_head(
    run: Run,
    truth: str | Path | Truth,
    out: Path,
    *,
    region: Rect | None = None,
    kind: str | None = None,
) -> Fitted:
    """Fit a head to the codes that a run kept, and write it as a pack.

    Parameters
    ----------
    run : Run
        Of the strategy ``compression``, with or without a head.
    truth : str, Path or Truth
        ``auto`` for a scene's own, a file of points or boxes, or the objects.
    out : Path
        The pack's folder; nothing may be there yet.
    region : Rect, optional
        Where the truth is known, in level-0 pixels; the run's region by default.
    kind : str, optional
        The class that is counted; all objects by default.

    Raises
    ------
    UserError
        If the run kept no codes, there is nothing to fit to, or scikit-learn is missing.
    """
    if out.exists():
        raise UserError(f"{out} exists: choose another place for the head")
    codes, cell, encoder = kept_codes(run)
    objects = truth
    if not isinstance(objects, Truth):
        with open_pyramid(run.header["image"]["path"]) as pyramid:
            objects = find_truth(objects, pyramid)
    if kind is not None:
        if kind not in objects.classes:
            raise UserError(f"the truth knows {', '.join(objects.classes)}, and no {kind!r}")
        objects = objects.only(objects.kinds == objects.classes.index(kind))
    where = run.region if region is None else region & run.region
    inputs, counts, blocks = samples(codes, cell, where, objects)
    if len(np.unique(blocks)) < FOLDS or not counts.any():
        raise UserError(
            f"{counts.sum():.0f} objects in {len(counts)} cells are too few to fit a head to: "
            "give more truth, or a larger region"
        )
    weights, bias = ridge(inputs, counts)
    found, there = left_out(inputs, counts, blocks)
    several = len(objects.classes) > 1
    name = kind or ("object" if several else objects.classes[0])
    fitted = Fitted(
        out,
        len(counts),
        round(float(counts.sum())),
        float(np.abs(found - there).mean() / there.mean()),
        float((found.sum() - there.sum()) / there.sum()),
        float(np.corrcoef(found, there)[0, 1]) if found.std() and there.std() else 0.0,
    )
    write(fitted, weights, bias, name, {"encoder": encoder, "truth": objects.source})
    return fitted


def kept_codes(run: Run) -> tuple[Any, float, str]:
    """Return a run's codes, their cell and what made them."""
    import zarr

    if not (run.path / "codes" / "zarr.json").is_file():
        raise UserError(f"{run.path} holds no codes: run the strategy compression first")
    codes, cell = run.map("codes")
    about: Any = zarr.open_group(run.path / "codes", mode="r").attrs["hrviewer"]
    return codes, cell, str(about["network"])


def samples(
    codes: Any, cell: float, where: Rect, truth: Truth
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return codes ``(n, d)`` of the whole cells in a region, their counts and their blocks."""
    top, left = int(-(-where.y // cell)), int(-(-where.x // cell))
    bottom, right = int(where.y1 // cell), int(where.x1 // cell)
    rows, columns = max(0, bottom - top), max(0, right - left)
    counts = np.zeros((rows, columns))
    at = np.floor(truth.points / cell).astype(np.int64) - (top, left)
    at = at[((at >= 0) & (at < (rows, columns))).all(axis=1)]
    np.add.at(counts, (at[:, 0], at[:, 1]), 1)
    wide = -(-columns // BLOCK)
    part = min(1.0, MOST / max(1, rows * columns))
    drawn = np.random.default_rng(0).random((-(-rows // BLOCK), wide)) < part
    inputs, found, blocks = [], [], []
    for i, line in enumerate(drawn):
        start, stop = i * BLOCK, min(rows, (i + 1) * BLOCK)
        strip = np.asarray(codes[:, top + start : top + stop, left:right], np.float64)
        there = np.isfinite(strip).all(axis=0) & np.repeat(line, BLOCK)[:columns]
        inputs.append(strip[:, there].T)
        found.append(counts[start:stop][there])
        numbers = i * wide + np.arange(columns) // BLOCK
        blocks.append(np.broadcast_to(numbers, there.shape)[there])
    width = int(codes.shape[0])
    return (
        np.concatenate([np.empty((0, width)), *inputs]),
        np.concatenate([np.empty(0), *found]),
        np.concatenate([np.empty(0, np.int64), *blocks]),
    )


def ridge(inputs: Floats, counts: Floats) -> tuple[Floats, float]:
    """Return the weights and the bias of a linear head whose counts, cut off at 0, sum up right."""
    try:
        from sklearn.linear_model import RidgeCV
    except ImportError:
        raise UserError('a head is fitted by scikit-learn: pip install "hrviewer[fit]"') from None
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread[spread == 0] = 1
    model = RidgeCV(STRENGTHS).fit((inputs - mean) / spread, counts)
    weights = np.asarray(model.coef_, np.float64) / spread
    bias = float(model.intercept_) - float(mean @ weights)
    gain = counts.sum() / np.maximum(inputs @ weights + bias, 0).sum()
    return gain * weights, gain * bias


def left_out(inputs: Floats, counts: Floats, blocks: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return what is said of blocks by heads that were not fitted to them, and the truth."""
    from sklearn.model_selection import GroupKFold

    said = np.zeros_like(counts)
    for learned, asked in GroupKFold(FOLDS, shuffle=True, random_state=0).split(
        inputs, counts, blocks
    ):
        weights, bias = ridge(inputs[learned], counts[learned])
        said[asked] = np.maximum(inputs[asked] @ weights + bias, 0)
    _, each = np.unique(blocks, return_inverse=True)
    found, there = np.bincount(each, said), np.bincount(each, counts)
    return found.astype(np.float64), there.astype(np.float64)


def write(fitted: Fitted, weights: Floats, bias: float, name: str, made: dict[str, Any]) -> None:
    """Write a linear head as a pack."""
    from safetensors.numpy import save

    data = save(
        {
            "head.weight": weights.astype(np.float32)[None, :, None, None],
            "head.bias": np.array([bias], np.float32),
        }
    )
    params = {"codes": len(weights), "classes": 1, "widths": []}
    card = Card.of(
        {
            "name": f"{fitted.path.name}-head",
            "title": f"Counts of {name}, fitted to codes",
            "task": "density",
            "architecture": {"name": "code-head", "params": params},
            "input": {"channels": len(weights), "tile": 32},
            "output": {"stride": 1, "halo": 0, "classes": [name]},
            "sha256": hashlib.sha256(data).hexdigest(),
            "training": {**made, "cells": fitted.cells, "objects": fitted.objects},
            "metrics": {
                "what": f"of blocks of {BLOCK} x {BLOCK} cells that were left out: error of the "
                "counts over their mean, bias of their sum, correlation",
                "error": round(fitted.error, 4),
                "bias": round(fitted.bias, 4),
                "correlation": round(fitted.correlation, 4),
            },
        },
        fitted.path,
    )
    role = {
        "weights": "head.safetensors",
        "card": card.model_dump(mode="json", exclude_defaults=True),
    }
    pack = {"name": fitted.path.name, "title": card.title, "roles": {"head": role}}
    fitted.path.mkdir(parents=True)
    (fitted.path / "head.safetensors").write_bytes(data)
    text = json.dumps(pack, indent=2, ensure_ascii=False)
    (fitted.path / "pack.json").write_text(text + "\n", encoding="utf-8")
