"""Totals of a batch's images by folder, for its table, its report and the window."""

from __future__ import annotations

import math
from pathlib import PurePosixPath, PureWindowsPath

import pandas as pd
from pandas.api.types import is_numeric_dtype

from hrviewer.units import AREA_UNITS

__all__ = ["folder_of", "folder_totals", "quantities"]

ALL = "all"
"""Name of the last row of several."""

ANSWERS = ("count_", "fraction_", "probabilities_", "mean_")
"""Beginnings of columns with a number for each class."""

FURTHER = ("difference", "coverage", "seconds")


def folder_of(image: str) -> str:
    """Return the folder of an image's path or URL.

    Examples
    --------
    >>> folder_of("/slides/liver/1.svs"), folder_of("s3://bucket/a.tif"), folder_of("a.png")
    ('/slides/liver', 's3://bucket', '.')
    """
    if image.startswith("sample:"):
        return "sample:"
    if "://" in image:
        return image.rpartition("/")[0]
    return str((PureWindowsPath if "\\" in image else PurePosixPath)(image).parent)


def folder_totals(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the images of each folder give together, and all of them if there are several.

    Parameters
    ----------
    table : DataFrame
        A batch's table.

    Returns
    -------
    DataFrame
        A row per folder:

        ========================= ===============================================================
        column                    meaning
        ========================= ===============================================================
        ``folder``                of the images
        ``images``, ``done``,     numbers of images
        ``failed``
        ``total``                 sum of the counts of the images that are done; NaN of other kinds
        ``total_low``,            95 % interval for the total of exhaustive inference, from those
        ``total_high``            of the images as independent; NaN if one of them has none
        ``mean``, ``sd``          mean and standard deviation of the images' estimates; NaN of
                                  probabilities of several classes
        ``area_px2``              sum of their areas, level-0 pixels
        ``seconds``               sum of their seconds
        ========================= ===============================================================

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"image": ["a/1.png", "a/2.png"], "status": "done", "estimate": [10.0, 20.0],
    ...      "count": [10.0, 20.0], "ci95_low": [7.0, 16.0], "ci95_high": [13.0, 24.0],
    ...      "area_px2": 9.0, "seconds": 1.0}
    ... )
    >>> folder_totals(table)[["total", "total_low", "total_high"]].values.tolist()
    [[30.0, 25.0, 35.0]]
    """
    folders = table["image"].map(folder_of)
    rows = [{"folder": name, **totals(group)} for name, group in table.groupby(folders, sort=False)]
    if len(rows) > 1:
        rows.append({"folder": ALL, **totals(table)})
    return pd.DataFrame(rows)


def totals(table: pd.DataFrame) -> dict[str, float]:
    """Return the totals of a table's images."""
    done = table[table["status"] == "done"]
    counts = "count" in done and bool(done["count"].notna().all())
    total = float(done["estimate"].sum()) if counts and len(done) else math.nan
    exhaustive = done.get("exhaustive", pd.Series(False, done.index)).eq(True)
    # Of several classes the estimate is that of the likeliest, another one on each image.
    several = sum(name.startswith("probabilities_") for name in map(str, done)) > 1
    estimates = pd.Series(dtype=float) if several else done["estimate"]
    return {
        "images": len(table),
        "done": len(done),
        "failed": int((table["status"] == "failed").sum()),
        "total": total,
        "total_low": total - root_of_squares(done["estimate"] - done["ci95_low"], exhaustive),
        "total_high": total + root_of_squares(done["ci95_high"] - done["estimate"], exhaustive),
        "mean": float(estimates.mean()),
        "sd": float(estimates.std()),
        "area_px2": float(done["area_px2"].sum()),
        "seconds": float(done["seconds"].sum()),
    }


def root_of_squares(halves: pd.Series, exhaustive: pd.Series) -> float:
    """Return the half-width of a sum; exhaustive inference has none, and one unknown is NaN."""
    widths = halves.astype(float).mask(exhaustive, 0.0)
    return math.sqrt((widths**2).sum(skipna=False))


def quantities(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns of numbers by which a batch's images can be compared, with their names.

    The first is the one to compare images by: a density where there is one, as images differ in
    size.

    Examples
    --------
    >>> table = pd.DataFrame({"status": ["done"], "count": [9.0], "per_mm2": [4.5], "seconds": [1]})
    >>> quantities(table)
    {'per_mm2': 'per mm²', 'count': 'count', 'seconds': 'seconds'}
    """
    done = table[table["status"] == "done"]
    known = [
        name for name in map(str, done) if is_numeric_dtype(done[name]) and done[name].notna().any()
    ]
    densities = {f"per_{key}": f"per {unit}" for key, (unit, _) in AREA_UNITS.items()}
    answers = [name for name in known if name == "count" or name.startswith(ANSWERS)]
    named = densities | {name: name.replace("_", " ") for name in [*answers, *FURTHER]}
    return {name: title for name, title in named.items() if name in known}
