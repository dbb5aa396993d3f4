"""Maps in a run folder, opened only if hrviewer can have written them.

A run folder may come from anybody. Before zarr opens a map, its metadata are compared with what
hrviewer writes: Zarr 3, floating-point numbers, chunks of bounded size, no compressor but Zstandard
and no other codec, so that nothing in it chooses a decoder. Chunks are regular files, are
decompressed only if they hold exactly a chunk, and are compared with their checksum.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hrviewer.errors import HrviewerError, RunError, short_message, validation_error
from hrviewer.pyramid.chunk_size import zstd_content_size

__all__ = ["open_stored_map", "read_cells", "read_limited_json"]

MAX_METADATA_BYTES = 1 << 20
"""Of the ``zarr.json`` of a map."""

MAX_CHUNK_BYTES = 256 << 20
"""Of a decoded chunk: more than any encoder's embeddings need."""

MAX_SIDE = 1 << 31
"""Of an axis of a map."""

MAX_CHANNELS = 1 << 14
"""Of a map: classes, or numbers of an embedding."""

Side = Annotated[int, Field(ge=0, lt=MAX_SIDE)]


class Named(BaseModel):
    """A grid, an encoding or a codec, with its settings."""

    model_config = ConfigDict(strict=True)
    name: str
    configuration: dict[str, Any] = {}


class MapMetadata(BaseModel):
    """The ``zarr.json`` of an array as hrviewer writes it."""

    model_config = ConfigDict(strict=True)
    zarr_format: Literal[3]
    node_type: Literal["array"]
    data_type: Literal["float16", "float32", "float64"]
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)]
    chunk_grid: Named
    chunk_key_encoding: Named
    codecs: list[Named]
    storage_transformers: Annotated[list[Any], Field(max_length=0)] = []

    @property
    def chunk(self) -> list[Any]:
        """Shape of a chunk."""
        return list(self.chunk_grid.configuration.get("chunk_shape", ()))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return int(math.prod(self.chunk)) * int(self.data_type.removeprefix("float")) // 8

    @model_validator(mode="after")
    def check_chunks(self) -> MapMetadata:
        """Refuse other grids, other codecs and large chunks."""
        if self.chunk_grid.name != "regular" or self.chunk_key_encoding.name != "default":
            raise ValueError("its chunks are named otherwise than hrviewer does")
        if [codec.name for codec in self.codecs] != ["bytes", "zstd"]:
            names = ", ".join(codec.name for codec in self.codecs)
            raise ValueError(f"its codecs are {names[:80]}, those of hrviewer bytes, zstd")
        if self.shape[0] > MAX_CHANNELS:
            raise ValueError(f"it has {self.shape[0]:,} channels")
        sides = self.chunk
        if len(sides) != 3 or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError("its chunks have no shape of three sides")
        if self.chunk_bytes > MAX_CHUNK_BYTES:
            raise ValueError(f"a chunk has more than {MAX_CHUNK_BYTES >> 20} MiB")
        return self


class MapAttributes(BaseModel):
    """Attributes of a map under ``hrviewer``."""

    cell: Annotated[float, Field(gt=0, lt=MAX_SIDE, allow_inf_nan=False)]


def open_stored_map(
    folder: Path, name: str, image_shape: Sequence[int]
) -> tuple[Any, dict[str, Any]]:
    """Open a map of a run folder, without reading a chunk.

    Parameters
    ----------
    folder : Path
        The run folder.
    name : str
        Name of the map.
    image_shape : sequence of int
        Height and width of the run's image, which the map covers.

    Returns
    -------
    zarr.Array
        ``(channels, rows, columns)``.
    dict
        The attributes of its group; ``hrviewer`` has the ``cell``.

    Raises
    ------
    RunError
        If there is no such map, or hrviewer did not write it.
    """
    path = folder / name
    if not (path / "zarr.json").is_file():
        raise RunError(f"{folder} has no {name} map: resume the run first")
    subject = f"{path} was not written by hrviewer"
    try:
        attributes = read_limited_json(path / "zarr.json", MAX_METADATA_BYTES)["attributes"]
        MapAttributes.model_validate(attributes["hrviewer"])
        found = read_limited_json(path / "0" / "zarr.json", MAX_METADATA_BYTES)
        metadata = MapMetadata.model_validate(found)
        if not (path / "0").resolve().is_relative_to(folder.resolve()):
            raise ValueError("it lies outside of the run folder")
        import zarr

        array = zarr.open_array(_checked_store()(path / "0", metadata.chunk_bytes), mode="r")
        require_map_shape(array.shape[1:], image_shape, attributes["hrviewer"]["cell"])
    except ValidationError as error:
        raise validation_error(error, subject, kind=RunError) from None
    except HrviewerError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{subject}: {short_message(error)}") from None
    return array, dict(attributes)


