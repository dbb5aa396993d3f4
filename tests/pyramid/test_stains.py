"""Colour deconvolution: known mixtures, and an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest

from hrviewer.pyramid.stains import FULL_DENSITY, STAINS, VECTORS, separate_stain, stain_color


def transmitted(**densities: float) -> np.ndarray:
    """Return the colour of stains of known densities."""
    vectors = {name: np.divide(VECTORS[name], np.linalg.norm(VECTORS[name])) for name in densities}
    density = sum(amount * vectors[name] for name, amount in densities.items())
    return np.round(255 * 10.0 ** -np.asarray(density)).astype(np.uint8).reshape(1, 1, 3)


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.6, 0.3), (1.0, 0.0), (0.0, 0.8), (0, 0)])
def test_known_mixtures(haematoxylin: float, eosin: float) -> None:
    pixels = transmitted(haematoxylin=haematoxylin, eosin=eosin)
    for stain, amount in (("haematoxylin", haematoxylin), ("eosin", eosin)):
        found = separate_stain(pixels, stain).item() * FULL_DENSITY / 255
        assert found == pytest.approx(amount, abs=0.02)


def test_other_values_equal_those_of_scikit_image() -> None:
    from skimage.color import separate_stains

    pixels = np.random.default_rng(0).integers(40, 256, (20, 30, 3), np.uint8)
    first, second = (np.asarray(VECTORS[name]) for name in ("haematoxylin", "eosin"))
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    rest = np.cross(first, second)
    inverse = np.linalg.inv(np.stack([first, second, rest / np.linalg.norm(rest)]))
    # scikit-image states densities in natural logarithms, relative to that of a millionth.
    expected = separate_stains(pixels, inverse)[..., 0] * -np.log(1e-6) / np.log(10)
    found = separate_stain(pixels, "haematoxylin")[..., 0] * (FULL_DENSITY / 255)
    np.testing.assert_allclose(found, np.clip(expected, 0, FULL_DENSITY), atol=0.005)


def test_colours_and_white() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    for stain in STAINS:
        assert separate_stain(white, stain).item() == 0
    red, _, blue = stain_color("haematoxylin")
    assert blue > red  # blue
    red, green, _ = stain_color("eosin")
    assert red > green  # pink
