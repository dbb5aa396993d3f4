"""JPEGs that would take minutes to decode."""

from __future__ import annotations

import re
from mmap import mmap

from hrviewer.errors import ImageReadError

__all__ = ["MAX_SCANS", "require_few_scans"]

MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten. libvips has the same limit."""

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker, but no restart and no stuffed byte of a scan's data."""

END, SCAN = 0xD9, 0xDA


def require_few_scans(data: bytes | mmap, name: str) -> None:
    """Refuse a JPEG of so many scans that decoding takes minutes: each goes over all pixels.

    See ITU-T T.81, section B.1.1. What follows its end is not counted.
    """
    if data[:2] != b"\xff\xd8":
        return
    at, scans = 2, 0
    while (found := MARKER.search(data, at)) and (marker := found[0][1]) != END:
        scans += marker == SCAN
        if scans > MAX_SCANS:
            raise ImageReadError(
                f"{name} is a JPEG of more than {MAX_SCANS} scans, which would take too long to "
                "decode: save it again as a usual JPEG"
            )
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
