"""Patch tables of other tools: WSInfer's predictions, TRIDENT's and CLAM's coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError, RunError, short_message
from hrviewer.io.csv_file import read_csv_file

__all__ = ["SUFFIXES", "PatchTable", "read_patch_table"]

SUFFIXES = (".csv", ".h5", ".hdf5")

RECT_COLUMNS = ("minx", "miny", "width", "height")
PROBABILITY_PREFIX = "prob_"

MAX_PATCHES = 20_000_000
"""Of one image; a compressed table of more can be small."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchTable:
    """Patches, and optionally predictions, of another inference tool.

    Parameters
    ----------
    tool : str
        ``wsinfer``, ``trident`` or ``clam``.
    rects : ndarray of int, shape (n, 4)
        ``(y, x, h, w)`` of each patch, level-0 pixels, in file order.
    classes : tuple of str
        Names of the predicted classes; empty for coordinates alone.
    values : ndarray of float, shape (n, k), optional
        Predicted probabilities.
    shape : tuple of int, optional
        Height and width of the image, if the file has them.
    """

    tool: str
    rects: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    values: NDArray[np.float64] | None = None
    shape: tuple[int, int] | None = None


def read_patch_table(path: str | Path) -> PatchTable:
    """Read the patches of one image.

    WSInfer's CSV has ``minx, miny, width, height`` in level-0 pixels and a column ``prob_CLASS``
    for each class. TRIDENT's and CLAM's HDF5 have ``coords``, ``(x, y)`` in level-0 pixels, with
    the patch size in its attributes.

    Parameters
    ----------
    path : str or Path
        CSV or HDF5 file.

    Raises
    ------
    HrviewerError
        If the file is missing, damaged or of another format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise RunError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RunError(
            f"{path.name} is not a patch table: choose a file ending in {', '.join(SUFFIXES)}"
        )
    table = read_wsinfer(path) if suffix == ".csv" else read_hdf5(path)
    if not len(table.rects):
        raise RunError(f"{path.name} contains no patches")
    if (table.rects[:, 2:] < 1).any():
        raise RunError(f"{path.name} contains patches of size 0")
    return table


def read_wsinfer(path: Path) -> PatchTable:
    """Read a table written by WSInfer."""
    table = read_csv_file(path, RunError)
    named = [column for column in table if str(column).startswith(PROBABILITY_PREFIX)]
    if not set(RECT_COLUMNS) <= set(table) or not named:
        raise RunError(
            f"{path.name} is not a result of WSInfer: it needs the columns "
            f"{', '.join(RECT_COLUMNS)} and prob_CLASS"
        )
    try:
        places = table[list(RECT_COLUMNS)].to_numpy(np.float64)
        values = table[named].to_numpy(np.float64)
    except ValueError as error:
        raise RunError(
            f"{path.name} contains a value that is not a number: {short_message(error)}"
        ) from None
    if not np.isfinite(places).all():
        raise RunError(f"{path.name} contains coordinates that are not numbers")
    rects = np.rint(places[:, [1, 0, 3, 2]]).astype(np.int64)
    classes = tuple(str(name).removeprefix(PROBABILITY_PREFIX) for name in named)
    return PatchTable("wsinfer", rects, classes, values)


def read_hdf5(path: Path) -> PatchTable:
    """Read coordinates written by TRIDENT or CLAM."""
    try:
        import h5py
    except ImportError:
        raise HrviewerError("HDF5 needs h5py: pip install 'hrviewer[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            if "coords" not in file:
                raise RunError(f"{path.name} has no dataset coords, as TRIDENT and CLAM write")
            coords = read_coords(file)
            about: dict[str, Any] = dict(file["coords"].attrs)
        return as_patch_table(path.name, coords, about)
    except HrviewerError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise RunError(f"{path.name} is not a readable HDF5 file: {short_message(error)}") from None


def read_coords(file: Any) -> NDArray[Any]:
    """Return the dataset ``coords``, if its numbers are in the file itself, and bounded.

    Raises
    ------
    ValueError
        If it is a link, or takes its numbers from another file.
    """
    import h5py

    found = file["coords"] if isinstance(file.get("coords", getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise ValueError("coords is no dataset of the file itself")
    if found.dtype.kind not in "iuf" or found.ndim not in (2, 3) or found.shape[-1] != 2:
        raise ValueError(f"coords is {found.dtype} of shape {found.shape}, not pairs of numbers")
    if found.size > 2 * MAX_PATCHES:
        raise ValueError(f"it has more than {MAX_PATCHES:,} patches")
    coords = np.asarray(found[()])
    if not np.isfinite(coords).all():
        raise ValueError("it contains coordinates that are not numbers")
    return coords


def as_patch_table(name: str, coords: NDArray[Any], about: dict[str, Any]) -> PatchTable:
    """Return the patches of TRIDENT's or CLAM's coordinates and their attributes."""
    # TRIDENT's feature files have one more axis.
    coords = coords.reshape(-1, 2)
    trident = "patch_size_level0" in about
    if trident:
        side = float(about["patch_size_level0"])
    elif "patch_size" in about:
        side = float(about["patch_size"]) * float(np.max(about.get("downsample", 1.0)))
    else:
        raise RunError(f"{name} has no patch size: choose TRIDENT's or CLAM's coordinates")
    sides = np.full((len(coords), 2), round(side))
    shape = None
    if trident and "level0_height" in about and "level0_width" in about:
        shape = int(about["level0_height"]), int(about["level0_width"])
    rects = np.hstack([np.rint(coords[:, ::-1]), sides]).astype(np.int64)
    return PatchTable("trident" if trident else "clam", rects, shape=shape)
