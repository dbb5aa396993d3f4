"""Maps of a run as lazy labelled arrays: xarray's DataArray, or `LazyMap` without xarray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.io.exportable import Exportable
from hrviewer.io.run_maps import MAP_NAMES, RunMap, open_map

__all__ = ["LazyMap", "RunMaps"]

DIMS = ("channel", "y", "x")


@dataclass(frozen=True, eq=False)
class LazyMap:
    """A map that is read when it is indexed; the attributes are those of an xarray DataArray.

    Parameters
    ----------
    name : str
        ``output``, ``saliency``, ``cost`` or ``embeddings``.
    data : zarr.Array, shape (channels, rows, columns)
        The stored cells; NaN outside the processed patches.
    coords : dict of str to ndarray
        ``channel``: names; ``y`` and ``x``: centres of the cells, in level-0 pixels.
    attrs : dict
        ``units``: unit of the values, or a tuple of one per channel; ``cell``: side of a cell in
        level-0 pixels; ``pixel_size``: µm per level-0 pixel, ``(y, x)``, or None.
    """

    name: str
    data: Any
    coords: dict[str, NDArray[Any]]
    attrs: dict[str, Any]
    dims: tuple[str, str, str] = DIMS

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, rows and columns."""
        return tuple(self.data.shape)

    @property
    def sizes(self) -> dict[str, int]:
        """The shape by dimension."""
        return dict(zip(self.dims, self.shape, strict=True))

    @property
    def ndim(self) -> int:
        """Three."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the cells."""
        dtype: np.dtype[Any] = self.data.dtype
        return dtype

    @property
    def values(self) -> NDArray[Any]:
        """The whole map, read now."""
        return np.asarray(self.data[:])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a part, by positions."""
        return np.asarray(self.data[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.values if dtype is None else self.values.astype(dtype, copy=False)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}: {size}" for dim, size in self.sizes.items())
        return f"<LazyMap {self.name!r} ({sizes}) {self.dtype}, cells of {self.attrs['cell']:g} px>"


class RunMaps(Mapping[str, Any]):
    """The maps of a run by name, opened when they are looked up.

    Parameters
    ----------
    run : Exportable
        The run.
    """

    def __init__(self, run: Exportable) -> None:
        self._run = run

    def __getitem__(self, name: str) -> Any:
        if name not in MAP_NAMES:
            raise KeyError(name)
        try:
            return labelled(open_map(self._run, name), self._run.header["image"]["pixel_size"])
        except HrviewerError as error:
            raise KeyError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return (name for name in MAP_NAMES if (self._run.path / name / "zarr.json").is_file())

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<RunMaps of {self._run.path.name}: {', '.join(self)}>"


def labelled(run_map: RunMap, pixel_size: list[float] | None) -> Any:
    """Return a map as a DataArray over dask if xarray and dask are installed, else as `LazyMap`."""
    _, rows, columns = run_map.cells.shape
    coords = {
        "channel": np.array(run_map.labels),
        "y": (np.arange(rows) + 0.5) * run_map.cell,
        "x": (np.arange(columns) + 0.5) * run_map.cell,
    }
    units = run_map.units[0] if len(set(run_map.units)) == 1 else run_map.units
    attrs = {
        "units": units,
        "cell": run_map.cell,
        "pixel_size": None if pixel_size is None else (pixel_size[0], pixel_size[1]),
    }
    try:
        da, xarray = (import_module(name) for name in ("dask.array", "xarray"))
    except ImportError:
        return LazyMap(run_map.name, run_map.cells, coords, attrs)
    return xarray.DataArray(da.from_zarr(run_map.cells), coords, DIMS, run_map.name, attrs)
