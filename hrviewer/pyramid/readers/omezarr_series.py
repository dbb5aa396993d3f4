"""Images of an OME-Zarr: fields of a plate, a collection's images, several multiscales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.series import Series, kind_by_name
from hrviewer.pyramid.value_range import stored_range
from hrviewer.pyramid.zarr_tiles import ZarrTiles

__all__ = [
    "MASK_PATH",
    "ZarrImage",
    "child",
    "find_images",
    "iter_fields",
    "list_fields",
    "multiscales",
    "ome_attributes",
    "read_mask",
    "read_windows",
]

MASK_PATH = "labels/no_data"
"""Where an image that hrviewer wrote has its mask, as labels that other programs display."""

MAX_REQUESTS = 16
"""Wells that are read at once."""

MAX_ENTRIES = 1000
"""Images of one group and their levels together; each is opened."""

MAX_DEPTH = 3
"""Depth to which a store without OME metadata of its own is searched for images."""


@dataclass(frozen=True)
class ZarrImage:
    """One multiscale image: its group, its metadata, and how it is listed."""

    group: Any
    multiscale: Mapping[str, Any]
    series: Series


def ome_attributes(group: Any) -> dict[str, Any]:
    """Return the OME attributes, which version 0.5 stores under the key ``ome``."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def multiscales(group: Any) -> list[dict[str, Any]]:
    """Return the multiscales of a group; none if it is not an image."""
    entries = ome_attributes(group).get("multiscales", []) if hasattr(group, "attrs") else []
    found = [entry for entry in entries if isinstance(entry, dict)] if entries else []
    levels = sum(len(entry.get("datasets") or ()) for entry in found)
    if len(found) + levels > MAX_ENTRIES:
        raise ImageReadError(
            f"{group.name} lists {len(found):,} images of {levels:,} levels, more than any image "
            "has: the metadata are damaged"
        )
    return found


def child(group: Any, path: str) -> Any:
    """Return the node at a path, None if there is none."""
    if not path:
        return None
    try:
        return group[path]
    except (KeyError, FileNotFoundError):
        return None


def read_windows(group: Any) -> tuple[float, float] | None:
    """Return the smallest and largest value of all channels, by an image's omero metadata."""
    omero = ome_attributes(group).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    try:
        windows = [channel["window"] for channel in channels or ()]
        ends = [(float(window["min"]), float(window["max"])) for window in windows]
    except (KeyError, TypeError, ValueError):
        return None
    return (
        stored_range(min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
    )


def find_images(group: Any) -> list[ZarrImage]:
    """Return the images of a group that is no plate, in the order that its metadata gives."""
    own = multiscales(group)
    if own:
        return [
            ZarrImage(group, entry, _series(group, entry, str(i))) for i, entry in enumerate(own)
        ]
    if "bioformats2raw.layout" in ome_attributes(group):
        found = [(path, child(group, path)) for path in _collection_paths(group)]
    else:
        found = list(_search(group, "", MAX_DEPTH))
    return [
        ZarrImage(node, entries[0], _series(node, entries[0], path))
        for path, node in found
        if node is not None and (entries := multiscales(node))
    ]


def iter_fields(group: Any) -> Iterator[str]:
    """Yield the paths of a plate's fields; a well that does not list any may have a field 0."""
    for path in _well_paths(group):
        yield from _fields_of_well(group, path)


def list_fields(group: Any) -> list[str]:
    """Return the paths of a plate's fields; several wells are read at once, as they may be remote.

    Parameters
    ----------
    group : zarr.Group
        The plate.
    """
    with ThreadPoolExecutor(MAX_REQUESTS) as pool:
        found = pool.map(lambda path: _fields_of_well(group, path), _well_paths(group))
        return [field for fields in found for field in fields]


def _well_paths(group: Any) -> list[str]:
    return [str(well.get("path", "")) for well in ome_attributes(group)["plate"].get("wells", ())]


def _fields_of_well(group: Any, path: str) -> list[str]:
    node = child(group, path)
    if node is None:
        return []
    images = ome_attributes(node).get("well", {}).get("images", [{"path": "0"}])
    return [f"{path}/{image.get('path')}" for image in images]


def read_mask(
    image: Any, shapes: Sequence[tuple[int, int]], plane: Mapping[str, int]
) -> list[ZarrTiles]:
    """Return the levels of the mask that hrviewer writes with an image, 1 where it has no data.

    Parameters
    ----------
    image : zarr.Group
        The image.
    shapes : sequence of (int, int)
        Height and width of its levels; a mask of other levels is not used.
    plane : mapping
        The plane that is read.
    """
    own = image.attrs.get("hrviewer")
    path = own.get("mask") if isinstance(own, dict) else None
    node = child(image, MASK_PATH) if path == MASK_PATH else None
    found = []
    for multiscale in multiscales(node)[:1]:
        axes = "".join(str(axis.get("name")) for axis in multiscale.get("axes", ()))
        for dataset in multiscale.get("datasets", ()):
            array = child(node, str(dataset.get("path", "")))
            if array is None or getattr(array, "ndim", 0) != len(axes):
                return []
            found.append(ZarrTiles(array, axes, plane))
    return found if [tiles.shape[:2] for tiles in found] == list(shapes) else []


def _collection_paths(group: Any) -> list[str]:
    """Return the paths of a collection's images: as its metadata lists them, or numbered."""
    metadata = child(group, "OME")
    listed = [] if metadata is None else ome_attributes(metadata).get("series", [])
    if isinstance(listed, list) and listed:
        return [str(path) for path in listed]
    paths: list[str] = []
    while child(group, str(len(paths))) is not None:
        paths.append(str(len(paths)))
    return paths


def _search(group: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the images below a group of a local store, but no label images."""
    for name, node in sorted(group.groups()) if depth else ():
        if multiscales(node):
            yield f"{prefix}{name}", node
        elif name != "labels":
            yield from _search(node, f"{prefix}{name}/", depth - 1)


def _series(group: Any, multiscale: Mapping[str, Any], identity: str) -> Series:
    datasets = multiscale.get("datasets") or [{}]
    array = child(group, str(datasets[0].get("path", "")))
    axes = [axis.get("name") if isinstance(axis, dict) else axis for axis in
            multiscale.get("axes", "tczyx")]  # fmt: skip
    shape = getattr(array, "shape", ())
    sizes = dict(zip(axes, shape, strict=False)) if len(axes) == len(shape) else {}
    name = str(multiscale.get("name") or "")
    title = name if name not in ("", "/") else ""
    size = (int(sizes["y"]), int(sizes["x"])) if {"y", "x"} <= sizes.keys() else None
    return Series(identity, title, size, kind_by_name(title))
