"""GeoJSON: the patches of a run as tiles that QuPath reads, in level-0 pixels ``(x, y)``.

Rows are read, and features written, a few thousand at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from hrviewer.errors import UserError
from hrviewer.exchange.formats import Exportable

__all__ = ["write"]

COLORS = {
    "main": [253, 231, 37],
    "scanner": [122, 209, 81],
    "scout": [34, 168, 132],
    "head": [42, 120, 142],
    "encoder": [65, 68, 135],
    "transformer": [68, 1, 84],
}
"""One per role, from viridis."""

STAGES = ("read_s", "prepare_s", "infer_s", "post_s")


def write(run: Exportable, target: Path) -> None:
    """Write one feature per patch.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The file.

    Raises
    ------
    UserError
        If the run holds no readable table of patches.
    """
    header = run.header
    # The same run gives the same names, wherever its folder lies.
    parts = header["image"]["fingerprint"], header["strategy"], header["started"]
    names = uuid5(NAMESPACE_URL, "hrviewer:" + "/".join(map(str, parts)))
    about = {key: header[key] for key in ("image", "model", "strategy", "params", "estimate")}
    with target.open("w", encoding="utf-8") as out:
        out.write(f'{{"type": "FeatureCollection", "hrviewer": {json.dumps(about)}, "features": [')
        separator = "\n"
        for row in rows(run.path / "patches.parquet"):
            out.write(separator + json.dumps(feature(row, names), allow_nan=False))
            separator = ",\n"
        out.write("\n]}\n")


def rows(table: Path) -> Iterator[dict[str, Any]]:
    """Yield a table's rows, a batch in memory at a time."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(table)
    except (OSError, ValueError) as error:
        raise UserError(f"{table.parent} holds no readable patches: {error}") from None
    with file:
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


def feature(row: dict[str, Any], names: UUID) -> dict[str, Any]:
    """Return one patch as a feature."""
    y, x, h, w = row["y"], row["x"], row["h"], row["w"]
    ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
    measurements = {
        "value": row["value"],
        "score": row["score"],
        "FLOPs": row["flops"],
        "ms": 1000 * sum(row[stage] for stage in STAGES),
        "order": row["order"],
        "scale": row["scale"],
    }
    role = row["role"]
    return {
        "type": "Feature",
        "id": str(uuid5(names, str(row["id"]))),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "name": f"{role} {row['order']}",
            "classification": {"name": role, "color": COLORS.get(role, [128, 128, 128])},
            # A table's NaN comes as null.
            "measurements": {
                name: value
                for name, value in measurements.items()
                if value is not None and math.isfinite(value)
            },
            "metadata": {"status": row["status"]},
        },
    }
