"""Fingerprints of images, quick enough to compute whenever one is opened."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["image_key", "of_array", "of_files", "of_text", "random_token"]

END_BYTES = 64 * 1024
MAX_HASHED_BYTES = 256_000_000
"""Bytes; a larger array is not hashed."""


def of_files(paths: Iterable[Path]) -> str:
    """Hash each file's size, modification time, head and tail."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(END_BYTES))
            file.seek(max(0, status.st_size - END_BYTES))
            digest.update(file.read(END_BYTES))
    return digest.hexdigest()[:32]


def of_text(*texts: str) -> str:
    """Hash texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def of_array(array: np.ndarray[Any, np.dtype[Any]]) -> str | None:
    """Hash an array's type, shape and content; return None if it is too large."""
    if array.nbytes >= MAX_HASHED_BYTES:
        return None
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def image_key(fingerprint: str, plane: Mapping[str, int], channels: Sequence[int] | None) -> str:
    """Return what identifies the pixels that are read: fingerprint, plane and channels."""
    axes = "".join(f",{axis}={index}" for axis, index in sorted(plane.items()))
    return f"{fingerprint}{axes}" + (f",c={'+'.join(map(str, channels))}" if channels else "")


def random_token() -> str:
    """Return a token that is unique to this image and session."""
    return secrets.token_hex(16)
