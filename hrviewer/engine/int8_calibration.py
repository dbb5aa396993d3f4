"""The tiles of an image on which its eight bits are calibrated."""

from __future__ import annotations

from collections.abc import Sequence

from hrviewer.engine.pipeline import model_info
from hrviewer.engine.roles import native_scale
from hrviewer.geometry import Patch
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import input_rect, tiles

__all__ = ["MAX_TILES", "calibration_tiles", "highest_contrast", "prepare_patch"]

MAX_TILES = 8
"""Tiles that calibrate, and that are looked at both ways, at most."""
MAX_CANDIDATES = 32
"""Tiles among which those that calibrate are chosen, at most."""


def calibration_tiles(pyramid: Pyramid, network: Network) -> list[Patch]:
    """Return the tiles that calibrate: of tiles spread over the whole image, the fullest.

    A slide is mostly glass: evenly spread tiles alone would miss what is counted. At most half of
    an image's tiles are taken, so that the others can be measured on; of one tile, that one. They
    follow from the image and the network alone.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    network : Network
        In float32.
    """
    scale, _ = native_scale(network.card, pyramid)
    there = tiles(model_info(network), pyramid.rect, scale)
    return highest_contrast(pyramid, network, there, min(MAX_TILES, -(-len(there) // 2)))


def highest_contrast(
    pyramid: Pyramid, network: Network, patches: Sequence[Patch], count: int = MAX_TILES
) -> list[Patch]:
    """Return, of patches spread over those given, the few with the most contrast."""
    candidates = evenly_spaced(patches, MAX_CANDIDATES)
    contrast = [float(prepare_patch(pyramid, network, patch).std()) for patch in candidates]
    order = sorted(range(len(candidates)), key=lambda i: -contrast[i])
    return [candidates[i] for i in order[:count]]


def prepare_patch(pyramid: Pyramid, network: Network, patch: Patch) -> Floats:
    """Read what a network sees at a patch, ``(C, h, w)``."""
    card, rect = network.card, input_rect(model_info(network), patch, pyramid.rect)
    pixels = pyramid.read(rect, patch.scale, fill=None if rect in pyramid.rect else "reflect")
    if card.input.fixed:
        pixels = pixels[: card.input.tile, : card.input.tile]
    array: Floats = card.prepare(pixels)
    return array


def evenly_spaced(items: Sequence[Patch], count: int) -> Sequence[Patch]:
    """Return at most so many, evenly from first to last."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
