"""Sample images: synthetic ones, and photographs of scikit-image, all read as pyramids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrviewer.pyramid import open_pyramid

__all__ = ["crowd", "hubble_deep_field", "ihc", "retina", "sample_path", "tissue"]

LayerDataTuple = tuple[Any, dict[str, Any], str]


def sample_path(name: str) -> Path:
    """Return the file of a photograph; those offered here need no download."""
    import skimage.data

    return Path(skimage.data.__file__).parent / name


def ihc() -> list[LayerDataTuple]:
    """Return a stained section of colon, 512 × 512 pixels."""
    return _photograph("ihc.png", "colon, immunohistochemistry")


def retina() -> list[LayerDataTuple]:
    """Return a retina, 1411 × 1411 pixels."""
    return _photograph("retina.jpg", "retina")


def hubble_deep_field() -> list[LayerDataTuple]:
    """Return a piece of sky, 872 × 1000 pixels."""
    return _photograph("hubble_deep_field.jpg", "Hubble deep field")


def crowd() -> list[LayerDataTuple]:
    """Return a synthetic city square with streets full of people, 32768 × 32768 pixels."""
    return _synthetic_image("crowd")


def tissue() -> list[LayerDataTuple]:
    """Return a synthetic H&E slide with glands, tumour and stroma, 32768 × 32768 pixels."""
    return _synthetic_image("tissue")


def _synthetic_image(name: str) -> list[LayerDataTuple]:
    from hrviewer.viewer.image.image_layer import image_layer_data

    return [image_layer_data(open_pyramid(f"sample:{name}?size=32768&seed=0"))]


def _photograph(file: str, name: str) -> list[LayerDataTuple]:
    from hrviewer.viewer.image.image_layer import image_layer_data

    data, settings, kind = image_layer_data(open_pyramid(str(sample_path(file))))
    return [(data, {**settings, "name": name}, kind)]