def require_map_shape(shape: Sequence[int], image_shape: Sequence[int], cell: float) -> None:
    """Raise a ValueError unless a map has as many cells as cover the image."""
    expected = [side / cell for side in image_shape]
    if any(abs(n - e) > 1 for n, e in zip(shape, expected, strict=True)):
        raise ValueError(f"it has {shape[0]} × {shape[1]} cells, which do not cover the image")


def read_cells(cells: Any, rows: slice, columns: slice) -> NDArray[np.floating[Any]]:
    """Read a part of a map that lies in one of its chunks.

    That of a stored map is decoded once, beside zarr's event loop: several threads may read.

    Parameters
    ----------
    cells : array, shape (channels, rows, columns)
        A map of `open_stored_map`, or any other array.
    rows, columns : slice
        Bounds of the part, without steps.

    Raises
    ------
    RunError
        If the chunk is damaged.
    """
    store = getattr(cells, "store", None)
    if not isinstance(store, _checked_store()):
        return np.asarray(cells[:, rows, columns])
    depth, high, wide = cells.chunks
    i, j = rows.start // high, columns.start // wide
    if rows.stop > (i + 1) * high or columns.stop > (j + 1) * wide:
        return np.asarray(cells[:, rows, columns])
    y, x = rows.start - i * high, columns.start - j * wide
    found = np.full(
        (cells.shape[0], rows.stop - rows.start, columns.stop - columns.start),
        cells.fill_value, cells.dtype,
    )  # fmt: skip
    size = depth * high * wide * cells.dtype.itemsize
    for first in range(0, cells.shape[0], depth):
        file = Path(store.root) / "c" / str(first // depth) / str(i) / str(j)
        try:
            require_regular_file(file, 2 * size + 1024)
        except FileNotFoundError:
            continue
        chunk = np.frombuffer(check_chunk(file.read_bytes(), size, file), cells.dtype)
        part = chunk.reshape(depth, high, wide)[:, y : y + found.shape[1], x : x + found.shape[2]]
        found[first : first + depth] = part[: cells.shape[0] - first]
    return found


def read_limited_json(path: Path, limit: int) -> dict[str, Any]:
    """Return the object in a JSON file of bounded size and depth.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is too large or too deep, or holds no object.
    """
    require_regular_file(path, limit)
    try:
        found = json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def require_regular_file(path: Path, limit: int) -> None:
    """Refuse devices, pipes, links to them, and files larger than `limit` bytes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    if found.st_size > limit:
        raise ValueError(f"{path.name} has more than {limit:,} bytes")


@cache
def _checked_store() -> Any:
    from zarr.storage import LocalStore

    class CheckedStore(LocalStore):
        """Store of one array, which returns only chunks that decode to a chunk of it."""

        def __init__(self, root: Path, chunk_bytes: int = 0, *, read_only: bool = True) -> None:
            super().__init__(root, read_only=True)
            self._chunk_bytes = chunk_bytes

        def with_read_only(self, read_only: bool = False) -> CheckedStore:
            """Return the store; it cannot be written."""
            if not read_only:
                raise ValueError("a map of a finished run is read-only")
            return CheckedStore(Path(self.root), self._chunk_bytes)

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            file = Path(self.root) / key
            is_chunk = key.rpartition("/")[2] != "zarr.json"
            try:
                limit = 2 * self._chunk_bytes + 1024 if is_chunk else MAX_METADATA_BYTES
                require_regular_file(file, limit)
            except FileNotFoundError:
                return None
            value = await super().get(key, prototype, byte_range)
            if is_chunk and value is not None and byte_range is None:
                # Decoded here first, since zarr's errors name no file.
                check_chunk(value.as_numpy_array().tobytes(), self._chunk_bytes, file)
            return value

    return CheckedStore


def check_chunk(data: bytes, size: int, file: Path) -> bytes:
    """Decode a chunk; refuse one that has not `size` bytes, or that its checksum does not fit."""
    from numcodecs.zstd import Zstd

    if zstd_content_size(data[:18]) != size:
        raise RunError(f"{file} was not written by hrviewer: it is no chunk of this map")
    try:
        decoded = bytes(Zstd().decode(data))
    except (RuntimeError, ValueError):
        decoded = b""
    if len(decoded) != size:
        raise RunError(f"{file} is damaged: resume or repeat the run")
    return decoded
