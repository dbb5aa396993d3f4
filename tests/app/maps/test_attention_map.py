"""Attention of tokens as maps."""

from __future__ import annotations

import numpy as np

from hrviewer.app.maps.attention_map import MAX_CELLS, AttentionMap, token_colours
from hrviewer.engine import TokenAttention
from hrviewer.geometry import Rect


def test_attention_is_drawn_where_tokens_lie_the_context_below():
    squares = [Rect(0, 0, 64, 64), Rect(0, 64, 32, 32), Rect(0, 96, 32, 32), Rect(0, 0, 192, 192)]
    weights = np.array([[0.5, 0.2, 0.1, 0.2], [0.1, 0.6, 0.3, 0], [0.2] * 4, [0.25] * 4])
    found = TokenAttention(squares, np.array([1, 1, 1, 0], bool), weights, np.array([0, 1, 1, 3]))
    drawn = AttentionMap(Rect(0, 0, 128, 176))
    drawn.update(found, 40, 30)
    assert drawn.changed
    np.testing.assert_allclose(
        drawn.weights[[0, 0, 0, 7], [0, 4, 6, 10]], [1, 0.4, 0.2, 0.4], rtol=1e-6
    )
    # What all tokens take, but context is no part of the region's own map.
    np.testing.assert_allclose(drawn.attention_received[0, [0, 4, 6]], [0.8, 1, 0.6], rtol=1e-6)
    assert np.isnan(drawn.attention_received[7]).all()
    assert (drawn.merged[:2, 4:8, 3] == 255).all()
    assert (drawn.merged[:2, 4:8] == drawn.merged[0, 4]).all()
    assert drawn.merged[..., 3].sum() == 2 * 4 * 255
    before = drawn.weights.copy()
    drawn.update(found, 150, 30)  # context is nobody that was clicked
    np.testing.assert_array_equal(drawn.weights, before)
    drawn.clear(Rect(0, 64, 32, 64))
    assert np.isnan(drawn.weights[:2, 4:8]).all()
    assert not drawn.merged.any()
    assert AttentionMap(Rect(0, 0, 90_000, 90_000)).weights.size <= MAX_CELLS


def test_what_is_one_has_one_colour():
    colours = token_colours(np.array([4, 7, 7, 2, 4, 9]))
    assert [bool(alpha) for alpha in colours[:, 3]] == [True, True, True, False, True, False]
    assert (colours[0] == colours[4]).all()
    assert (colours[1] == colours[2]).all()
    assert np.abs(colours[0].astype(int) - colours[1]).max() > 100
