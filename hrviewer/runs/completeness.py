"""Whether a run is complete: it ended, no patch failed, and the image stayed the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hrviewer.engine import PatchRow
from hrviewer.errors import HrviewerError
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.opening import reopen_pyramid

__all__ = ["coverage_percent", "data_notes", "describe_incomplete", "image_is_unchanged"]


def image_is_unchanged(pyramid: Pyramid, record: Mapping[str, object]) -> bool:
    """Return whether an image on disk still has the fingerprint that a run recorded.

    Parameters
    ----------
    pyramid : Pyramid
        The image, as it was opened before the run.
    record : mapping
        The entry ``image`` of the run's header.
    """
    if pyramid.path is None or pyramid.synthetic_image is not None:
        return True
    try:
        with reopen_pyramid(record) as now:
            return now.fingerprint == pyramid.fingerprint
    except (HrviewerError, OSError):
        return False


def describe_incomplete(ended: bool, patches: Sequence[PatchRow], unchanged: bool) -> str | None:
    """Return the reasons why a run is not complete in one line; None if it is.

    Parameters
    ----------
    ended : bool
        Whether the strategy finished.
    patches : sequence of PatchRow
        The run's patches.
    unchanged : bool
        Whether the image is still the one that was opened.
    """
    failed = [row for row in patches if row.status == "failed"]
    reasons = []
    if failed:
        reasons.append(
            f"{len(failed):,} of {len(patches):,} patches failed, the first: {failed[0].error}"
        )
    if not unchanged:
        reasons.append("the image was changed or removed during the run")
    if not ended:
        reasons.append("stopped before the end")
    return "; ".join(reasons) or None


def coverage_percent(coverage: float) -> float:
    """Return a fraction in per cent, rounded down: only the whole is 100 %."""
    return math.floor(min(coverage, 1.0) * 1e4 + 1e-6) / 100


def data_notes(pyramid: Pyramid, data_area: float | None, area: float) -> list[str]:
    """Return notes on places without data, and on chunks that are not stored."""
    notes = []
    if pyramid.missing_share:
        notes.append(
            f"{pyramid.missing_share:.2%} of the chunks that were read are not "
            "stored: their places have no data"
        )
    if data_area is not None and data_area < area * (1 - 1e-9):
        notes.append(
            f"{1 - data_area / area:.2%} of the region has no data: it is left out, "
            "also of densities"
        )
    return notes
