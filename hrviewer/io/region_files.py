"""Regions read from annotation files, and written as features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import GroundTruthError, HrviewerError, short_message
from hrviewer.geometry import Rect
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import MISMATCHES, existing_file, read_features
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.ground_truth.label_maps import is_label_map, iter_windows, open_labels
from hrviewer.io.ground_truth.outlines import read_outlines
from hrviewer.io.map_regions import MAP_SUFFIXES, read_map_features
from hrviewer.io.run_lengths import united_boxes
from hrviewer.pyramid.georeference import Georeference
from hrviewer.regions import Region

__all__ = ["feature_of_region", "read_regions", "unique_names"]


def read_regions(
    path: str | Path, image: str, shape: tuple[int, int], place: Georeference | None = None
) -> list[Region]:
    """Read the regions of an image.

    Formats: polygons with holes in GeoJSON (also QuPath's), COCO (also masks in run lengths) and
    annotations of the Digital Slide Archive, shapefiles, GeoPackages and FlatGeobuf in map
    coordinates, label maps (TIFF, OME-Zarr; a region for each number), and boxes in CSV and Pascal
    VOC. Points in the file are left out.

    Parameters
    ----------
    path : str or Path
        The file.
    image : str
        Name of the image; selects it in files that cover several images.
    shape : tuple of int
        Height and width of the image, level-0 pixels.
    place : Georeference, optional
        Its place on the map.

    Returns
    -------
    list of Region
        Named as in the file, otherwise by their class; names that are not unique get a number.

    Raises
    ------
    HrviewerError
        If the file is missing, damaged, of another format, about another image or without an area.
    """
    path = existing_file(path, MAP_SUFFIXES)
    suffix = path.suffix.lower()
    try:
        if suffix in (".json", ".geojson"):
            features = list(read_outlines(path, ImageRef(image, shape)))
        elif suffix in MAP_SUFFIXES:
            features = list(read_map_features(path, place))
        elif is_label_map(path):
            features = list(label_features(path, ImageRef(image, shape)))
        elif suffix in (".csv", ".xml"):
            features = read_features(path, image, shape)
        else:
            raise GroundTruthError(
                f"{path.name} has no outlines: give regions as GeoJSON, COCO, an annotation of the "
                "Digital Slide Archive, a GeoPackage, a label map, or boxes in CSV"
            )
        areas = [feature for feature in features if feature.polygons]
        regions = [
            Region.from_polygons(feature.polygons, feature.name or feature.label, feature.label)
            for feature in areas
        ]
    except HrviewerError:
        raise
    except (OSError, LookupError, ArithmeticError, *MISMATCHES) as error:
        why = short_message(error)
        raise GroundTruthError(f"{path.name} cannot be read as regions: {why}") from None
    if not regions:
        raise GroundTruthError(f"{path.name} marks no area of the image: draw a shape")
    if all(region.clip(Rect(0, 0, *shape)) is None for region in regions):
        raise GroundTruthError(
            f"{path.name} is about another image: all of its regions lie outside "
            f"{shape[0]} × {shape[1]} pixels"
        )
    return unique_names(regions)


def label_features(path: Path, image: ImageRef) -> Iterator[Feature]:
    """Yield a feature for each number of a label map but 0, with its exact outline."""
    import shapely

    parts: dict[int, list[Any]] = {}
    with open_labels(path, image) as labels:
        for window in iter_windows(labels.plane_shape):
            values = labels.levels[0].read(window.y, window.y1, window.x, window.x1)[..., 0]
            changes = np.diff(np.pad(values.astype(np.int64), ((0, 0), (1, 1))), axis=1) != 0
            rows, starts = np.nonzero(changes[:, :-1] & (values != 0))
            numbers = values[rows, starts]
            after, ends = np.nonzero(changes[:, 1:] & (values != 0))
            assert np.array_equal(rows, after)
            x, y = window.x + starts, window.y + rows
            boxes = shapely.box(x, y, window.x + ends + 1, y + 1)
            for number in np.unique(numbers).tolist():
                parts.setdefault(number, []).append(shapely.union_all(boxes[numbers == number]))
    for number, shapes in sorted(parts.items()):
        polygons = united_boxes(np.array(shapes, object))
        yield Feature("annotation", "object", polygons, name=f"label {number}", number=number)


def unique_names(regions: list[Region]) -> list[Region]:
    """Return regions whose names are unique: those that are not get a number.

    Examples
    --------
    >>> square = [[[0, 0], [0, 1], [1, 1]]]
    >>> drawn = [Region.from_polygons([square], name) for name in ("tumour", "edge", "tumour")]
    >>> [region.name for region in unique_names(drawn)]
    ['tumour 1', 'edge', 'tumour 2']
    """
    times = Counter(region.name for region in regions)
    used = {name for name, number in times.items() if number == 1}
    named = []
    for region in regions:
        name = region.name
        if times[name] > 1:
            numbered = (f"{region.name} {number}" for number in count(1))
            name = next(candidate for candidate in numbered if candidate not in used)
            used.add(name)
        named.append(Region(name, region.shape, region.label))
    return named


def feature_of_region(region: Region, number: int) -> Feature:
    """Return a region as a feature, for the writers of annotation files."""
    import shapely

    polygons = tuple(
        tuple(shapely.get_coordinates(ring)[:-1, ::-1] for ring in shapely.get_rings(part))
        for part in shapely.get_parts(region.shape)
    )
    return Feature("annotation", region.label, polygons, name=region.name, number=number)
