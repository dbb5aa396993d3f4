"""Runs made by hand: exporters are told nothing but a folder and its header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hrviewer.exchange.omezarr import create_image


@dataclass
class Made:
    """A run folder and its header."""

    path: Path
    header: dict[str, Any]


def table(n: int, side: int = 64, columns: int = 100) -> pd.DataFrame:
    """Return `n` patches in rows of `columns`, without scores, the second of them failed."""
    index = np.arange(n)
    rows = pd.DataFrame(
        {
            "id": index,
            "y": index // columns * side,
            "x": index % columns * side,
            "h": side,
            "w": side,
            "scale": np.where(index % 3, 1.0, 2.0),
            "role": np.where(index % 5, "main", "scout"),
            "order": index,
            "score": np.nan,
            "value": index * 0.5,
            "flops": 1e9 + index,
            **{f"{stage}_s": 0.001 for stage in ("read", "prepare", "infer", "post")},
            "bytes": 100.0,
            "pixels": 4096.0,
            "status": "done",
            "error": "",
        }
    )
    if n > 1:
        rows.loc[1, ["value", "status", "error"]] = [np.nan, "failed", "OSError: torn"]
    return rows


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a run."""

    def make(
        patches: pd.DataFrame | None = None,
        shape: tuple[int, int, int] = (2, 700, 1100),
        pixel_size: tuple[float, float] | None = (0.25, 0.5),
    ) -> Made:
        path = tmp_path / "made.run.zarr"
        path.mkdir()
        (table(230) if patches is None else patches).to_parquet(
            path / "patches.parquet", index=False
        )
        rng = np.random.default_rng(0)
        for name, cell, k, labels in (
            ("output", 4, shape[0], ["cell", "stroma"][: shape[0]]),
            ("saliency", 16, 1, []),
            ("cost", 16, 7, list("abcdefg")),
        ):
            size = (k, *(-(-side * 4 // cell) for side in shape[1:]))
            kind = np.float64 if name == "cost" else np.float32
            array = create_image(
                path / name, size, name=name, cell=cell, pixel_size=pixel_size, labels=labels,
                dtype=kind,
            )  # fmt: skip
            values = rng.random(size).astype(kind)
            values[:, : size[1] // 3] = np.nan
            array[:] = values
        size = None if pixel_size is None else list(pixel_size)
        header = {
            "image": {"path": "a.svs", "shape": [shape[1] * 4, shape[2] * 4], "levels": 1,
                      "pixel_size": size, "fingerprint": "f00d"},
            "model": "toy", "strategy": "patches", "params": {"tile": 64}, "seed": 0,
            "started": "2026-01-01T00:00:00+00:00", "complete": True,
            "estimate": {"kind": "count", "value": 3.5, "ci95": None, "per_class": {"cell": 3.5}},
        }  # fmt: skip
        (path / "run.json").write_text(json.dumps(header))
        return Made(path, header)

    return make
