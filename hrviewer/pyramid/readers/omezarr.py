"""OME-Zarr 0.4 (zarr format 2) and 0.5 (format 3), in a folder or behind a URL.

All metadata is validated when the image is opened, so that an opened image can be read. A plate
opens as its first field that has an image; of several images, the largest is opened; both are
noted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.georeference import Georeference
from hrviewer.pyramid.readers.base import ChannelSelection, Reader, native_dtype, reporting
from hrviewer.pyramid.readers.omezarr_channels import (
    are_colours,
    read_channels,
    read_default_plane,
)
from hrviewer.pyramid.readers.omezarr_series import (
    child,
    find_images,
    iter_fields,
    list_fields,
    multiscales,
    ome_attributes,
    read_mask,
    read_windows,
)
from hrviewer.pyramid.readers.omezarr_store import is_zipped_zarr, lacks_chunks, open_node
from hrviewer.pyramid.remote import is_url
from hrviewer.pyramid.series import Series, choose_series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, micrometres
from hrviewer.pyramid.zarr_tiles import ZarrTiles

__all__ = ["OmeZarrReader"]

METADATA_FILES = (".zgroup", ".zattrs", ".zarray", "zarr.json")
UNNAMED_AXES = "tczyx"
"""Axes before version 0.3, which did not name them."""


class OmeZarrReader(Reader):
    """One multiscale image of an OME-Zarr."""

    priority = 50

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a URL, folder or zip file of a zarr."""
        if not isinstance(obj, str):
            return False
        if is_url(obj):
            return ".zarr" in obj
        if os.path.isfile(obj):
            return is_zipped_zarr(obj)
        return any(os.path.exists(os.path.join(obj, mark)) for mark in METADATA_FILES)

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Open a folder or URL."""
        import zarr

        path = str(obj).rstrip("/")
        name = path.rsplit("/", 1)[-1] if "://" in path else Path(path).name
        if name.endswith(".run.zarr"):
            raise ImageReadError(f"{name} is a run of hrviewer, not an image; open it as a run")
        with reporting(f"{name} is not a readable OME-Zarr"):
            group = open_node(path)
            if not isinstance(group, zarr.Group):
                raise ImageReadError(
                    f"{name} is a Zarr array without OME metadata; "
                    "open it with zarr in Python and pass the array"
                )
            return cls(path, name, group, plane, channels, series)

    def __init__(
        self,
        path: str,
        name: str,
        group: Any,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> None:
        self.name, self.path = name, path
        self.notes = []
        self._root = group
        image, multiscale = self._choose_image(series)
        axes, units = self._axes(multiscale)
        arrays = self._arrays(image, multiscale, axes)
        sizes = dict(zip(axes, arrays[0].shape, strict=True))
        choices = {axis: size for axis, size in sizes.items() if axis not in "yxc"}
        self.dtype = native_dtype(name, arrays[0].dtype)
        count = sizes.get("c", 1)
        omero = ome_attributes(image).get("omero")
        described = omero if isinstance(omero, dict) else {}
        infos = read_channels(described, count)
        self.set_plane(choices, plane, read_default_plane(described))
        self.set_channels(infos, channels, is_rgb=are_colours(infos, self.dtype))
        steps = _steps(multiscale, axes, units)
        self.pixel_size = (steps["y"], steps["x"]) if steps.keys() >= {"y", "x"} else None
        self.plane_steps = {axis: step for axis, step in steps.items() if axis in choices}
        self._read_own_attributes(image)
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        self.stored_range = read_windows(image)
        self.fingerprint = fingerprint.of_text(
            *(str(array.metadata.to_dict()) for array in arrays),
            str(multiscale),
            *_modification_times(path, image.path),
            *([image.path] if image.path else []),
        )
        self._tiles = [
            ZarrTiles(array, axes, self.plane, self.selected_channels, marks_missing=True)
            for array in arrays
        ]
        self._masks = read_mask(image, [tiles.shape[:2] for tiles in self._tiles], self.plane)
        self.has_mask = bool(self._masks) or any(lacks_chunks(path, array) for array in arrays)
        self.set_levels([(tiles.shape, tiles.tile) for tiles in self._tiles])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Read the chunks of one tile."""
        tiles = self._tiles[level]
        (h, w, _), (th, tw) = tiles.shape, tiles.tile
        y, x = row * th, column * tw
        window = y, min(y + th, h), x, min(x + tw, w)
        pixels, size, _, valid = tiles.read(*window)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        if self._masks:
            mask, mask_size, *_ = self._masks[level].read(*window)
            known, size = mask[..., 0] == 0, size + mask_size
            valid = known if valid is None else valid & known
        return DecodedTile(pixels.astype(self.dtype, copy=False), size, valid=valid)

    def _read_own_attributes(self, image: Any) -> None:
        """Read what hrviewer writes besides OME-Zarr's metadata."""
        own = image.attrs.get("hrviewer")
        if not isinstance(own, dict):
            return
        nodata = own.get("nodata")
        if isinstance(nodata, (int, float)):
            self.nodata = float(nodata)
        with suppress(TypeError, ValueError):
            low, high = map(float, own.get("value_range") or ())
            if low < high < math.inf and low > -math.inf:
                self.value_range = low, high
        with suppress(KeyError, TypeError, ValueError):
            self.georeference = Georeference.from_record(own.get("georeference"))

    @property
    def missing_share(self) -> float:
        """Share of the chunks read so far that the store lacks."""
        missing = sum(tiles.missing for tiles in self._tiles)
        return missing / max(1, missing + sum(tiles.stored for tiles in self._tiles))

    def list_series(self) -> tuple[Series, ...]:
        """Return the images in the store; for a plate all its fields."""
        if "plate" in ome_attributes(self._root) and not self.series:
            self.series = tuple(map(Series, list_fields(self._root)))
        return self.series

    def _choose_image(self, wanted: str | int | None) -> tuple[Any, Mapping[str, Any]]:
        """Return the group of the image to open, and its multiscale."""
        attributes = ome_attributes(self._root)
        if "plate" in attributes:
            return self._choose_field(wanted)
        images = find_images(self._root)
        if not images and "multiscales" in attributes:
            raise ImageReadError(f"{self.name} holds no image: its list of 'multiscales' is empty")
        if not images:
            raise ImageReadError(f"{self.name} holds no image: its metadata lacks 'multiscales'")
        self.series = tuple(image.series for image in images)
        index = choose_series(self.name, self.series, wanted, self.notes)
        if len(images) > 1:
            self.selected_series = self.series[index].id
        return images[index].group, images[index].multiscale

    def _choose_field(self, wanted: str | int | None) -> tuple[Any, Mapping[str, Any]]:
        """Return a plate's field: the first that has an image, or the one that is asked for."""
        paths = iter_fields(self._root)
        if wanted is not None:
            path = str(wanted).strip("/")
            if child(self._root, path) is None:
                listed = self.list_series()
                path = listed[choose_series(self.name, listed, wanted, [])].id
            paths = iter([path])
        for path in paths:
            node = child(self._root, path)
            if node is not None and multiscales(node):
                if wanted is None:
                    self.notes.append(f"plate: field {path} is opened; choose another with series")
                self.selected_series = path
                return node, multiscales(node)[0]
        raise ImageReadError(f"{self.name} is a plate without a field that can be read")

    def _axes(self, multiscale: Mapping[str, Any]) -> tuple[str, dict[str, str | None]]:
        """Return the axes' letters and units."""
        named = [
            axis if isinstance(axis, dict) else {"name": axis}
            for axis in multiscale.get("axes") or UNNAMED_AXES
        ]
        axes = "".join(str(axis.get("name", "?")).lower() for axis in named)
        if len(axes) != len(named) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
            names = ", ".join(str(axis.get("name")) for axis in named)
            raise ImageReadError(
                f"{self.name} has the axes {names}; each of t, c, z, y, x once is read"
            )
        return axes, {axis: entry.get("unit") for axis, entry in zip(axes, named, strict=True)}

    def _arrays(self, image: Any, multiscale: Mapping[str, Any], axes: str) -> list[Any]:
        """Return the levels' arrays, all of one dtype."""
        arrays: list[Any] = []
        for index, dataset in enumerate(multiscale.get("datasets", ())):
            path = str(dataset.get("path", ""))
            array = child(image, path)
            if array is None or not hasattr(array, "shape"):
                raise ImageReadError(f"{self.name} lacks the array of level {index} ({path!r})")
            if array.ndim != len(axes):
                raise ImageReadError(
                    f"{self.name}: level {index} has {array.ndim} axes, "
                    f"the metadata names {len(axes)} ({', '.join(axes)})"
                )
            if arrays and array.dtype != arrays[0].dtype:
                self.notes.append(
                    f"level {index} holds {array.dtype} instead of {arrays[0].dtype} "
                    "and is left out"
                )
                continue
            arrays.append(array)
        if not arrays:
            raise ImageReadError(f"{self.name} holds no image: its list of 'datasets' is empty")
        return arrays


