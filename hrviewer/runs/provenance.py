"""What a run records of its image and of the software."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

from hrviewer.pyramid import Pyramid

__all__ = ["image_info", "versions"]


def image_info(pyramid: Pyramid) -> dict[str, Any]:
    """Return the header entries of an image."""
    return {
        "path": pyramid.path or pyramid.name,
        "shape": list(pyramid.plane_shape),
        "levels": len(pyramid.levels),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        "georeference": pyramid.georeference and pyramid.georeference.to_record(),
        "fingerprint": pyramid.fingerprint,
        "series": pyramid.selected_series,
        "plane": pyramid.plane,
        "channels": pyramid.selected_channels and list(pyramid.selected_channels),
        "value_range": pyramid.given_range and list(pyramid.given_range),
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    names = ("hrviewer", "numpy", "tifffile", "imagecodecs", "zarr")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in names},
    }
