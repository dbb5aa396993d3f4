"""Names of classes on the canvas."""

import numpy as np
from napari.components import ViewerModel

from hrviewer.io.geojson import class_colors
from hrviewer.viewer.layers.class_legend import MAX_LINES, ClassLegend


def test_each_class_has_its_colour_and_many_are_counted():
    viewer = ViewerModel()
    legend, other = ClassLegend(viewer, "output"), ClassLegend(viewer, "comparison")
    names = [f"class {i}" for i in range(20)]
    legend.show(names[:3], hidden={1})
    assert legend.lines == ["■ class 0", "■ class 2"]
    lowest = viewer.canvas.overlays["_hrviewer_output_class_0"]
    np.testing.assert_allclose(lowest.color[:3], np.array(class_colors(names)[2]) / 255, atol=1e-6)
    legend.show(names)
    assert len(legend.lines) == MAX_LINES
    assert legend.lines[-1] == "and 9 more"
    assert other.lines == []
    legend.show(())
    assert legend.lines == []
