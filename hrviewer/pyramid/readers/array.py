"""NumPy, dask and zarr arrays, lists of them, xarray.DataArray, and napari image layers.

Axes: an xarray.DataArray's dims and a zarr array's dimension names are taken as they are; else the
last two axes are y and x, or y, x and channel where the last is no longer than 4 (or the layer is
RGB). The other axes select a plane; they are named t, z, or by the layer's one-letter labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np

from hrviewer.errors import ImageReadError, ParameterError
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.readers.base import ChannelSelection, Reader, native_dtype
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, micrometres
from hrviewer.pyramid.zarr_tiles import SPATIAL, ZarrTiles, plane_selection, to_yxc

__all__ = ["ArrayReader", "find_level"]

TILE = 512
MAX_COLOUR_CHANNELS = 4

DIM_NAMES = {
    **dict.fromkeys(("y", "row", "rows", "height", "lat", "latitude"), "y"),
    **dict.fromkeys(("x", "column", "columns", "col", "width", "lon", "longitude"), "x"),
    **dict.fromkeys(("c", "channel", "channels", "band", "bands", "rgb"), "c"),
}
"""Axes by the names that dims usually have."""


def _arrays(obj: object) -> list[Any]:
    """Return the levels of an object, finest first; none if it is not made of arrays."""
    if _is_layer(obj):
        obj = cast(Any, obj).data
    if _is_array(obj):
        return [obj]
    if isinstance(obj, (str, bytes, Mapping)):
        return []
    try:
        entries = list(cast(Any, obj))
    except TypeError:
        return []
    return entries if all(map(_is_array, entries)) else []


def _is_array(obj: object) -> bool:
    return all(hasattr(obj, name) for name in ("shape", "dtype", "ndim", "__getitem__"))


def _is_layer(obj: object) -> bool:
    return all(hasattr(obj, name) for name in ("data", "multiscale", "rgb", "scale"))


def _dims(array: Any) -> tuple[str, ...] | None:
    """Return an array's dimension names, if it has them."""
    names = getattr(array, "dims", None)
    if names is None:
        names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not isinstance(names, tuple) or len(names) != array.ndim or None in names:
        return None
    return tuple(map(str, names))


def _is_labelled(obj: object) -> bool:
    """Whether it is an xarray.DataArray; xarray need not be installed."""
    return all(hasattr(obj, name) for name in ("dims", "variable", "encoding", "chunks", "data"))


def _unwrap(array: Any) -> Any:
    """Return the array inside an xarray.DataArray, unless that would load a file."""
    if not _is_labelled(array):
        return array
    lazy_file = array.chunks is None and "source" in array.encoding
    return array if lazy_file else array.data


def find_level(obj: object) -> Level | None:
    """Return the level behind a zarr view, or behind a layer or list of such views."""
    if isinstance(obj, Level):
        return obj
    arrays = _arrays(obj)
    store = getattr(arrays[0], "store", None) if arrays else None
    level = getattr(store, "level", None)
    return level if isinstance(level, Level) else None


