"""Bits per channel in the headers of PNG, JPEG 2000 and PNM: Pillow reduces colours to 8 bits."""

from __future__ import annotations

from typing import Any

__all__ = ["HEAD_BYTES", "is_jpeg2000", "png_mode", "stored_bits"]

HEAD_BYTES = 4096
PNG_DEPTH = 24
"""Offset of the bit depth in a PNG."""

PNG_COLOURS = {2: "RGB", 4: "LA", 6: "RGBA"}
"""Colour types, which follow the depth; Pillow turns 4 of 16 bits into colours."""

JP2, CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xffO\xffQ"
"""First bytes of JPEG 2000: with boxes, and without."""
SSIZ = 38
"""Offset of the first component's depth after the marker SIZ."""


def is_jpeg2000(head: bytes) -> bool:
    """Whether a file begins as JPEG 2000."""
    return head.startswith((JP2, CODESTREAM))


def png_mode(path: str) -> str | None:
    """Return the mode of a PNG in colours or with alpha."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    return PNG_COLOURS.get(head[PNG_DEPTH + 1])


def stored_bits(path: str, image: Any) -> int:
    """Return the bits per channel of a picture; 8 where its format has no more.

    Parameters
    ----------
    path : str
        The file.
    image : PIL.Image.Image
        Pillow's header of it.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    at = head.find(b"\xffQ") + 2 if is_jpeg2000(head) else 0
    if image.format == "PNG" and len(head) > PNG_DEPTH:
        return head[PNG_DEPTH]
    if at > 2 and len(head) > at + SSIZ:
        return (head[at + SSIZ] & 0x7F) + 1
    arguments = image.tile[0][3] if image.format == "PPM" and image.tile else None
    largest = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else 0
    return 16 if isinstance(largest, int) and largest > 255 else 8
