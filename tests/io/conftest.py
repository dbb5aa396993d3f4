"""Fixtures for tests of the writers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from made_runs import PLACE, Made, on_earth, table

from hrviewer.io.ome_metadata import create_image


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a run."""

    def make(
        patches: pd.DataFrame | None = None,
        shape: tuple[int, int, int] = (2, 700, 1100),
        pixel_size: tuple[float, float] | None = (0.25, 0.5),
        output: np.ndarray | None = None,
        answer: str = "count",
        geo: bool = False,
    ) -> Made:
        path = tmp_path / "made.run.zarr"
        path.mkdir()
        (table(230) if patches is None else patches).to_parquet(
            path / "patches.parquet", index=False
        )
        shape = shape if output is None else output.shape
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
            array[:] = output if name == "output" and output is not None else values
        size = None if pixel_size is None else list(pixel_size)
        image = tmp_path / "geo" / "a.tif" if geo else "a.svs"
        place = None
        if geo:
            on_earth(image, (shape[1] * 4, shape[2] * 4))
            place = {"crs": "EPSG:32618", "transform": list(PLACE), "metres": 1.0}
        header = {
            "format_version": 1,
            "image": {"path": str(image), "shape": [shape[1] * 4, shape[2] * 4], "levels": 1,
                      "pixel_size": size, "fingerprint": "f00d", "georeference": place},
            "model": "toy", "strategy": "patches", "params": {"tile": 64}, "seed": 0,
            "started": "2026-01-01T00:00:00+00:00", "complete": True,
            "estimate": {"kind": answer, "value": 3.5, "ci95": None, "per_class": {"cell": 3.5}},
            "region": [0, 0, shape[1] * 4, shape[2] * 4], "notes": ["a note"], "truth": None,
            "cost": dict.fromkeys(("flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s",
                                   "bytes_read", "pixels_read"), 1.5),
            "patches": {"planned": 230, "done": 229, "cached": 0, "failed": 1},
            "versions": {"hrviewer": "1.2.3"},
        }  # fmt: skip
        (path / "run.json").write_text(json.dumps(header))
        return Made(path, header)

    return make
