"""Decoded sizes of compressed chunks, known before they are decoded.

A few megabytes may decompress to any number of gigabytes, and decoders of chunks have no limit.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["decodes_within", "zstd_content_size", "zstd_size_bound"]

MAX_DEFLATE_RATIO = 1032
"""Of deflate: no stream decompresses to more."""

STEP = 1 << 20
"""Bytes that are decompressed at once where only that shows the size."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_REPEATED, ZSTD_COMPRESSED = 1, 2
"""Types of blocks: one byte that is repeated, and what is compressed."""

ZSTD_MAX_BLOCK = 128 << 10
"""Bytes that a block decompresses to, at most."""

INFLATERS: dict[str, Callable[[], Any]] = {
    "zlib": lambda: zlib.decompressobj(15),
    "gzip": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


def decodes_within(data: bytes, codec: str, limit: int) -> bool:
    """Return whether a chunk decodes to at most `limit` bytes, as far as its codec is known.

    Parameters
    ----------
    data : bytes
        The compressed chunk.
    codec : str
        Name of its last codec: ``zstd``, ``blosc``, ``lz4``, ``zlib``, ``gzip``, ``bz2`` or
        ``lzma``; chunks of others pass.
    limit : int
        Bytes.
    """
    if codec == "zstd":
        size = zstd_content_size(data[:18])
        return (zstd_size_bound(data) if size is None else size) <= limit
    if codec == "blosc":
        return int.from_bytes(data[4:8], "little") <= limit
    if codec == "lz4":
        return int.from_bytes(data[:4], "little") <= limit
    if codec not in INFLATERS:
        return True
    if codec in ("zlib", "gzip") and len(data) * MAX_DEFLATE_RATIO <= limit:
        return True
    return _inflates_within(data, codec, limit)


def _inflates_within(data: bytes, codec: str, limit: int) -> bool:
    """Decompress bit by bit, keeping nothing, until the limit is passed."""
    size, rest = 0, data
    try:
        while rest:  # decoders read all streams, one behind the other with zeros between
            inflater = INFLATERS[codec]()
            while not inflater.eof:
                size += len(found := inflater.decompress(rest, STEP))
                rest = getattr(inflater, "unconsumed_tail", b"")
                if size > limit:
                    return False
                if not found and not rest:
                    return True
            rest = b"" if codec == "zlib" else inflater.unused_data.lstrip(b"\0")
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        return True  # the decoder reports the damage
    return True


def zstd_content_size(header: bytes) -> int | None:
    """Return the bytes that a Zstandard frame decompresses to, or None if it does not state them.

    See the frame header of RFC 8878, section 3.1.1.1.
    """
    if len(header) < 6 or header[:4] != ZSTD_MAGIC:
        return None
    descriptor = header[4]
    flag, single = descriptor >> 6, bool(descriptor & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if single else 0, 2, 4, 8)[flag]
    if not length or len(header) < start + length:
        return None
    size = int.from_bytes(header[start : start + length], "little")
    return size + 256 if flag == 1 else size


def zstd_size_bound(data: bytes) -> int:
    """Return how many bytes Zstandard frames decompress to at most, from their blocks' sizes.

    See RFC 8878, section 3.1.1.2. A damaged frame counts up to where it is damaged.
    """
    at, bound = 0, 0
    while len(data) >= at + 6 and data[at : at + 4] == ZSTD_MAGIC:
        descriptor = data[at + 4]
        single = bool(descriptor & 0x20)
        at += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        at += (1 if single else 0, 2, 4, 8)[descriptor >> 6]
        is_last = False
        while not is_last and at + 3 <= len(data):
            header = int.from_bytes(data[at : at + 3], "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            at += 3 + (1 if kind == ZSTD_REPEATED else size)
            bound += ZSTD_MAX_BLOCK if kind == ZSTD_COMPRESSED else size
        at += 4 * bool(descriptor & 4)  # the checksum
    return bound
