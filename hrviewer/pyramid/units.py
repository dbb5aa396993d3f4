"""Units of length in files, converted to micrometres."""

from __future__ import annotations

__all__ = ["PLAUSIBLE", "UNKNOWN_PIXEL_SIZE", "micrometres", "plausible"]

UNKNOWN_PIXEL_SIZE = "pixel size unknown"
"""Note of an image without a pixel size."""

PLAUSIBLE = 0.01, 100.0
"""Micrometres; a pixel size outside this range is a printer's resolution or a mistake."""

_UNITS = {
    "angstrom": 1e-4,
    "å": 1e-4,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "cm": 1e4,
    "inch": 25_400.0,
    "in": 25_400.0,
    "meter": 1e6,
    "metre": 1e6,
    "m": 1e6,
}


def micrometres(length: float, unit: str | None) -> float | None:
    """Return a length in µm; None if the unit is not a length."""
    # ImageJ writes its µ as an escape.
    factor = _UNITS.get((unit or "").strip().lower().replace("\\u00b5", "µ"))
    return None if factor is None else length * factor


def plausible(size: tuple[float, float]) -> bool:
    """Whether a pixel size in µm is plausible."""
    low, high = PLAUSIBLE
    return all(low <= side <= high for side in size)
