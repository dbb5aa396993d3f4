"""Units of length in files, converted to micrometres."""

from __future__ import annotations

__all__ = ["PLAUSIBLE", "UNKNOWN_PIXEL_SIZE", "micrometres", "plausible"]

UNKNOWN_PIXEL_SIZE = "pixel size unknown"
"""Note of an image without a pixel size."""

PLAUSIBLE = 0.01, 100.0
"""Micrometres; a pixel size outside this range is a printer's resolution or a mistake."""

_UNITS = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "dm": 1e5,
    "decimeter": 1e5,
    "m": 1e6,
    "meter": 1e6,
    "km": 1e9,
    "kilometer": 1e9,
    "thou": 25.4,
    "pt": 25_400.0 / 72,
    "in": 25_400.0,
    "inch": 25_400.0,
    "ft": 304_800.0,
    "foot": 304_800.0,
    "yd": 914_400.0,
    "yard": 914_400.0,
}
_PLURALS = {"inches": "inch", "feet": "foot"}


def micrometres(length: float, unit: str | None) -> float | None:
    """Return a length in µm; None if the unit is not a length.

    Examples
    --------
    >>> micrometres(250, "nm"), micrometres(2, "Microns"), micrometres(1, "pixel")
    (0.25, 2.0, None)
    """
    # ImageJ writes its µ as an escape; there are two characters for it.
    name = (unit or "").strip().lower().replace("\\u00b5", "µ").replace("μ", "µ")
    name = _PLURALS.get(name, name.removesuffix("s") if len(name) > 3 else name)
    factor = _UNITS.get(name.replace("metre", "meter"))
    return None if factor is None else length * factor


def plausible(size: tuple[float, float]) -> bool:
    """Whether a pixel size in µm is plausible."""
    low, high = PLAUSIBLE
    return all(low <= side <= high for side in size)
