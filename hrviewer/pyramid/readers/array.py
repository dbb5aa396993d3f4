"""Arrays in memory and lazy ones: NumPy, dask, zarr, lists of them, napari's image layers.

Axes: the last two are y and x, or y, x and channel where the last is no longer than 4 (or a
layer says it is RGB). Axes in front choose a plane; they are called t, z, or by the layer's
one-letter labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.readers.base import Reader, native_dtype, select_channels, select_plane
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import micrometres
from hrviewer.pyramid.zarr_tiles import ZarrTiles

__all__ = ["ArrayReader", "find_level"]

TILE = 512
MAX_COLOUR_CHANNELS = 4


def _arrays(obj: object) -> list[Any]:
    """Return the levels of whatever it is, finest first; none if it is not made of arrays."""
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


def find_level(obj: object) -> Level | None:
    """Return the level whose zarr view this is, or is a layer or list of."""
    arrays = _arrays(obj)
    store = getattr(arrays[0], "store", None) if arrays else None
    level = getattr(store, "level", None)
    return level if isinstance(level, Level) else None


class ArrayReader(Reader):
    """A picture that somebody holds already."""

    priority = 10

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is an array, a list of arrays or a layer of them."""
        return bool(_arrays(obj))

    @classmethod
    def open(cls, obj: object, *, plane: Mapping[str, int], channels: Sequence[int] | None) -> Self:
        """Wrap arrays."""
        return cls(obj, plane, channels)

    def __init__(
        self, obj: object, plane: Mapping[str, int], channels: Sequence[int] | None
    ) -> None:
        arrays = _arrays(obj)
        layer: Any = obj if _is_layer(obj) else None
        self.name = str(layer.name) if layer is not None and hasattr(layer, "name") else "array"
        self.notes = []
        axes = self._axes(arrays[0], layer)
        if any(array.ndim != len(axes) for array in arrays):
            raise HrviewerError(f"{self.name}: the levels do not have the same number of axes")
        sizes = dict(zip(axes, arrays[0].shape, strict=True))
        choices = {axis: size for axis, size in sizes.items() if axis not in "yxc"}
        self.plane = select_plane(self.name, choices, plane, self.notes)
        self.selected_channels = select_channels(self.name, sizes.get("c", 1), channels)
        self.dtype = native_dtype(self.name, np.dtype(arrays[0].dtype))
        self.in_memory = all(isinstance(array, np.ndarray) for array in arrays)
        content = fingerprint.of_array(arrays[0]) if self.in_memory else None
        self.persistent = content is not None
        self.fingerprint = content or fingerprint.random_token()
        if not self.persistent:
            self.notes.append("results are not kept for another session")
        self.pixel_size = _layer_pixel_size(layer)
        if self.pixel_size is None:
            self.notes.append("pixel size unknown")
        self._views = [self._make_view(array, axes) for array in arrays]
        self.set_levels([(view.shape, view.tile) for view in self._views])

    def _axes(self, array: Any, layer: Any) -> str:
        ndim = array.ndim
        if layer is not None:
            colour = bool(layer.rgb)
        else:
            colour = ndim > 2 and array.shape[-1] <= MAX_COLOUR_CHANNELS
        ahead = ndim - 2 - colour
        if ahead < 0:
            raise HrviewerError(f"{self.name} has {ndim} axes; an image has at least y and x")
        labels = tuple(getattr(layer, "axis_labels", ()) or ())[:ahead]
        single = [label.lower() for label in labels if len(label) == 1]
        if len(single) == ahead and len({*single, "y", "x", "c"} - {"c"}) == ahead + 2:
            names = "".join(single).replace("c", "k")
        elif ahead <= 6:
            names = "uvwstz"[6 - ahead :]
        else:
            raise HrviewerError(f"{self.name} has {ndim} axes; at most 8 are read")
        return f"{names}yx{'c' if colour else ''}"

    def _make_view(self, array: Any, axes: str) -> Any:
        if hasattr(array, "store") and hasattr(array, "metadata"):
            return ZarrTiles(array, axes, self.plane, self.selected_channels)
        return _ArrayView(array, axes, self.plane, self.selected_channels)

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Cut a tile out of an array."""
        view = self._views[level]
        (h, w, _), (th, tw) = view.shape, view.tile
        y, x = row * th, column * tw
        pixels, size, _ = view.read(y, min(y + th, h), x, min(x + tw, w))
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        return DecodedTile(pixels.astype(self.dtype, copy=False), size)


class _ArrayView:
    """A plane of anything that is indexed like NumPy, as ``(h, w, c)`` in virtual tiles."""

    def __init__(
        self, array: Any, axes: str, plane: Mapping[str, int], channels: tuple[int, ...] | None
    ) -> None:
        self._array = array
        self._plane_index = tuple(plane[axis] for axis in axes if axis not in "yxc")
        self._channels = channels
        size = dict(zip(axes, array.shape, strict=True))
        count = size.get("c", 1) if channels is None else len(channels)
        self.shape = int(size["y"]), int(size["x"]), int(count)
        self.tile = TILE, TILE

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window."""
        window = self._array[(*self._plane_index, slice(y0, y1), slice(x0, x1))]
        if hasattr(window, "compute"):
            # Tiles are read from many threads already; dask's own pool would only add to them.
            window = window.compute(scheduler="synchronous")
        pixels = np.asarray(window)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if self._channels is not None:
            pixels = pixels[..., list(self._channels)]
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
