"""Fit of the view to a layer."""

import numpy as np
import pytest
from napari.components import ViewerModel

from hrviewer.viewer.image.view_fit import camera_state, fit_layer


@pytest.mark.parametrize("scale", [(1, 1), (0.5, 2)])
def test_an_image_without_channels_above_one_with_channels(scale):
    picture = np.zeros((60, 90))
    alone, above = ViewerModel(), ViewerModel()
    for viewer in alone, above:
        viewer.canvas.size = (400, 500)
    above.add_image(np.zeros((4, 30, 40)))
    for viewer in alone, above:
        fit_layer(viewer, viewer.add_image(picture, scale=scale))
    assert above.dims.ndim == 3
    assert camera_state(above) == pytest.approx(camera_state(alone))
