"""Tests of colour scales, which results on an image share."""

from __future__ import annotations

import numpy as np

from hrviewer.app.maps.colour_scale import ColourScale, ColourScales
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.geometry import Rect

IMAGE = Rect(0, 0, 64, 64)


def maps_of(value: float) -> ResultMaps:
    maps = ResultMaps(IMAGE, 4, "mass", ["thing"])
    maps.rasters["output"].values[:] = value
    return maps


def test_a_scale_is_held_once_a_result_is_complete():
    scales = ColourScales()
    first, second = maps_of(40.0), maps_of(900.0)
    first.share_scales(scales)
    assert first.rasters["output"].autoscale()
    first.settle_scales()
    second.share_scales(scales)
    drawn = second.rasters["output"]
    assert not drawn.autoscale()
    assert drawn.limits == first.rasters["output"].limits == (0.0, 50.0)
    assert drawn.is_clipped
    assert not first.rasters["output"].is_clipped


def test_a_scale_without_values_is_not_held():
    scales = ColourScales()
    empty, filled = maps_of(np.nan), maps_of(40.0)
    for maps in (empty, filled):
        maps.share_scales(scales)
        maps.rasters["output"].autoscale()
        maps.settle_scales()
    assert filled.rasters["output"].limits == (0.0, 50.0)


def test_each_quantity_has_its_own_scale():
    scales = ColourScales()
    maps = maps_of(1.0)
    maps.share_scales(scales)
    flops = maps.rasters["cost"].scale
    maps.set_cost_quantity("bytes")
    assert maps.rasters["cost"].scale is not flops
    maps.set_cost_quantity("FLOPs")
    assert maps.rasters["cost"].scale is flops
    other = ResultMaps(IMAGE, 4, "mass", ["person"])
    other.share_scales(scales)
    assert other.rasters["output"].scale is not maps.rasters["output"].scale
    assert other.rasters["saliency"].scale is not maps.rasters["saliency"].scale


def test_a_released_scale_follows_the_values_until_it_is_held_again():
    scale = ColourScale()
    scale.follow((0.0, 5.0))
    scale.settle()
    scale.release()
    scale.settle()
    assert scale.follow((0.0, 2.0))
    scale.hold((1.0, 3.0))
    assert not scale.follow((0.0, 9.0))
    assert scale.limits == (1.0, 3.0)
