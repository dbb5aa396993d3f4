"""Tissue of an image: its outline, found on a coarse level.

In bright-field colours tissue is what absorbs light or is coloured, as the built-in saliency
``@foreground`` measures it. In other images it is what is brighter than the background, by Otsu's
threshold (*A Threshold Selection Method from Gray-Level Histograms*, IEEE Transactions on Systems,
Man, and Cybernetics, 1979). Places without data are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ImageReadError
from hrviewer.geometry import Rect
from hrviewer.io.region_files import read_regions
from hrviewer.io.run_features import trace_outlines
from hrviewer.models.builtin_saliency import Foreground
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region, cell_areas

__all__ = [
    "TissueLike",
    "TissueMask",
    "find_tissue",
    "mask_of_tissue",
    "resolve_tissue",
    "tissue_of_mask",
]

TissueLike = Literal["auto", "off"] | str | Path | Region | None
"""How the tissue of a run is chosen: found, not at all, from a file, or given."""

MAX_CELLS = 2048
"""Cells of the mask along the image's longer side, at most."""

CELL_UM = 4.0
"""Side of a cell where the pixel size is known, unless there were more than `MAX_CELLS`."""

STRIDE = 4
"""Pixels that are read per cell, along each axis."""

LEAST_CELLS = 12
"""Cells of tissue, or of a gap in it, that are not taken for dirt or noise."""

LEAST_UM2 = 2500.0
"""The same as an area, where the pixel size is known and cells are small."""

SMOOTHING_UM = 8.0
"""Standard deviation by which the likelihood of tissue is smoothed, as far as cells are small."""

BAND = 64
"""Rows of cells that are read at once."""

Floats = NDArray[np.float32]


def resolve_tissue(pyramid: Pyramid, tissue: TissueLike) -> Region | None:
    """Return the tissue of a run: found in the image, read from a file, or none to leave out.

    Raises
    ------
    HrviewerError
        If none is found, or the file cannot be read.
    """
    if tissue is None or tissue == "off":
        return None
    if isinstance(tissue, Region):
        return Region(tissue.name, tissue.shape, "tissue")
    if tissue == "auto":
        return find_tissue(pyramid)
    drawn = read_regions(
        tissue, pyramid.path or pyramid.name, pyramid.plane_shape, pyramid.georeference
    )
    return Region("tissue", Region.union(drawn).shape, "tissue")


def find_tissue(pyramid: Pyramid) -> Region:
    """Find the tissue of an image, or what stands out from its background in other images.

    Parameters
    ----------
    pyramid : Pyramid
        The image.

    Returns
    -------
    Region
        Its outline, to a cell's precision: 4 µm, or the image's longer side over 2048 where that
        is more. Small gaps are filled, and small specks are left out.

    Raises
    ------
    HrviewerError
        If there is none.

    Examples
    --------
    >>> pixels = np.full((200, 300, 3), 245, np.uint8)
    >>> pixels[40:120, 60:160] = (180, 60, 140)
    >>> with hrviewer.open(pixels) as pyramid:
    ...     tissue = find_tissue(pyramid)
    >>> 7500 < tissue.area < 8500  # the square has 8000
    True
    """
    from skimage.filters import gaussian, median
    from skimage.morphology import remove_small_holes, remove_small_objects

    side = cell_side(pyramid)
    likely, known = read_cells(pyramid, side)
    if not (pyramid.is_rgb or pyramid.channels == 3):
        likely = above_background(likely, known)
    least = LEAST_CELLS
    cell_um = None if pyramid.pixel_size is None else side * min(pyramid.pixel_size)
    if cell_um is not None and cell_um < SMOOTHING_UM:
        likely = np.asarray(gaussian(likely, SMOOTHING_UM / cell_um), np.float32)
        least = max(least, round(LEAST_UM2 / cell_um**2))
        inside = likely >= 0.5
    else:
        inside = median(likely, np.ones((3, 3))) >= 0.5
    inside = remove_small_objects(inside & known, max_size=least - 1)
    inside = remove_small_holes(inside, max_size=least - 1) & known
    # A contour through the likelihood where it is near the border, not through steps.
    smooth = np.where(inside, np.maximum(likely, 0.5), np.minimum(likely, np.float32(0.499)))
    polygons = [
        rings
        for rings, _ in trace_outlines(np.where(known, smooth, 0), 0.5, side, additive=False)
        if len(rings[0]) > 2
    ]
    if not polygons:
        raise ImageReadError(
            f"no tissue was found in {pyramid.name}: draw its outline, or choose tissue=off"
        )
    found = Region.from_polygons(polygons, "tissue", "tissue")
    clipped = found.clip(pyramid.rect)
    return found if clipped is None else clipped


