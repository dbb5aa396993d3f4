"""Whether an image is like those that a model learned from."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

import numpy as np

from hrviewer.engine.model_infos import native_scale
from hrviewer.engine.preprocess import value_range
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.models.learned_domain import LearnedDomain, is_blank, square_features
from hrviewer.pyramid import Pyramid

__all__ = ["domain_distance", "domain_note"]

SQUARES, SIDE = 12, 160
"""Number of squares of an image that are described, and their side in model pixels."""

_distances: WeakKeyDictionary[Pyramid, dict[LearnedDomain, float]] = WeakKeyDictionary()
"""Distances that were measured in this process."""
_lock = threading.Lock()


def domain_note(card: ModelCard, pyramid: Pyramid) -> str:
    """Return a note for the user; empty if the image is like the learned ones, or nothing is known.

    Parameters
    ----------
    card : ModelCard
        The card of the model, with or without a learned domain.
    pyramid : Pyramid
        The image.
    """
    domain = card.accuracy.learned_domain
    if domain is None or pyramid.channels < 3:
        return ""
    distance = domain_distance(domain, card, pyramid)
    if distance <= 1:
        return ""
    return (
        f"the image is unlike those that {card.name!r} learned from, {distance:.1f} times as far "
        "as 99 % of them in colour, contrast and sharpness: do not rely on its predictions, and "
        "its intervals, before you have compared some with what you count yourself"
    )


def domain_distance(domain: LearnedDomain, card: ModelCard, pyramid: Pyramid) -> float:
    """Return the distance of an image over the domain's limit, measured once per process.

    Squares are drawn at random, one in each part of the image; blank ones are left out.
    """
    with _lock:
        known = _distances.setdefault(pyramid, {})
        if domain not in known:
            known[domain] = _measure(domain, card, pyramid)
        return known[domain]


def _measure(domain: LearnedDomain, card: ModelCard, pyramid: Pyramid) -> float:
    scale, _ = native_scale(card, pyramid)
    side = round(SIDE * scale)
    rows = max(1, round((SQUARES * pyramid.rect.h / pyramid.rect.w) ** 0.5))
    columns = -(-SQUARES // rows)
    rng = np.random.default_rng(0)
    features = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        y, x = (
            int(max(0, length - side) * (place + rng.random()) / parts)
            for length, place, parts in (
                (pyramid.rect.h, row, rows),
                (pyramid.rect.w, column, columns),
            )
        )
        pixels = pyramid.read(Rect(y, x, side, side), scale)[..., :3]
        low, high = value_range(card, pyramid)
        square = np.moveaxis((pixels.astype(np.float64) - low) / (high - low), -1, 0)
        if min(square.shape[1:]) >= SIDE // 4 and not is_blank(square):
            features.append(square_features(square))
    return domain.distance(features)
