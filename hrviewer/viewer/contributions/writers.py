"""Writers of layers, of hrviewer's and of any other.

Images and labels become OME-Zarr, placed as in the window; points and shapes GeoJSON in pixels of
their layer; vectors a table; surfaces Wavefront's OBJ. Several layers go into one OME-Zarr, with
all but images and labels in its folder ``geometry``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

from hrviewer.escaping import plain_text
from hrviewer.io.array_writer import (
    WritableImage,
    axis_aligned,
    name_axes,
    unique_name,
    write_arrays,
)
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.geojson import as_geojson
from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.layers.layer_features import LayerData, features_of, shape_type

__all__ = [
    "write_image",
    "write_labels",
    "write_layers",
    "write_points",
    "write_shapes",
    "write_surface",
    "write_vectors",
]

SUFFIXES = {"points": ".geojson", "shapes": ".geojson", "vectors": ".csv", "surface": ".obj"}


def write_image(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write an image."""
    return write_layers(path, [(data, settings, "image")])


def write_labels(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write labels."""
    return write_layers(path, [(data, settings, "labels")])


def write_points(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write points."""
    return write_layers(path, [(data, settings, "points")])


def write_shapes(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write shapes."""
    return write_layers(path, [(data, settings, "shapes")])


def write_vectors(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write vectors."""
    return write_layers(path, [(data, settings, "vectors")])


def write_surface(path: str, data: Any, settings: dict[str, Any]) -> list[str]:
    """Write a surface."""
    return write_layers(path, [(data, settings, "surface")])


def write_layers(path: str, layers: list[LayerData]) -> list[str]:
    """Write layers, in the format of the name's suffix.

    Raises
    ------
    HrviewerError
        If the target exists or cannot be written, or a layer cannot be written.
    """
    from napari.utils.notifications import show_warning

    for _, settings, _ in layers:
        completion = settings.get("metadata", {}).get(METADATA_KEY, {}).get("completion")
        if completion is not None and not completion.is_final:
            show_warning(
                plain_text(f"{settings['name']} belongs to a run in progress: saved as it is now")
            )
    images = [layer for layer in layers if layer[2] in ("image", "labels")]
    others = [layer for layer in layers if layer[2] not in ("image", "labels")]
    with atomic_path(path) as part:
        if not images and len(others) == 1:
            write_geometry(others[0], part)
        else:
            write_omezarr(images, others, part)
    return [path]


def write_omezarr(images: list[LayerData], others: list[LayerData], target: Path) -> None:
    """Write an OME-Zarr, with all but images in its folder ``geometry``."""
    from napari.utils.notifications import show_warning

    pictures = []
    for layer in images:
        made, whole = writable_image(layer)
        pictures.append(made)
        if not whole:
            show_warning(
                plain_text(f"{made.name} is turned or sheared: its pixels are saved without that")
            )
    if pictures:
        write_arrays(pictures, target)
    folder = target / "geometry"
    folder.mkdir(parents=True) if others else None
    taken: list[str] = []
    for layer in others:
        taken.append(unique_name(layer[1]["name"], taken))
        write_geometry(layer, folder / f"{taken[-1]}{SUFFIXES[layer[2]]}")


def write_geometry(layer: LayerData, target: Path) -> None:
    """Write points, shapes, vectors or a surface."""
    data, _, kind = layer
    if kind == "vectors":
        write_vectors_csv(np.asarray(data), target)
    elif kind == "surface":
        write_surface_obj(data, target)
    else:
        write_feature_collection(layer, target)


# Images.


def writable_image(layer: LayerData) -> tuple[WritableImage, bool]:
    """Return an image or labels placed in the world, and whether their transform is kept."""
    import dask.array as da

    data, settings, kind = layer
    finest = data[0] if settings.get("multiscale") else data
    array = finest if isinstance(finest, da.Array) else da.from_array(finest)
    rgb = bool(settings.get("rgb"))
    matrix, offset = layer_to_world(settings)
    n = len(matrix)
    axes = name_axes(list(map(str, settings.get("axis_labels", ()))), n)
    if rgb:
        # Colours are an axis before z, which the window does not count.
        at = axes.index("z") if "z" in axes else n - 2
        array, axes = da.moveaxis(array, -1, at), f"{axes[:at]}c{axes[at:]}"
        matrix = np.insert(np.insert(matrix, at, 0, axis=0), at, 0, axis=1)
        matrix[at, at], offset = 1, np.insert(offset, at, 0)
    turned, scale, translate, whole = axis_aligned(array, matrix, offset)
    unit = str(settings["units"][-1]) if settings.get("units") is not None else "pixel"
    known = "" if unit in ("pixel", "px", "dimensionless") else unit
    name, labels = settings["name"], kind == "labels"
    place = scale.tolist(), translate.tolist()
    return WritableImage(name, turned, axes, *place, known, labels), whole


def layer_to_world(settings: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a layer's transform from pixels to the world: a matrix and an offset."""
    from napari.utils.transforms import Affine

    own = Affine(
        scale=settings["scale"], translate=settings["translate"], rotate=settings["rotate"],
        shear=settings["shear"],
    ).affine_matrix  # fmt: skip
    whole = np.asarray(settings["affine"], float) @ own
    return whole[:-1, :-1], whole[:-1, -1]


# Points, shapes, vectors and surfaces.


def write_feature_collection(layer: LayerData, target: Path) -> None:
    """Write points or shapes."""
    _, settings, kind = layer
    names = uuid5(NAMESPACE_URL, f"hrviewer:{settings['name']}")
    features = []
    for i, feature in enumerate(features_of(layer)):
        held = as_geojson(feature, names)
        if kind == "shapes" and shape_type(settings, i) in ("line", "path"):
            (ring,) = feature.polygons[0]
            held["geometry"] = {"type": "LineString", "coordinates": ring[:, ::-1].tolist()}
        features.append(held)
    text = json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)
    target.write_text(text, "utf-8")


def write_vectors_csv(data: NDArray[np.float64], target: Path) -> None:
    """Write vectors as a table: start and extent, in pixels."""
    import pandas as pd

    names = axis_names(data.shape[2])
    data = data[data[:, 1].any(axis=1)]  # an empty layer has one of no length
    columns = {name: data[:, 0, i] for i, name in enumerate(names)}
    columns |= {f"d{name}": data[:, 1, i] for i, name in enumerate(names)}
    pd.DataFrame(columns).to_csv(target, index=False)


def axis_names(n: int) -> Sequence[str]:
    """Return names for a layer's axes."""
    return "tczyx"[-n:]


def write_surface_obj(data: Any, target: Path) -> None:
    """Write a surface, ``(x, y, z)``; its values become the first texture coordinate."""
    from vispy.io import write_mesh

    vertices, faces, *more = data
    corners = np.zeros((len(vertices), 3))
    corners[:, : np.shape(vertices)[1]] = np.asarray(vertices)[:, ::-1]
    values = np.asarray(more[0] if more else np.ones(len(corners)), float)
    texture = np.column_stack([values.reshape(-1, len(corners))[0], np.zeros(len(corners))])
    # It goes by the name's ending, which what is written beside its place has not.
    named = target.with_name(target.name + ".obj")
    try:
        write_mesh(str(named), corners, np.asarray(faces), None, texture, overwrite=True)
        named.replace(target)
    finally:
        named.unlink(missing_ok=True)
