"""The expected cost of a run, by which its progress is shown."""

from __future__ import annotations

import numpy as np
import pytest
from toys import FLOPS, card, toy_bundle

from hrviewer.app.services.run_worker import expected_flops
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import RunSpec
from hrviewer.strategies import ModelInfo, exhaustive_tile, get_strategy, tiles, total_flops


@pytest.mark.parametrize("tile", [0, 512])
def test_the_expected_cost_of_patches_is_that_of_its_tiles(tile):
    made = card("net", tile=512)
    main = ModelInfo(made, 4, 96, lambda h, w: FLOPS * h * w, 16, bytes_per_pixel=lambda: 108.0)
    strategy = get_strategy("patches")
    with open_pyramid(np.zeros((4096, 4096), np.uint8)) as pyramid:
        spec = RunSpec(pyramid, toy_bundle(), strategy, strategy.Params(tile=tile))
        expected = expected_flops(spec, main, 1.0)
        image = pyramid.rect
    side = tile or exhaustive_tile(main, image, 1.0)
    # Tiles on the image's border have less halo.
    cost = total_flops(main, tiles(main, image, 1.0, tile=side), image)
    assert cost < expected < 1.1 * cost
