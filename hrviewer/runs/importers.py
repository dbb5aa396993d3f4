"""Import of other tools' results as runs: WSInfer, TRIDENT and CLAM."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.claims import claim_folder, clear_folder
from hrviewer.engine import InferenceResult
from hrviewer.engine.cost import Cost
from hrviewer.errors import HrviewerError, RunError
from hrviewer.geometry import Patch, Rect
from hrviewer.io.atomic_write import require_new_path
from hrviewer.io.patch_tables import PatchTable, read_patch_table
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid, using_pyramid
from hrviewer.runs.completeness import coverage_percent
from hrviewer.runs.estimates import EstimateDict, estimate_to_dict
from hrviewer.runs.leftovers import is_unfinished
from hrviewer.runs.provenance import image_info, versions
from hrviewer.runs.run import Run
from hrviewer.runs.writer import RunFolderWriter
from hrviewer.strategies import PatchRequest

__all__ = ["import_run"]

BATCH = 512
"""Patches that are painted together."""


def import_run(file: str | Path, image: object, out: str | Path) -> Run:
    """Import another tool's results on an image as a run.

    Parameters
    ----------
    file : str or Path
        A CSV of WSInfer, or an HDF5 of coordinates of TRIDENT or CLAM.
    image : object
        Its image: any input of `hrviewer.open`.
    out : str or Path
        The run folder, ``NAME.run.zarr``; it must not exist.

    Returns
    -------
    Run
        From WSInfer: the probabilities as output, their means as estimate. From coordinates: a
        mask of the patches as output, their area as estimate. The cost is unknown and given as 0.

    Raises
    ------
    HrviewerError
        If the file cannot be read, or belongs to another image.
    """
    path = Path(out).expanduser()
    if not is_unfinished(path):
        require_new_path(path)
    if not path.name.endswith(".run.zarr"):
        raise RunError(f"a run folder is named NAME.run.zarr, not {path.name!r}")
    table = read_patch_table(file)
    with using_pyramid(image) as pyramid, claim_folder(path) as claim:
        check_same_image(table, pyramid, Path(file).name)
        clear_folder(path)  # what a killed import left
        try:
            card = make_card(table)
            writer = RunFolderWriter(
                path, pyramid, card, card.input.tile, 1.0, pyramid.rect, lambda role: "", claim
            )
            for start in range(0, len(table.rects), BATCH):
                part = slice(start, start + BATCH)
                results = [
                    as_patch_result(table, i, pyramid)
                    for i in range(*part.indices(len(table.rects)))
                ]
                patches = tuple(result.patch for result in results)
                scores = tuple(float(result.value.max()) for result in results)
                writer.record.add(PatchRequest("main", patches, "output", scores=scores), results)
            estimate = estimate_to_dict(
                card, compute_estimate(table, writer), None, pyramid.rect, pyramid.pixel_size
            )
            writer.finish(make_header(table, pyramid, Path(file), path, estimate, writer))
        except HrviewerError:
            clear_folder(path)
            raise
    return Run(path)


def check_same_image(table: PatchTable, pyramid: Pyramid, name: str) -> None:
    """Raise an error for patches of another image."""
    h, w = pyramid.plane_shape
    if table.shape is not None and table.shape != (h, w):
        other = f"{table.shape[0]} × {table.shape[1]}"
        raise RunError(f"{name} is of an image of {other} pixels, not of {h} × {w}")
    y, x = table.rects[:, 0], table.rects[:, 1]
    out = (y < 0) | (x < 0) | (y >= h) | (x >= w)
    if out.any():
        raise RunError(
            f"{name} is of another image: {out.sum()} of {len(out)} patches begin outside "
            f"{h} × {w} pixels"
        )


def make_card(table: PatchTable) -> ModelCard:
    """Return the card of the other tool's model."""
    side = int(np.median(table.rects[:, 2:].min(axis=1)))
    scored = table.values is not None
    return ModelCard.model_validate(
        {
            "name": table.tool,
            "task": "classification" if scored else "segmentation",
            "input": {"channels": "rgb", "tile": side},
            "output": {"stride": side, "halo": 0, "classes": list(table.classes) or ["patch"]},
        }
    )


def as_patch_result(table: PatchTable, i: int, pyramid: Pyramid) -> InferenceResult:
    """Return a patch as a result without cost."""
    rect = Rect(*map(int, table.rects[i]))
    values = np.ones(1) if table.values is None else table.values[i]
    box = tuple(map(float, rect.astuple()))
    cells = values.astype(np.float32)[:, None, None]
    return InferenceResult(Patch(rect & pyramid.rect), "main", values, cells, box, Cost())  # type: ignore[arg-type]


def compute_estimate(table: PatchTable, writer: RunFolderWriter) -> Any:
    """Return the means of the probabilities, or the pixels that the patches cover."""
    if table.values is not None:
        return np.nanmean(table.values, axis=0)
    canvas = writer.record.output
    image = writer.pyramid.rect
    covered = 0.0
    for row in range(canvas.values.shape[1]):
        cells = np.nan_to_num(np.asarray(canvas.values[0, row]))
        high = min((row + 1) * canvas.cell, image.h) - row * canvas.cell
        starts = np.arange(len(cells)) * canvas.cell
        covered += float((cells * np.clip(image.w - starts, 0, canvas.cell)).sum() * high)
    return np.array([covered])


def make_header(
    table: PatchTable,
    pyramid: Pyramid,
    file: Path,
    path: Path,
    estimate: EstimateDict | None,
    writer: RunFolderWriter,
) -> dict[str, Any]:
    """Return the run's ``run.json``."""
    costs = ("flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s")
    started = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()
    return {
        "image": image_info(pyramid),
        "region": list(pyramid.rect.astuple()),
        "model": file.name,
        "strategy": table.tool,
        "params": {},
        "seed": 0,
        "priors": {},
        "budget": None,
        "engine": {},
        "rates": None,
        "networks": {},
        "notes": [f"imported from {table.tool}: its cost is not known"],
        "started": started,
        "versions": versions(),
        "run": str(path),
        "device": "",
        "precision": None,
        "truth": None,
        "complete": True,
        "incomplete": None,
        "coverage": coverage_percent(writer.record.coverage),
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