def _steps(
    multiscale: Mapping[str, Any], axes: str, units: Mapping[str, str | None]
) -> dict[str, float]:
    """Return µm per pixel along axes in space, seconds per plane of time, where known.

    That is the first level's scale times the multiscale's.
    """
    total = dict.fromkeys(axes, 1.0)
    known = False
    for part in (multiscale.get("datasets", [{}])[0], multiscale):
        for change in part.get("coordinateTransformations") or ():
            if change.get("type") == "scale" and len(change.get("scale") or ()) == len(axes):
                known = True
                for axis, factor in zip(axes, change["scale"], strict=True):
                    total[axis] *= _number(factor)
    if not known:
        return {}
    steps = {axis: micrometres(total[axis], units[axis]) for axis in axes if axis in "zyx"}
    if "t" in axes and units["t"] in ("second", "s"):
        steps["t"] = total["t"]
    return {axis: step for axis, step in steps.items() if step is not None and 0 < step < math.inf}


def _number(value: Any) -> float:
    """Return a number of the metadata; NaN for what is none, which never costs the image."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _modification_times(root: str, path: str) -> list[str]:
    """Return the modification times of a local image's metadata and levels."""
    folder = Path(root) / path
    if Path(root).is_file():
        status = Path(root).stat()
        return [f"{status.st_size} {status.st_mtime_ns}"]
    if is_url(root) or not folder.is_dir():
        return [root]
    entries = [folder, *sorted(folder.iterdir())]
    entries += [entry / mark for entry in entries if entry.is_dir() for mark in METADATA_FILES]
    return [f"{entry.name} {entry.stat().st_mtime_ns}" for entry in entries if entry.exists()]
