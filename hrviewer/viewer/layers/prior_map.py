"""Prior maps from layers: drawn shapes, labels, or an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from hrviewer.app.image_session import ImageSource
from hrviewer.errors import ParameterError
from hrviewer.viewer.image.geometry import METADATA_KEY, shape_of
from hrviewer.viewer.layers.image_tracker import LayerImage
from hrviewer.viewer.layers.layer_features import outline_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["LayerPrior", "can_be_prior", "rasterize_layer"]

MAX_CELLS = 512
"""Cells along the longer side of the map."""


class LayerPrior:
    """A layer as the settings' prior map.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    layer : Layer
        The layer.
    """

    def __init__(self, viewer: ViewerModel, layer: Layer) -> None:
        self._viewer, self.layer = viewer, layer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerPrior) and bool(other.layer == self.layer)

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    def available(self) -> bool:
        """Whether the layer still exists."""
        return self.layer in self._viewer.layers

    def map_on(self, source: ImageSource) -> NDArray[np.floating]:
        """Return the layer as a map over an image."""
        assert isinstance(source, LayerImage)
        return rasterize_layer(self.layer, source.layer)


def can_be_prior(layer: Layer, image_layer: Image | None) -> bool:
    """Return whether a layer can be a prior map: no overlay of hrviewer, and not the image."""
    own = "overlay" in layer.metadata.get(METADATA_KEY, {})
    return isinstance(layer, Image | Labels | Shapes) and not own and layer != image_layer


def rasterize_layer(layer: Layer, image_layer: Image) -> NDArray[np.float32]:
    """Return a layer as a map over the whole of `image_layer`, ``(rows, columns)``.

    Shapes are 1 inside, labels where there is one; an image gives its brightness.

    Raises
    ------
    HrviewerError
        If nothing of it is on the image.
    """
    height, width = shape_of(image_layer)
    step = max(1.0, max(height, width) / MAX_CELLS)
    shape = max(1, round(height / step)), max(1, round(width / step))
    if isinstance(layer, Shapes):
        found = _rasterize_shapes(layer, image_layer, shape)
    else:
        found = _sample_pixels(layer, image_layer, shape)
    if not found.max() > 0:
        raise ParameterError(
            f"nothing in {layer.name!r} is on the image: draw there, or choose another"
        )
    return found


def _rasterize_shapes(
    layer: Shapes, image_layer: Image, shape: tuple[int, int]
) -> NDArray[np.float32]:
    found = np.zeros(shape, bool)
    scale = np.array(shape) / shape_of(image_layer)
    for corners, kind in zip(layer.data, layer.shape_type, strict=True):
        outline = outline_of(corners, kind)
        world = [
            np.asarray(layer.data_to_world(pad_point(point, layer.ndim)))[-2:] for point in outline
        ]
        data = [
            np.asarray(image_layer.world_to_data(pad_point(point, image_layer.ndim)))[-2:]
            for point in world
        ]
        found |= polygon2mask(shape, (np.array(data) + 0.5) * scale - 0.5)
    return found.astype(np.float32)


def _sample_pixels(layer: Any, image_layer: Image, shape: tuple[int, int]) -> NDArray[np.float32]:
    finest = layer.data[0] if layer.multiscale else layer.data
    pixels = layer.data[-1] if layer.multiscale else layer.data
    rgb = bool(getattr(layer, "rgb", False))
    axes = slice(-3, -1) if rgb else slice(-2, None)
    full, have = np.array(finest.shape[axes]), np.array(pixels.shape[axes])
    plane = np.asarray(pixels if rgb else pixels[(0,) * (len(pixels.shape) - 2)])
    plane = plane[..., :3].mean(axis=-1) if rgb else plane
    if isinstance(layer, Labels):
        plane = plane > 0
    # The transform from the map to the layer is affine: three corners determine it.
    height, width = shape_of(image_layer)

    def into(point: tuple[float, float]) -> NDArray[np.float64]:
        world = np.asarray(image_layer.data_to_world(pad_point(np.array(point), image_layer.ndim)))[
            -2:
        ]
        return np.asarray(layer.world_to_data(pad_point(world, layer.ndim)))[-2:]

    origin = into((0.0, 0.0))
    down, right = into((1.0, 0.0)) - origin, into((0.0, 1.0)) - origin
    y = (np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5
    x = (np.arange(shape[1]) + 0.5) * width / shape[1] - 0.5
    at = origin + y[:, None, None] * down + x[None, :, None] * right
    at = np.floor((at + 0.5) * have / full).astype(np.int64)
    inside = ((at >= 0) & (at < have)).all(axis=-1)
    at = np.clip(at, 0, have - 1)
    found: NDArray[np.float32] = np.where(inside, plane[at[..., 0], at[..., 1]], 0).astype(
        np.float32
    )
    return found


def pad_point(point: NDArray[Any], ndim: int) -> NDArray[np.float64]:
    """Return a point of the plane with zeros for the other axes."""
    return np.concatenate([np.zeros(ndim - 2), point[-2:]])
