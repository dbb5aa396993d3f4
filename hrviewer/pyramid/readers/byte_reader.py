"""Byte ranges of files, read from any thread."""

from __future__ import annotations

import os
import threading

__all__ = ["ByteReader"]


class ByteReader:
    """Reads byte ranges of a local file.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - lives as long as the image
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from an offset; raise `ValueError` outside the file."""
        if not 0 <= offset <= offset + count <= self.size:
            raise ValueError(f"its bytes {offset} to {offset + count} lie outside the file")
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
