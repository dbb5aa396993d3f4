"""Weights files: read once, and verified against the card's SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard

__all__ = ["read_weights"]


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
    sha256 = hashlib.sha256(data).hexdigest()
    if card.sha256 not in (None, sha256):
        raise ModelError(
            f"{path} is not the file that the card of {card.name} describes (its sha256 is "
            f"{sha256[:12]}…, not {str(card.sha256)[:12]}…): download it again or correct the card"
        )
    return data, sha256
