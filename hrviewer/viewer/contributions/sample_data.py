"""Sample images: scenes, and photographs that come with scikit-image, all read as pyramids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.pyramid import open_pyramid

__all__ = ["crowd", "hubble_deep_field", "ihc", "retina", "sample_path", "tissue"]

LayerTuple = tuple[Any, dict[str, Any], str]


def sample_path(name: str) -> Path:
    """Return the file of a photograph; those offered here need no download."""
    import skimage.data

    return Path(skimage.data.__file__).parent / name


def ihc() -> list[LayerTuple]:
    """Return a stained section of colon, 512 × 512 pixels."""
    return _sample("ihc.png", "colon, immunohistochemistry")


def retina() -> list[LayerTuple]:
    """Return a retina, 1411 × 1411 pixels."""
    return _sample("retina.jpg", "retina")


def hubble_deep_field() -> list[LayerTuple]:
    """Return a piece of sky, 872 × 1000 pixels."""
    return _sample("hubble_deep_field.jpg", "Hubble deep field")


def crowd() -> list[LayerTuple]:
    """Return a scene: a city square and its streets, full of people, 32768 × 32768 pixels."""
    return _scene("crowd")


def tissue() -> list[LayerTuple]:
    """Return a scene: a slide in H&E with glands, tumour and stroma, 32768 × 32768 pixels."""
    return _scene("tissue")


def _scene(name: str) -> list[LayerTuple]:
    from hrviewer.viewer.image.image_layer import image_layer

    return [image_layer(open_pyramid(f"sample:{name}?size=32768&seed=0"))]


def _sample(file: str, name: str) -> list[LayerTuple]:
    from hrviewer.viewer.image.image_layer import image_layer

    data, settings, kind = image_layer(open_pyramid(str(sample_path(file))))
    return [(data, {**settings, "name": name}, kind)]
