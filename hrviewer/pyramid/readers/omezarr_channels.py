"""Channels and default plane of OME-Zarr images, from their ``omero`` metadata.

What is malformed there is left out: it never costs the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hrviewer.pyramid.channels import RGB_CHANNELS, ChannelInfo

__all__ = ["are_colours", "read_channels", "read_default_plane"]

RGB_NAMES = {("", "", ""), ("r", "g", "b"), tuple(info.name for info in RGB_CHANNELS)}
RGB_COLORS = tuple(info.color for info in RGB_CHANNELS)


def read_channels(omero: Mapping[str, Any], count: int) -> list[ChannelInfo]:
    """Return what the metadata say of each of `count` channels."""
    listed = omero.get("channels")
    entries = listed if isinstance(listed, list) else []
    entries = [entry for entry in entries if isinstance(entry, dict)]
    if len(entries) != count:
        return [ChannelInfo()] * count
    return [
        ChannelInfo(
            str(entry.get("label") or ""),
            str(entry["color"]) if entry.get("color") else None,
            _window(entry.get("window")),
        )
        for entry in entries
    ]


def read_default_plane(omero: Mapping[str, Any]) -> dict[str, int]:
    """Return the plane that is displayed first."""
    defaults = omero.get("rdefs")
    plane = {}
    for axis in "tz":
        index = defaults.get(f"default{axis.upper()}") if isinstance(defaults, dict) else None
        if isinstance(index, int) and index >= 0:
            plane[axis] = index
    return plane


def are_colours(infos: Sequence[ChannelInfo], dtype: np.dtype[Any]) -> bool:
    """Whether three channels are red, green and blue.

    That is so where they have these colours and no other names, and for bytes of which nothing is
    known.
    """
    if len(infos) != 3:
        return False
    names, colors = tuple(info.name.lower() for info in infos), [info.color for info in infos]
    if colors == [None] * 3 and dtype == np.uint8:
        return names in RGB_NAMES
    return names in RGB_NAMES and tuple(colors) == RGB_COLORS


def _window(window: Any) -> tuple[float, float] | None:
    if not isinstance(window, dict):
        return None
    try:
        return float(window["start"]), float(window["end"])
    except (KeyError, TypeError, ValueError):
        return None
