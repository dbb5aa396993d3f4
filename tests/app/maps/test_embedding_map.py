"""Embeddings as colours, and their similarity to a selected location."""

from __future__ import annotations

import numpy as np

from hrviewer.app.maps.embedding_map import FIT_PATCHES, MAX_CELLS, EmbeddingMap, principal_axes
from hrviewer.engine import InferenceResult
from hrviewer.engine.cost import Cost
from hrviewer.geometry import Patch, Rect


def encoded(core: Rect, embeddings: np.ndarray) -> InferenceResult:
    box = tuple(map(float, core.astuple()))
    value = embeddings.mean((1, 2)).astype(float)
    return InferenceResult(
        Patch(core), "encoder", value, embeddings.astype(np.float16), box, Cost()
    )


def test_the_directions_are_those_in_which_embeddings_differ_most():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    embeddings = (rng.normal(size=(20_000, 5)) * (9, 5, 3, 1, 1)) @ turn.T + 7
    mean, axes = principal_axes(embeddings.astype(np.float32))
    np.testing.assert_allclose(mean, embeddings.mean(0), rtol=1e-4)
    for i, spread in enumerate((9, 5, 3)):
        np.testing.assert_allclose(abs(turn[:, i] @ axes[:, i]) * spread, 1, rtol=0.02)
    np.testing.assert_allclose(((embeddings - mean) @ axes).std(axis=0), 1, rtol=1e-3)
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()


def test_colours_stay_once_they_are_fitted_and_nothing_is_drawn_elsewhere():
    rng = np.random.default_rng(0)
    embedding_map = EmbeddingMap(Rect(0, 0, 64, 64 * 20), 4, 4.0)
    for i in range(FIT_PATCHES):
        embedding_map.update(encoded(Rect(0, 64 * i, 64, 64), rng.normal(size=(4, 16, 16))))
    before = embedding_map.colours.copy()
    assert (before[:, : 16 * FIT_PATCHES, 3] == 255).all()
    assert not before[:, 16 * FIT_PATCHES :].any()
    embedding_map.update(
        encoded(Rect(0, 64 * FIT_PATCHES, 64, 64), 50 + rng.normal(size=(4, 16, 16)))
    )
    np.testing.assert_array_equal(
        embedding_map.colours[:, : 16 * FIT_PATCHES], before[:, : 16 * FIT_PATCHES]
    )
    embedding_map.clear(Rect(0, 0, 64, 64))
    assert not embedding_map.colours[:, :16].any()
    assert embedding_map.colours[:, 16:32].any()


def test_equal_embeddings_are_similar_and_later_ones_are_compared_too():
    one, other = np.zeros((3, 16, 16)), np.full((3, 16, 16), 2.0)
    embedding_map = EmbeddingMap(Rect(0, 0, 64, 256), 3, 4.0)
    embedding_map.update(encoded(Rect(0, 0, 64, 64), one))
    embedding_map.update(encoded(Rect(0, 64, 64, 64), other))
    embedding_map.update(encoded(Rect(0, 128, 64, 64), other))
    assert not embedding_map.find_similar(10, 250)  # not known yet
    assert not embedding_map.find_similar(-1, 3)
    assert embedding_map.find_similar(10, 10)
    embedding_map.update(encoded(Rect(0, 192, 64, 64), one + 1))
    np.testing.assert_allclose(
        embedding_map.similarity[0, [0, 20, 40, 60]], [1, 0, 0, 0.5], atol=1e-3
    )


def test_a_large_image_is_kept_in_coarser_cells():
    embedding_map = EmbeddingMap(Rect(0, 0, 60_000, 50_000), 2, 16.0)
    assert embedding_map.similarity.size <= MAX_CELLS
    assert embedding_map.cell == 64.0
    fine = np.arange(2 * 32 * 32).reshape(2, 32, 32) / 100
    embedding_map.update(encoded(Rect(512, 512, 512, 512), fine))
    assert (embedding_map.colours[8:16, 8:16, 3] == 255).all()
    assert embedding_map.colours[..., 3].sum() == 64 * 255
