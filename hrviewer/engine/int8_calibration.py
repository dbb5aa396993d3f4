"""Selection of the tiles of an image on which int8 inference is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

from hrviewer.engine.missing_data import fill_missing
from hrviewer.engine.model_infos import model_info, native_scale
from hrviewer.engine.preprocess import prepare_input, read_input
from hrviewer.geometry import Patch
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import input_rect, tiles

__all__ = ["MAX_TILES", "calibration_tiles", "highest_contrast", "prepare_patch"]

MAX_TILES = 8
"""Most tiles for calibration, and for the comparison with float32."""
MAX_CANDIDATES = 32
"""Most tiles from which those with the highest contrast are selected."""


def calibration_tiles(pyramid: Pyramid, network: Network) -> list[Patch]:
    """Return the tiles for calibration: of tiles spread over the image, the highest in contrast.

    A slide is mostly glass: evenly spread tiles alone would miss the objects. At most half of an
    image's tiles are taken, so that the deviation can be measured on the others; a single tile is
    used for both. The selection depends on the image and the network alone.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    network : Network
        In float32.
    """
    scale, _ = native_scale(network.card, pyramid)
    candidates = tiles(model_info(network), pyramid.rect, scale)
    return highest_contrast(pyramid, network, candidates, min(MAX_TILES, -(-len(candidates) // 2)))


def highest_contrast(
    pyramid: Pyramid, network: Network, patches: Sequence[Patch], count: int = MAX_TILES
) -> list[Patch]:
    """Return the `count` patches with the most contrast, of evenly spaced candidates."""
    candidates = evenly_spaced(patches, MAX_CANDIDATES)
    contrast = [float(prepare_patch(pyramid, network, patch).std()) for patch in candidates]
    order = sorted(range(len(candidates)), key=lambda i: -contrast[i])
    return [candidates[i] for i in order[:count]]


def prepare_patch(pyramid: Pyramid, network: Network, patch: Patch) -> Floats:
    """Read and prepare the network's input for a patch, ``(C, h, w)``."""
    card, rect = network.card, input_rect(model_info(network), patch, pyramid.rect)
    pixels, coverage = read_input(pyramid, card, rect, patch.scale)
    array: Floats = prepare_input(pyramid, card, pixels)
    fill_missing(card, array, coverage)
    return array


def evenly_spaced(items: Sequence[Patch], count: int) -> Sequence[Patch]:
    """Return at most `count` of the items, evenly spaced from first to last."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