def cell_side(pyramid: Pyramid) -> float:
    """Return the side of the mask's cells, level-0 pixels."""
    coarsest = max(pyramid.plane_shape) / MAX_CELLS
    if pyramid.pixel_size is not None:
        coarsest = max(coarsest, CELL_UM / min(pyramid.pixel_size))
    return float(max(STRIDE, 2 ** np.ceil(np.log2(coarsest) - 1e-2)))


def read_cells(pyramid: Pyramid, side: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return how surely each cell is tissue, or its brightness, and whether it has data."""
    height, width = pyramid.plane_shape
    foreground, likely, known = Foreground("@foreground"), [], []
    band = int(BAND * side)
    for top in range(0, height, band):
        rect = Rect(top, 0, min(band, height - top), width)
        pixels, coverage = pyramid.read_with_coverage(rect, side / STRIDE)
        has_data = np.ones(pixels.shape[:2], bool) if coverage is None else coverage > 0
        colour = pyramid.is_rgb or pixels.shape[2] == 3
        values = pixels.astype(np.float32)
        padding = [(0, -n % STRIDE) for n in pixels.shape[:2]]
        values = np.pad(values, [*padding, (0, 0)], mode="edge")
        if colour:
            likely.append(foreground.saliency(np.moveaxis(values[..., :3], 2, 0)[None])[0])
        else:
            blocks = values.mean(axis=2).reshape(
                values.shape[0] // STRIDE, STRIDE, values.shape[1] // STRIDE, STRIDE
            )
            likely.append(blocks.mean(axis=(1, 3)))
        some = np.pad(has_data, padding)
        known.append(some.reshape(some.shape[0] // STRIDE, STRIDE, -1, STRIDE).any(axis=(1, 3)))
    return np.concatenate(likely), np.concatenate(known)


def above_background(brightness: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return 0 to 1 over brightness, 0.5 at Otsu's threshold of its logarithm."""
    from skimage.filters import threshold_otsu

    values = np.log1p(np.maximum(brightness - brightness[known].min(initial=0.0), 0))
    if not known.any() or np.ptp(values[known]) == 0:
        return np.ones_like(values)
    threshold = threshold_otsu(values[known])
    return np.asarray(np.clip(values / (2 * threshold), 0, 1), np.float32)


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue as cells that can be edited.

    Parameters
    ----------
    region : Region
        The tissue.
    cells : ndarray of bool, shape (rows, columns)
        The cells of which at least half is tissue.
    side : float
        Side of a cell, level-0 pixels.
    """

    region: Region
    cells: NDArray[np.bool_]
    side: float


def mask_of_tissue(tissue: Region, image: Rect) -> TissueMask:
    """Return the cells of tissue, of at most `MAX_CELLS` along the longer side."""
    side = float(max(STRIDE, 2 ** np.ceil(np.log2(max(image.h, image.w) / MAX_CELLS))))
    ys, xs = (np.arange(-(-length // side) + 1) * side for length in (image.h, image.w))
    return TissueMask(tissue, cell_areas(tissue, ys, xs) >= side**2 / 2, side)


def tissue_of_mask(cells: NDArray[np.bool_], side: float, image: Rect) -> Region:
    """Return the tissue that a mask covers, cell by cell.

    Raises
    ------
    HrviewerError
        If there is none.
    """
    import shapely

    changes = np.diff(np.pad(cells.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(changes == 1)
    _, ends = np.nonzero(changes == -1)
    boxes = shapely.box(starts * side, rows * side, ends * side, (rows + 1) * side)
    found = None
    if len(boxes):
        found = Region("tissue", shapely.union_all(boxes), "tissue").clip(image)
    if found is None:
        raise ImageReadError("the mask of the tissue is empty: paint some, or choose tissue=off")
    return found
