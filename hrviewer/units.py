"""Formatting of numbers: SI prefixes, durations, round ends of a scale."""

from __future__ import annotations

import math

__all__ = [
    "AREA_UNITS",
    "area_unit",
    "format_amount",
    "format_area",
    "format_duration",
    "format_length",
    "format_si",
    "format_signed",
    "nice_ceiling",
]

AREA_UNITS = {"mm2": ("mm²", 1e6), "ha": ("ha", 1e16), "km2": ("km²", 1e18)}
"""Units of area by their keys in a run's estimate: the symbol, and square micrometres."""

MICROSCOPE_PIXEL, AERIAL_PIXEL = 1e3, 2e6
"""Micrometres; largest pixels of microscopes, and of aerial images."""

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def area_unit(pixel_size: tuple[float, float]) -> str:
    """Return the key of the unit in which areas of an image are stated; see `AREA_UNITS`.

    Parameters
    ----------
    pixel_size : tuple of float
        Micrometres per pixel, ``(y, x)``.

    Examples
    --------
    >>> area_unit((0.5, 0.5)), area_unit((1e5, 1e5)), area_unit((1e7, 1e7))
    ('mm2', 'ha', 'km2')
    """
    side = math.sqrt(pixel_size[0] * pixel_size[1])
    return "mm2" if side < MICROSCOPE_PIXEL else "ha" if side < AERIAL_PIXEL else "km2"


def format_area(pixels: float, pixel_size: tuple[float, float] | None) -> str:
    """Return an area as text, in the unit of the image's areas.

    Parameters
    ----------
    pixels : float
        Square level-0 pixels.
    pixel_size : tuple of float, optional
        Micrometres per pixel, ``(y, x)``.

    Examples
    --------
    >>> format_area(8e6, (0.5, 0.5)), format_area(8e6, None)
    ('2 mm²', '8 Mpx')
    """
    if pixel_size is None:
        return format_si(pixels, "px")
    symbol, size = AREA_UNITS[area_unit(pixel_size)]
    return f"{pixels * pixel_size[0] * pixel_size[1] / size:.3g} {symbol}"


def format_length(micrometres: float) -> str:
    """Return a length as text.

    Examples
    --------
    >>> format_length(0.2518), format_length(84.667), format_length(1e5), format_length(3.1e9)
    ('0.252 µm', '84.7 µm', '10 cm', '3.1 km')
    """
    for unit, size in ("km", 1e9), ("m", 1e6), ("cm", 1e4), ("mm", 1e3):
        if micrometres >= size:
            return f"{micrometres / size:.3g} {unit}"
    return f"{micrometres:.3g} µm"


def format_si(value: float, unit: str = "", digits: int = 3) -> str:
    """Return ``1.23 TFLOP`` for 1.23e12."""
    if not math.isfinite(value):
        return "–"
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.{digits}g} {PREFIXES[power]}{unit}".rstrip()


def format_amount(value: float) -> str:
    """Return ``2,418`` for 2418.3, ``0.713`` for 0.7134, and ``1.23 M`` beyond six digits."""
    return f"{value:,.0f}" if 99.5 <= abs(value) < 999_999.5 else format_si(value)


def format_signed(value: float) -> str:
    """Return ``+1,230`` for 1230: a number with its sign."""
    return "+" * (value > 0) + format_amount(value)


def format_duration(seconds: float) -> str:
    """Return ``0.4 s``, ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def nice_ceiling(value: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is not below `value`."""
    if not (value > 0 and math.isfinite(value)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 5, 10):
        if value <= step * power * (1 + 1e-9):
            return step * power
    raise AssertionError("a number lies between two powers of ten")
