"""Weights files: read once, and verified against the card's SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard

__all__ = ["read_weights", "reject_wrong_content"]

HEAD_BYTES = 256
"""Bytes of a file's beginning by which other content than weights is recognised."""


def read_weights(path: Path, card: ModelCard) -> tuple[bytes, str]:
    """Return the file's bytes and their SHA-256.

    The bytes that were hashed are the bytes that are loaded: the file is opened only once.

    Raises
    ------
    ModelError
        If the file cannot be read, or its hash differs from the card's.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from None
    reject_wrong_content(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    if card.sha256 not in (None, sha256):
        raise ModelError(
            f"{path} is not the file that the card of {card.name} describes (its sha256 is "
            f"{sha256[:12]}…, not {str(card.sha256)[:12]}…): download it again or correct the card"
        )
    return data, sha256


def reject_wrong_content(path: Path, head: bytes | None = None) -> None:
    """Refuse a file that a failed download left instead of weights.

    Parameters
    ----------
    path
        The file; one that cannot be read is not refused here.
    head
        Its beginning; read by default.

    Raises
    ------
    ModelError
        If it is a pointer of Git LFS or a web page.
    """
    if head is None:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError:
            return
    start = head[:HEAD_BYTES].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`"
        )
    if start.startswith((b"<!doctype html", b"<html")):
        raise ModelError(f"{path} is a web page, not a model: download the file itself")
