"""Preprocessing: pixels to the numbers that a network takes.

The only implementation, so that a network gets the same numbers in the window, a notebook and on
the command line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.models.card_fields import ModelInput

__all__ = ["check_channels", "prepare_pixels"]


def prepare_pixels(
    name: str,
    source: ModelInput,
    pixels: NDArray[Any],
    out: NDArray[np.float32] | None = None,
    value_range: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Preprocess pixels; see `hrviewer.models.card.ModelCard.prepare`.

    Parameters
    ----------
    name
        Of the network, for messages.
    source
        What it takes.
    pixels, out, value_range
        As there.
    """
    x = _select_channels(name, source, pixels[..., None] if pixels.ndim == 2 else pixels)
    if out is None:
        out = np.empty((x.shape[-1], *x.shape[:2]), np.float32)
    np.copyto(out, np.moveaxis(x, -1, 0), casting="unsafe")
    low, high = value_range or source.value_range or _full_range(pixels.dtype)
    if low:
        out -= np.float32(low)
    if high - low != 255:
        out /= np.float32((high - low) / 255)
    if x.dtype.kind == "f":
        np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    if source.scale != 1:
        out *= np.float32(source.scale)
    if any(source.mean):
        out -= np.asarray(source.mean, np.float32)[:, None, None]
    if any(std != 1 for std in source.std):
        out /= np.asarray(source.std, np.float32)[:, None, None]
    return out


def check_channels(name: str, source: ModelInput, available: int) -> None:
    """Raise `ModelError` if an image of so many channels cannot be prepared."""
    required = source.channels
    if isinstance(required, int) and available != required:
        raise ModelError(
            f"{name} takes {required} channels, but the image has {available}: choose "
            f"{required} of them with the option channels, or another model"
        )


def _select_channels(name: str, source: ModelInput, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return ``(h, w, C)``, with the image's values and dtype."""
    available, required = pixels.shape[-1], source.channels
    if isinstance(required, int):
        check_channels(name, source, available)
        return pixels
    if available < 3:  # gray, with or without alpha
        gray = pixels[..., :1]
        return gray if required == "gray" else np.repeat(gray, 3, axis=-1)
    rgb = pixels[..., :3]
    if required == "gray":
        return _luma(rgb)[..., None]
    return rgb[..., ::-1] if required == "bgr" else rgb


def _full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of unsigned integers and booleans; of other types none is known."""
    if dtype.kind == "b":
        return 0.0, 1.0
    return 0.0, float(np.iinfo(dtype).max) if dtype.kind == "u" else 255.0


def _luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """Return ITU-R 601 luma; 8-bit integers are rounded exactly as in Pillow."""
    weights = 19595, 38470, 7471
    if rgb.dtype != np.uint8:
        r, g, b = (rgb[..., c] * np.float64(w / 65536) for c, w in enumerate(weights))
        return np.asarray(r + g + b)
    weighted = sum(rgb[..., c].astype(np.uint32) * np.uint32(w) for c, w in enumerate(weights))
    return np.asarray((weighted + np.uint32(0x8000)) >> np.uint32(16), np.uint8)
