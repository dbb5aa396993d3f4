"""Runs made by hand: exporters are told nothing but a folder and its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


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
