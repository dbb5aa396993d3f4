"""Structure of MATLAB files, checked before SciPy's native parser reads them.

SciPy believes the sizes that a file states, and a false one ends the process. See *MAT-File
Format* (MathWorks, R2023a), version 5: elements with a type and a number of bytes, of which
matrices hold further elements.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Literal

__all__ = ["check_mat"]

ByteOrder = Literal["little", "big"]

HEADER_BYTES = 128
MAX_BYTES = 256 << 20
"""Of a file, and of what a compressed element decompresses to."""

MAX_DEPTH = 16
"""Of cells and structures within one another."""

MATRIX, COMPRESSED = 14, 15
ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of an item of each type of numbers or characters."""

CELL, STRUCT, CHARACTERS = 1, 2, 4
NUMBERS = range(6, 16)
"""Classes of matrices."""


def check_mat(path: Path) -> None:
    """Check that all sizes in a file fit one another and the file.

    Raises
    ------
    ValueError
        If they do not, or it holds other matrices than numbers, text, cells and structures.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
    data = path.read_bytes()
    if len(data) < HEADER_BYTES or 0 in data[:4]:
        raise ValueError("it is not of version 5 to 7.2: save it again with save('-v7')")
    orders: dict[bytes, ByteOrder] = {b"IM": "little", b"MI": "big"}
    order = orders.get(data[126:128])
    if order is None or data[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise ValueError("its header is damaged")
    room = MAX_BYTES
    for kind, body in Elements(data[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            inflater = zlib.decompressobj()
            try:
                content = inflater.decompress(body, room)
            except zlib.error as error:
                raise ValueError(f"it is damaged: {error}") from None
            if inflater.unconsumed_tail:
                raise ValueError(f"it decompresses to more than {MAX_BYTES >> 20} MiB")
            room -= len(content)
            inner = list(Elements(content, order))
            if len(inner) != 1 or inner[0][0] != MATRIX:
                raise ValueError("a compressed element is no matrix")
            kind, body = inner[0]
        if kind != MATRIX:
            raise ValueError(f"it has an element of type {kind}")
        check_matrix(body, order)


class Elements:
    """The elements in bytes, each its type and contents; ValueError where one is cut off."""

    def __init__(self, data: bytes, order: ByteOrder) -> None:
        self._data, self._order, self._at = memoryview(data), order, 0

    def __iter__(self) -> Elements:
        return self

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return max(0, len(self._data) - self._at)

    def number(self, at: int, size: int) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self._data[at : at + size], self._order)

    def __next__(self) -> tuple[int, bytes]:
        at = self._at
        if not self.left:
            raise StopIteration
        if self.left < 8:
            raise ValueError("it is truncated")
        word = self.number(at, 4)
        if word >> 16:  # a small element: its size and contents are in the tag
            kind, size, start, end = word & 0xFFFF, word >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError("an element is larger than its tag")
        else:
            kind, size, start = word, self.number(at + 4, 4), at + 8
            end = start + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > len(self._data):
            raise ValueError("an element is larger than the file")
        self._at = end
        return kind, bytes(self._data[start : start + size])


def check_matrix(data: bytes, order: ByteOrder, depth: int = 0) -> None:
    """Check a matrix: that it holds as many items as its dimensions say."""
    if not data:
        return  # an empty one
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    elements = Elements(data, order)
    flags, dims_data, _ = (take(elements) for _ in range(3))
    if flags[0] != 6 or len(flags[1]) < 8 or dims_data[0] != 5 or len(dims_data[1]) % 4:
        raise ValueError("a matrix has no dimensions")
    word = int.from_bytes(flags[1][:4], order)
    kind, is_complex = word & 0xFF, bool(word & 0x800)
    dims = [
        int.from_bytes(dims_data[1][i : i + 4], order, signed=True)
        for i in range(0, len(dims_data[1]), 4)
    ]
    count = math.prod(dims)
    if not 2 <= len(dims) <= 32 or min(dims) < 0:
        raise ValueError(f"a matrix has the dimensions {dims[:8]}")
    if kind in (CELL, STRUCT):
        if kind == STRUCT:
            (_, length), (_, names) = take(elements), take(elements)
            width = int.from_bytes(length[:4], order)
            if not 0 < width <= 64 or len(names) % width:
                raise ValueError("a structure has no field names")
            count *= len(names) // width
        if count > elements.left // 8:
            raise ValueError("a matrix is smaller than its dimensions")
        for _ in range(count):
            inner, body = take(elements)
            if inner != MATRIX:
                raise ValueError("a cell holds no matrix")
            check_matrix(body, order, depth + 1)
    elif kind == CHARACTERS or kind in NUMBERS:
        for _ in range(1 + is_complex):
            stored, body = take(elements)
            # Text in UTF-8 has as many bytes as it needs.
            fits = stored in ITEM_BYTES and len(body) == count * ITEM_BYTES[stored]
            if not fits and not (kind == CHARACTERS and stored == 16 and len(body) >= count):
                raise ValueError("a matrix is smaller than its dimensions")
    else:
        raise ValueError("it has a matrix of objects, functions or sparse numbers")


def take(elements: Elements) -> tuple[int, bytes]:
    """Return the next element."""
    found = next(elements, None)
    if found is None:
        raise ValueError("a matrix is truncated")
    return found
