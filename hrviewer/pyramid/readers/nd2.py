"""ND2 files of Nikon, read by nd2; their stage positions are series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hrviewer.pyramid.channels import RGB_CHANNELS, ChannelInfo
from hrviewer.pyramid.readers.frames import FrameReader, Pixels
from hrviewer.pyramid.series import Series

__all__ = ["Nd2Reader"]

POSITION, DEPTH, TIME, CHANNEL = "P", "Z", "T", "C"

PICTURE = "ImageMetadataSeqLV|0"
"""The metadata of the first frame."""


class Nd2Reader(FrameReader):
    """One position of a file."""

    suffixes: ClassVar[tuple[str, ...]] = (".nd2",)
    package: ClassVar[str] = "nd2"
    failure: ClassVar[str] = "cannot be read by nd2"
    _file: Any = None

    def open_file(self, path: Path) -> list[Series]:
        """Open the file, and return its positions."""
        import nd2

        self._file = nd2.ND2File(path)
        sizes, shape = self._file.sizes, (int(self._file.sizes["Y"]), int(self._file.sizes["X"]))
        names = [
            str(point.name or "")
            for loop in self._file.experiment
            if loop.type == "XYPosLoop"
            for point in loop.parameters.points
        ]
        count = sizes.get(POSITION, 1)
        return [Series(str(i), (names[i : i + 1] or [""])[0], shape) for i in range(count)]

    def describe(self, index: int) -> tuple[dict[str, int], list[ChannelInfo], bool]:
        """Read the metadata; see `FrameReader.describe`."""
        file, sizes = self._file, self._file.sizes
        self._position = index
        self._attributes = attributes = file.attributes
        self.dtype = np.dtype(file.dtype)
        bits = attributes.bitsPerComponentSignificant
        if self.dtype.kind == "u" and 0 < bits < 8 * self.dtype.itemsize:
            self.stored_range = 0.0, 2.0**bits - 1
        infos, self.pixel_size = read_picture(file)
        depths = [loop.parameters.stepUm for loop in file.experiment if loop.type == "ZStackLoop"]
        self.plane_steps = {"z": abs(float(depths[0]))} if depths and depths[0] else {}
        axes = {
            axis.lower(): int(size)
            for axis, size in sizes.items()
            if axis not in (POSITION, CHANNEL, "Y", "X", "S")
        }
        if sizes.get("S", 1) == 3:
            return axes, list(RGB_CHANNELS), True
        count = sizes.get(CHANNEL, 1)
        return axes, infos if len(infos) == count else [ChannelInfo()] * count, False

    def holds_frame(self) -> bool:
        """Whether the file has the frame; nd2 itself would return zeros for one that it lacks."""
        sizes = self._file.sizes
        loops = [axis for axis in sizes if axis not in "CYXS"]
        at = [self._position if a == POSITION else self.plane.get(a.lower(), 0) for a in loops]
        number = int(np.ravel_multi_index(at, [sizes[a] for a in loops])) if loops else 0
        self._frame_number = number
        offsets = getattr(self._file._rdr, "_frame_offsets", None)  # not in files of old versions
        if offsets is None:
            return True
        attributes = self._attributes
        size = 0 if attributes.compressionType else attributes.heightPx * attributes.widthBytes
        end = Path(str(self.path)).stat().st_size
        return number in offsets and offsets[number] + size <= end

    def read_frame(self) -> Sequence[Pixels]:
        """Return the channels of the plane; colours are stored as blue, green, red."""
        file, attributes = self._file, self._attributes
        h, w = attributes.heightPx, attributes.widthPx
        if attributes.compressionType is not None:
            self.check_decoded(h * w * attributes.componentCount * self.dtype.itemsize)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = np.asarray(file.read_frame(self._frame_number))
        if file.sizes.get("S", 1) == 3:
            colours = frame.reshape(h, w, 3)
            return [colours[..., i] for i in (2, 1, 0)]
        return list(frame.reshape(-1, h, w))

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._file is not None:
            with suppress(BufferError):  # a tile is being read: the file is closed after that
                self._file.close()


def read_picture(file: Any) -> tuple[list[ChannelInfo], tuple[float, float] | None]:
    """Return what the file says of its channels, and its pixel size if that is calibrated.

    What nd2 cannot read there never costs the image: it expects the spectra of dyes.
    """
    with suppress(Exception):
        described = file.metadata.channels
        infos = [
            ChannelInfo(str(entry.channel.name or ""), entry.channel.color.as_hex())
            for entry in described
        ]
        x, y, _ = described[0].volume.axesCalibration
        calibrated = all(described[0].volume.axesCalibrated[:2])
        return infos, (float(y), float(x)) if calibrated else None
    with suppress(Exception):
        chunks = file.unstructured_metadata(strip_prefix=False, include={PICTURE})
        picture = chunks[PICTURE].get("SLxPictureMetadata", chunks[PICTURE])
        planes = picture["sPicturePlanes"]["sPlaneNew"].values()
        infos = [
            ChannelInfo(str(plane.get("sDescription", "")), color_of(plane["uiColor"]))
            for plane in planes
        ]
        side = float(picture["dCalibration"])
        return infos, (side, side) if picture["bCalibrated"] else None
    return [], None


def color_of(number: int) -> str:
    """Return a colour ``0xBBGGRR`` as digits."""
    return "".join(f"{number >> shift & 255:02X}" for shift in (0, 8, 16))
