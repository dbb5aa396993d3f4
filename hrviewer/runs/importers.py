"""Runs of other tools, to look at and compare: WSInfer's results, TRIDENT's and CLAM's patches."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.engine import Seen
from hrviewer.engine.cost import Charge
from hrviewer.errors import UserError
from hrviewer.geometry import Patch, Rect
from hrviewer.io.atomic_write import free
from hrviewer.io.patch_tables import Tiling, read_tiling
from hrviewer.models import Card
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.estimates import describe
from hrviewer.runs.run import Run
from hrviewer.runs.runner import image_of, versions
from hrviewer.runs.writer import RunWriter
from hrviewer.strategies import Look

__all__ = ["import_run"]

ROUND = 512
"""Patches that are painted together."""


def import_run(file: str | Path, image: object, out: str | Path) -> Run:
    """Make a run of what another tool wrote of an image.

    Parameters
    ----------
    file : str or Path
        WSInfer's CSV, or the HDF5 of TRIDENT's or CLAM's coordinates.
    image : object
        The image that it speaks of, as `hrviewer.open` takes it.
    out : str or Path
        The run's folder, ``NAME.run.zarr``; nothing may be there yet.

    Returns
    -------
    Run
        Its patches; of WSInfer's the probabilities as its output, and their means as its answer;
        of coordinates, where there are patches, and which part of the image they cover. What it
        cost is not known: it is 0.

    Raises
    ------
    UserError
        If the file cannot be read, or is of another image.
    """
    path = free(out)
    if not path.name.endswith(".run.zarr"):
        raise UserError(f"a run's folder is called NAME.run.zarr, not {path.name!r}")
    tiling = read_tiling(file)
    with open_pyramid(image) as pyramid:
        check(tiling, pyramid, Path(file).name)
        card = card_of(tiling)
        writer = RunWriter(path, pyramid, card, card.input.tile, 1.0, pyramid.rect, lambda role: "")
        for start in range(0, len(tiling.rects), ROUND):
            part = slice(start, start + ROUND)
            seen = [as_seen(tiling, i, pyramid) for i in range(*part.indices(len(tiling.rects)))]
            scores = tuple(float(look.value.max()) for look in seen)
            look = Look("main", tuple(s.patch for s in seen), "output", scores=scores)
            writer.record.add(look, seen)
        estimate = describe(card, answer(tiling, writer), None, pyramid.rect, pyramid.pixel_size)
        writer.finish(header(tiling, pyramid, Path(file), path, estimate, writer))
    return Run(path)


def check(tiling: Tiling, pyramid: Pyramid, name: str) -> None:
    """Refuse patches of another image."""
    h, w = pyramid.shape
    if tiling.shape is not None and tiling.shape != (h, w):
        theirs = f"{tiling.shape[0]} × {tiling.shape[1]}"
        raise UserError(f"{name} is of an image of {theirs} pixels, not of {h} × {w}")
    y, x = tiling.rects[:, 0], tiling.rects[:, 1]
    out = (y < 0) | (x < 0) | (y >= h) | (x >= w)
    if out.any():
        raise UserError(
            f"{name} is of another image: {out.sum()} of {len(out)} patches begin outside "
            f"{h} × {w} pixels"
        )


def card_of(tiling: Tiling) -> Card:
    """Return what the other tool's network gave."""
    side = int(np.median(tiling.rects[:, 2:].min(axis=1)))
    scored = tiling.values is not None
    return Card.model_validate(
        {
            "name": tiling.tool,
            "task": "classification" if scored else "segmentation",
            "input": {"channels": "rgb", "tile": side},
            "output": {"stride": side, "halo": 0, "classes": list(tiling.classes) or ["patch"]},
        }
    )


def as_seen(tiling: Tiling, i: int, pyramid: Pyramid) -> Seen:
    """Return a patch as something that was seen, for nothing."""
    rect = Rect(*map(int, tiling.rects[i]))
    said = np.ones(1) if tiling.values is None else tiling.values[i]
    box = tuple(map(float, rect.astuple()))
    cells = said.astype(np.float32)[:, None, None]
    return Seen(Patch(rect & pyramid.rect), "main", said, cells, box, Charge())  # type: ignore[arg-type]


def answer(tiling: Tiling, writer: RunWriter) -> Any:
    """Return the means of the probabilities, or the pixels that patches cover."""
    if tiling.values is not None:
        return np.nanmean(tiling.values, axis=0)
    canvas = writer.record.output
    image = writer.pyramid.rect
    covered = 0.0
    for row in range(canvas.values.shape[1]):
        cells = np.nan_to_num(np.asarray(canvas.values[0, row]))
        high = min((row + 1) * canvas.cell, image.h) - row * canvas.cell
        starts = np.arange(len(cells)) * canvas.cell
        covered += float((cells * np.clip(image.w - starts, 0, canvas.cell)).sum() * high)
    return np.array([covered])


def header(
    tiling: Tiling,
    pyramid: Pyramid,
    file: Path,
    path: Path,
    estimate: dict[str, Any] | None,
    writer: RunWriter,
) -> dict[str, Any]:
    """Return the run's ``run.json``."""
    costs = ("flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s")
    started = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()
    return {
        "image": image_of(pyramid),
        "region": list(pyramid.rect.astuple()),
        "model": file.name,
        "strategy": tiling.tool,
        "params": {},
        "seed": 0,
        "hints": {},
        "budget": None,
        "engine": {},
        "rate": None,
        "networks": {},
        "notes": [f"made by {tiling.tool}: what it cost is not known"],
        "started": started,
        "versions": versions(),
        "run": str(path),
        "device": "",
        "precision": None,
        "truth": None,
        "complete": True,
        "estimate": estimate,
        "cost": {
            **dict.fromkeys(costs, 0.0),
            **dict.fromkeys(("bytes_read", "pixels_read"), 0),
            **dict.fromkeys(("peak_rss_bytes", "peak_device_bytes")),
        },
        "spent": {"flops": 0.0, "wall_s": 0.0},
        "setup_s": 0.0,
        "patches": writer.record.counts(),
    }
