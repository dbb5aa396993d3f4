"""LIF files of Leica: liffile finds the images, whose pixels are then memory-mapped.

The metadata give the distance in bytes along every axis and of every channel, so that all orders of
axes and colours are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.channels import RGB_CHANNELS, ChannelInfo
from hrviewer.pyramid.readers.frames import FrameReader, Pixels
from hrviewer.pyramid.series import Series, kind_by_name
from hrviewer.pyramid.units import micrometres

__all__ = ["LifReader"]

DESCRIPTION = "./Data/Image/ImageDescription"
AXES = {1: "x", 2: "y", 3: "z", 4: "t", 5: "l", 6: "r", 9: "e", 10: "m"}
"""Letters by DimID: further ones are the wavelengths of emission and excitation, rotation and the
tile of a mosaic."""
COLORS = {
    "red": "FF0000", "green": "00FF00", "blue": "0000FF", "cyan": "00FFFF", "magenta": "FF00FF",
    "yellow": "FFFF00", "gray": "FFFFFF", "grey": "FFFFFF",
}  # fmt: skip
"""By the name of a lookup table."""


class Axis(NamedTuple):
    """An axis: its letter, length, distance of elements in bytes, and in micrometres or seconds."""

    letter: str
    size: int
    step: int
    distance: float | None


class LifReader(FrameReader):
    """One image of a file."""

    suffixes: ClassVar[tuple[str, ...]] = (".lif",)
    package: ClassVar[str] = "liffile"
    failure: ClassVar[str] = "cannot be read by liffile"

    def open_file(self, path: Path) -> list[Series]:
        """Open the file, and return its images."""
        import liffile

        listed: list[Series] = []
        self._images: list[tuple[Any, dict[str, Axis], int, int]] = []
        left_out, length = 0, path.stat().st_size
        with liffile.LifFile(path) as file:
            for image in file.images:
                if image.xml_element.find(DESCRIPTION) is None:
                    continue
                axes = read_axes(image.xml_element)
                if not {"x", "y"} <= axes.keys():  # points and lines
                    self.notes.append(f"{image.path} is no image of two dimensions: left out")
                    continue
                try:
                    block = image.memory_block
                except (KeyError, IndexError):
                    block = None
                if block is None or block.offset + block.size > length:  # the file ends before
                    left_out += 1
                    continue
                name = str(image.path)
                shape = axes["y"].size, axes["x"].size
                listed.append(Series(str(len(listed)), name, shape, kind_by_name(name)))
                self._images.append((image.xml_element, axes, int(block.offset), int(block.size)))
        if left_out:
            self.notes.append(f"{left_out} images whose pixels are not in the file are left out")
        return listed

    def describe(self, index: int) -> tuple[dict[str, int], list[ChannelInfo], bool]:
        """Read the metadata; see `FrameReader.describe`."""
        element, self._axes, self._offset, self._size = self._images[index]
        channels = element.findall(f"{DESCRIPTION}/Channels/ChannelDescription")
        types = {pixel_type(channel) for channel in channels}
        if len(types) != 1:
            raise ImageReadError(f"{self.name}: its channels have different types of pixels")
        self.dtype = self._stored = types.pop()
        bits = max(int(channel.get("Resolution", 8)) for channel in channels)
        if self.dtype.kind == "u" and bits < 8 * self.dtype.itemsize:
            self.stored_range = 0.0, 2.0**bits - 1
        tags = [int(channel.get("ChannelTag", 0)) for channel in channels]
        is_rgb = sorted(tags) == [1, 2, 3]
        if is_rgb:
            channels = [channels[tags.index(tag)] for tag in (1, 2, 3)]
        self._steps = [int(channel.get("BytesInc", 0)) for channel in channels]
        if (across := self._axes["y"].letter) != "y":
            self.notes.append(f"its rows lie along {across}, as it was scanned across y")
        y, x, z, t = (self._axes[a].distance if a in self._axes else None for a in "yxzt")
        if y and x:
            self.pixel_size = y, x
        self.plane_steps = {axis: step for axis, step in (("z", z), ("t", t)) if step}
        infos = list(RGB_CHANNELS) if is_rgb else [describe_channel(entry) for entry in channels]
        return {a: axis.size for a, axis in self._axes.items() if a not in "yx"}, infos, is_rgb

    def read_frame(self) -> Sequence[Pixels]:
        """Return the channels of the plane."""
        axes = self._axes
        start = sum(axes[axis].step * index for axis, index in self.plane.items())
        block = np.memmap(str(self.path), np.uint8, "r", self._offset, (self._size,))
        shape, strides = (axes["y"].size, axes["x"].size), (axes["y"].step, axes["x"].step)
        return [
            np.ndarray(shape, self._stored, block.data, start + step, strides)
            for step in self._steps
        ]


def pixel_type(channel: Any) -> np.dtype[Any]:
    """Return the stored type of a channel's pixels."""
    bits = int(channel.get("Resolution", 8))
    width = next((n for n in (8, 16, 32, 64) if n >= bits), 64) // 8
    return np.dtype(f"<{'f' if channel.get('DataType') == '1' else 'u'}{width}")


def read_axes(image: Any) -> dict[str, Axis]:
    """Return the axes of an image by their letters; one scanned across y has its rows there."""
    axes: dict[str, Axis] = {}
    for entry in image.iterfind(f"{DESCRIPTION}/Dimensions/DimensionDescription"):
        size, length = int(entry.get("NumberOfElements", 1)), float(entry.get("Length", 0))
        number = int(entry.get("DimID", 0))
        name = AXES.get(number, f"axis{number}")
        distance: float | None = abs(length) / (size - 1) if size > 1 else None
        if name != "t" and distance is not None:
            distance = micrometres(distance, entry.get("Unit"))
        axes[name] = Axis(name, size, int(entry.get("BytesInc", 0)), distance or None)
    others = [letter for letter in axes if letter not in "xy"]
    if "y" not in axes and others:
        axes["y"] = axes.pop("z" if "z" in others else others[0])
    return axes


def describe_channel(channel: Any) -> ChannelInfo:
    """Return the dye and colour of a channel."""
    dye = ""
    for entry in channel.iterfind("ChannelProperty"):
        if entry.findtext("Key") == "DyeName":
            dye = (entry.findtext("Value") or "").strip()
    return ChannelInfo(dye, COLORS.get(str(channel.get("LUTName", "")).strip().lower()))
