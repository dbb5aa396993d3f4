"""Completeness of PNG files: Pillow leaves rows black that the file does not hold."""

from __future__ import annotations

import zlib

__all__ = ["holds_all_rows"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each type of colour."""

STEP = 1 << 20
"""Bytes that are decompressed at once."""


def holds_all_rows(path: str) -> bool:
    """Return whether a PNG's data hold all rows of its header; True for interlaced ones.

    See the PNG specification, third edition, sections 7.2 and 11.2.
    """
    expected, found = 0, 0
    inflater = zlib.decompressobj()
    with open(path, "rb") as file:
        if file.read(8) != SIGNATURE:
            return True
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IHDR":
                header = file.read(size)
                width, height = (int.from_bytes(header[i : i + 4], "big") for i in (0, 4))
                if header[12]:
                    return True
                bits = width * header[8] * SAMPLES.get(header[9], 1)
                expected = height * (1 + -(-bits // 8))
            elif kind == b"IDAT":
                rest = file.read(size)
                while rest and not inflater.eof and found < expected:
                    found += len(inflater.decompress(rest, STEP))
                    rest = inflater.unconsumed_tail
            else:
                file.seek(size, 1)
            if found >= expected > 0 or kind == b"IEND":
                break
            file.seek(4, 1)  # the checksum
    return found >= expected
