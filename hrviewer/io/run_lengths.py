"""Masks of COCO as run lengths, column by column, and their exact outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mask_boxes", "run_lengths", "united_boxes"]


def run_lengths(counts: Any) -> NDArray[np.int64]:
    """Return the lengths of runs of zeros and ones by turns, zeros first.

    Parameters
    ----------
    counts : list of int or str
        Lengths, or COCO's text of them: digits of five bits, and from the third one on differences
        to the one before the last.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> run_lengths("52203").tolist(), run_lengths([5, 2, 2]).tolist()
    ([5, 2, 2, 2, 5], [5, 2, 2])
    """
    if isinstance(counts, list):
        lengths = np.asarray(counts, np.int64)
    else:
        digits = np.frombuffer(str(counts).encode("ascii"), np.uint8).astype(np.int64) - 48
        if ((digits < 0) | (digits > 63)).any():
            raise ValueError("a mask in run lengths has other characters than COCO's")
        found: list[int] = []
        value = shift = 0
        for digit in digits.tolist():
            value |= (digit & 31) << shift
            shift += 5
            if digit & 32:
                continue
            if digit & 16:
                value -= 1 << shift
            found.append(value + found[-2] if len(found) > 2 else value)
            value = shift = 0
        lengths = np.array(found, np.int64)
    if (lengths < 0).any():
        raise ValueError("a mask has negative run lengths")
    return lengths


def mask_boxes(lengths: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.object_]:
    """Return the runs of ones as shapely's boxes, ``(x, y)``; a run may go over several columns.

    Raises
    ------
    ValueError
        If the runs are not those of a mask of this height and width.
    """
    import shapely

    height, width = shape
    ends = np.cumsum(lengths)
    if len(ends) and ends[-1] != height * width:
        raise ValueError(f"a mask in run lengths is not one of {height} × {width} pixels")
    starts, stops = ends[:-1:2], ends[1::2]
    kept = stops > starts
    starts, stops = starts[kept], stops[kept]
    first, last = starts // height, (stops - 1) // height
    top, bottom = starts % height, (stops - 1) % height + 1
    one = first == last
    boxes = [shapely.box(first[one], top[one], first[one] + 1, bottom[one])]
    first, last, top, bottom = (each[~one] for each in (first, last, top, bottom))
    boxes += [
        shapely.box(first, top, first + 1, height),
        shapely.box(last, 0, last + 1, bottom),
    ]
    between = last > first + 1
    boxes.append(shapely.box(first[between] + 1, 0, last[between], height))
    found: NDArray[np.object_] = np.concatenate(boxes)
    return found


def united_boxes(boxes: NDArray[np.object_]) -> tuple[tuple[NDArray[np.float64], ...], ...]:
    """Return the polygons that boxes cover together: rings ``(y, x)``, the outer one first."""
    import shapely

    parts = shapely.get_parts(shapely.union_all(boxes))
    return tuple(
        tuple(shapely.get_coordinates(ring)[:-1, ::-1] for ring in shapely.get_rings(part))
        for part in parts
    )