class ArrayReader(Reader):
    """Arrays in memory or lazy."""

    priority = 10

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is an array, a list of arrays or a layer of them."""
        return bool(_arrays(obj))

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Wrap arrays."""
        return cls(obj, plane, channels, series)

    def __init__(
        self,
        obj: object,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> None:
        wrapped = _arrays(obj)
        layer: Any = obj if _is_layer(obj) else None
        named = layer if layer is not None else wrapped[0] if _is_labelled(wrapped[0]) else None
        self.name = str(getattr(named, "name", None) or "array")
        self.notes = []
        axes = self._axes(wrapped[0], layer, plane)
        arrays = [_unwrap(array) for array in wrapped]
        if any(array.ndim != len(axes) for array in arrays):
            raise ImageReadError(f"{self.name}: the levels do not have the same number of axes")
        sizes = dict(zip(axes, arrays[0].shape, strict=True))
        choices = {axis: size for axis, size in sizes.items() if axis not in SPATIAL}
        self.set_plane(choices, plane)
        is_rgb = sizes.get("c") == 3 and np.dtype(arrays[0].dtype) == np.uint8
        self.set_channels(
            sizes.get("c", 1), channels, is_rgb=is_rgb or bool(getattr(layer, "rgb", False))
        )
        self.dtype = native_dtype(self.name, np.dtype(arrays[0].dtype))
        self.in_memory = all(isinstance(array, np.ndarray) for array in arrays)
        content = fingerprint.of_array(arrays[0]) if self.in_memory else None
        self.persistent = content is not None
        self.fingerprint = content or fingerprint.random_token()
        if content is not None and axes[-2:] != ("y", "x") and axes[-3:] != SPATIAL:
            # The same numbers in another order of axes are another image.
            self.fingerprint = fingerprint.of_text(content, *axes)
        self.set_series([Series("0", shape=(int(sizes["y"]), int(sizes["x"])))], series)
        if not self.persistent:
            self.notes.append("results are not kept for another session")
        self.pixel_size = _layer_pixel_size(layer)
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        self._views = [self._make_view(array, axes) for array in arrays]
        self.set_levels([(view.shape, view.tile) for view in self._views])

    def _axes(self, array: Any, layer: Any, plane: Mapping[str, int]) -> tuple[str, ...]:
        """Return the names of an array's axes."""
        dims = _dims(array) if layer is None else None
        if dims is not None:
            return self._named_axes(dims)
        ndim = array.ndim
        if layer is not None:
            colour = bool(layer.rgb)
        else:
            colour = ndim > 2 and array.shape[-1] <= MAX_COLOUR_CHANNELS
        leading = ndim - 2 - colour
        if leading < 0:
            raise ImageReadError(f"{self.name} has {ndim} axes; an image has at least y and x")
        labels = tuple(getattr(layer, "axis_labels", ()) or ())[:leading]
        single = [label.lower() for label in labels if len(label) == 1]
        if len(single) == leading and len({*single, "y", "x", "c"} - {"c"}) == leading + 2:
            names = "".join(single).replace("c", "k")
        elif leading <= 6:
            names = "uvwstz"[6 - leading :]
        else:
            raise ImageReadError(f"{self.name} has {ndim} axes; at most 8 are read")
        if layer is None and leading and not colour and names[-1] not in plane:
            self._warn_if_ambiguous(array.shape, names[-1])
        return (*names, "y", "x", *("c" * colour))

    def _named_axes(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        axes = tuple(DIM_NAMES.get(name.lower(), name) for name in dims)
        if len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
            raise ParameterError(
                f"{self.name} has the dimensions {', '.join(dims)}: rename them so that there is "
                "one y and one x, and at most one channel"
            )
        return axes

    def _warn_if_ambiguous(self, shape: tuple[int, ...], axis: str) -> None:
        """Warn about an array that may have its channels first."""
        count = shape[-3]
        if not 1 < count <= MAX_COLOUR_CHANNELS:
            return
        message = (
            f"an array of shape {tuple(map(int, shape))} is read as {count} planes along "
            f"{axis!r}, of which {axis}=0 is used; if the axis holds channels, pass "
            "np.moveaxis(array, -3, -1), or an xarray.DataArray with dims (c, y, x)"
        )
        warnings.warn(message, stacklevel=6)  # the caller of open_pyramid

    def _make_view(self, array: Any, axes: tuple[str, ...]) -> Any:
        if hasattr(array, "store") and hasattr(array, "metadata"):
            return ZarrTiles(array, axes, self.plane, self.selected_channels)
        return _ArrayView(array, axes, self.plane, self.selected_channels)

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Slice a tile out of an array."""
        view = self._views[level]
        (h, w, _), (th, tw) = view.shape, view.tile
        y, x = row * th, column * tw
        pixels, size, *_ = view.read(y, min(y + th, h), x, min(x + tw, w))
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        return DecodedTile(pixels.astype(self.dtype, copy=False), size)


class _ArrayView:
    """A plane of an array that is indexed like NumPy's, as ``(h, w, c)`` in virtual tiles."""

    def __init__(
        self,
        array: Any,
        axes: tuple[str, ...],
        plane: Mapping[str, int],
        channels: tuple[int, ...] | None,
    ) -> None:
        self._array = array
        self._axes = axes
        self._plane = plane
        self._channels = channels
        size = dict(zip(axes, array.shape, strict=True))
        count = size.get("c", 1) if channels is None else len(channels)
        self.shape = int(size["y"]), int(size["x"]), int(count)
        self.tile = TILE, TILE

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window."""
        window = self._array[plane_selection(self._axes, self._plane, (y0, y1, x0, x1))]
        if hasattr(window, "compute"):
            # Tiles are read from many threads already; dask's own pool would only add to them.
            window = window.compute(scheduler="synchronous")
        pixels = to_yxc(np.asarray(window), self._axes, self._channels)
        return DecodedTile(pixels, pixels.nbytes)


def _layer_pixel_size(layer: Any) -> tuple[float, float] | None:
    """Return a layer's scale in µm, if its units are lengths."""
    units = tuple(getattr(layer, "units", ()) or ())
    if layer is None or len(units) < 2:
        return None
    sides = [
        micrometres(float(length), str(unit))
        for length, unit in zip(tuple(layer.scale)[-2:], units[-2:], strict=True)
    ]
    match sides:
        case [float(y), float(x)]:
            return y, x
    return None
