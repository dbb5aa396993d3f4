"""Stains of a section in brightfield, separated by colour deconvolution.

A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color deconvolution",
Anal. Quant. Cytol. Histol. 23(4), 2001: optical densities of red, green and blue are sums of those
of the stains, whose colours are known.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STAINS", "separate_stain", "stain_color"]

VECTORS = {
    "haematoxylin": (0.65, 0.70, 0.29),
    "eosin": (0.07, 0.99, 0.11),
    "DAB": (0.27, 0.57, 0.78),
}
"""Optical densities of red, green and blue, as in the paper."""

COUNTERSTAIN = {"haematoxylin": "eosin", "eosin": "haematoxylin", "DAB": "haematoxylin"}
"""The other stain of the section; what is neither is left over."""

STAINS = tuple(VECTORS)

FULL_DENSITY = 2.0
"""Density that is stored as 255: a hundredth of the light passes."""


def separate_stain(pixels: NDArray[np.uint8], stain: str) -> NDArray[np.uint8]:
    """Return the amount of a stain.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        Red, green and blue in brightfield: white is no stain.
    stain : str
        One of `STAINS`.

    Returns
    -------
    ndarray of uint8, shape (h, w, 1)
        Optical density of the stain: 0 is none, 255 a density of 2 or more.

    Examples
    --------
    >>> white = np.full((1, 1, 3), 255, np.uint8)
    >>> separate_stain(white, "eosin").item()
    0
    """
    table = _density_table(stain)
    amount = table[0][pixels[..., 0]]
    for band in (1, 2):
        amount += table[band][pixels[..., band]]
    return np.asarray(np.clip(amount + 0.5, 0, 255), np.uint8)[..., None]


def stain_color(stain: str) -> tuple[float, float, float]:
    """Return the colour, 0 to 1, of a stain at a density of 1."""
    r, g, b = (float(10**-density) for density in _unit(stain))
    return r, g, b


def _unit(stain: str) -> NDArray[np.float64]:
    vector = np.asarray(VECTORS[stain])
    return np.asarray(vector / np.linalg.norm(vector))


@cache
def _density_table(stain: str) -> NDArray[np.float32]:
    """Return what each value of each band adds to the amount of a stain, ``(3, 256)``."""
    first, second = _unit(stain), _unit(COUNTERSTAIN[stain])
    rest = np.cross(first, second)
    share = np.linalg.inv(np.stack([first, second, rest / np.linalg.norm(rest)]))[:, 0]
    density = -np.log10(np.maximum(np.arange(256), 1) / 255)
    table: Any = share[:, None] * density[None] * (255 / FULL_DENSITY)
    return np.asarray(table, np.float32)
