"""Checksums of stored copies: of cached results, journal files and measurements.

What is stored to save time can be made again, so a copy is used only if it is exactly what this
version of hrviewer wrote. The checksum finds damage, not forgery.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version

__all__ = ["DamagedCopyError", "UnfitCopyError", "digest", "verify", "with_checksum", "writer"]


class UnfitCopyError(ValueError):
    """A stored copy of another version of hrviewer, or a damaged one."""


class DamagedCopyError(UnfitCopyError):
    """A stored copy that is not what was written."""


@cache
def writer() -> str:
    """Return the name and version that copies are marked with."""
    return f"hrviewer-{version('hrviewer')}"


def digest(data: bytes) -> str:
    """Return the checksum of bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def with_checksum(data: bytes) -> bytes:
    """Return bytes behind a line with their writer and checksum.

    Examples
    --------
    >>> verify(with_checksum(b"abc"))
    b'abc'
    """
    return f"{writer()} {digest(data)}\n".encode() + data


def verify(copy: object) -> bytes:
    """Return the bytes in a copy that `with_checksum` made.

    Raises
    ------
    UnfitCopyError
        If another version made it, or it is damaged.
    """
    if not isinstance(copy, bytes):
        raise DamagedCopyError("it is not bytes")
    line, _, data = copy.partition(b"\n")
    made_by, _, checksum = line.partition(b" ")
    if made_by != writer().encode():
        kind = UnfitCopyError if made_by.startswith(b"hrviewer-") else DamagedCopyError
        raise kind("it is of another version of hrviewer")
    if checksum != digest(data).encode():
        raise DamagedCopyError("its checksum differs")
    return data
