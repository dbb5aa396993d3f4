"""Pixels of very different sizes in one window, and of unknown size."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import LayerList
from napari.utils.notifications import notification_manager

from hrviewer.viewer.image import mixed_pixel_sizes
from hrviewer.viewer.image.layer_refresh import auto_refresh

IMAGE = np.zeros((600, 600), np.uint8)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_satellite_image_beside_a_slide(make_napari_viewer, order):
    """napari alone ends with an OverflowError."""
    viewer = make_napari_viewer()
    auto_refresh(viewer)
    sizes = (1e7, 0.25)  # ten metres, and a quarter of a micrometre
    for size in (sizes[i] for i in order):
        viewer.add_image(IMAGE, scale=(size, size), units="um")
    assert max(viewer.dims.nsteps) < 1e9
    low, high, _ = viewer.dims.range[0]
    assert high - low == pytest.approx(599 * 1e7, rel=1e-6)
    viewer.layers.pop()
    viewer.layers[0].scale = (2, 2)
    assert viewer.dims.range[0].step == 2


def test_a_photograph_beside_a_slide_is_no_warning(make_napari_viewer):
    viewer = make_napari_viewer()
    auto_refresh(viewer)
    before = len(notification_manager.records)
    viewer.add_image(IMAGE, scale=(0.25, 0.25), units="um")
    viewer.add_image(IMAGE)
    assert viewer.layers.extent.units is None
    mixed_pixel_sizes._warn("another")
    assert [record.message for record in notification_manager.records[before:]] == ["another"]


def test_a_version_without_what_is_replaced_is_reported(monkeypatch, caplog):
    before = LayerList._ranges
    monkeypatch.setattr(mixed_pixel_sizes, "_original_ranges", None)
    mixed_pixel_sizes.allow_mixed_pixel_sizes()
    assert LayerList._ranges is before
    assert "very different pixel sizes" in caplog.text
