"""Proposal of an installed model for an image, by its kind, its colours and its pixels' size.

Until the user selects a model, each image that becomes current is given the one that fits it best;
where none stands out, none is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import ModelError
from hrviewer.models import ModelBundle, ModelCard, installed_bundles
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.series import SeriesKind

__all__ = ["ModelProposer", "best_model"]

MAX_RATIO = 4.0
"""Largest ratio of an image's pixel size to that of a model's training data."""

MAX_MICROSCOPE_PIXEL = 20.0
"""Micrometres; a model of finer pixels is for sections in brightfield, where it is in colours."""

SAMPLE_SIDE = 128
"""Pixels of the longer side of the picture in which colours are measured."""

BRIGHT = 100
"""Median of the brightest band of a section in brightfield, at least; it is dark elsewhere."""

STAINED_SHARE = 0.9
"""Part of a section's pixels, at least, that are glass or have a stain's colour."""


class ModelProposer:
    """Selects a model for the current image while the user has selected none.

    Parameters
    ----------
    state : AppState
        Has the image and gets the model.
    background : Background
        Reads the installed models' cards.
    """

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self._task: Task[ModelBundle | None] | None = None
        state.image_changed.connect(self._on_image)
        state.model_changed.connect(self._cancel)

    @property
    def is_running(self) -> bool:
        """Whether the models' cards are being read."""
        return self._task is not None and self._task.is_pending

    def _on_image(self) -> None:
        self._cancel()
        image = self._state.image
        if image is None or self._state.model_is_chosen:
            return
        self._task = self._background.submit(
            "models",
            partial(self._find, image, image.source.plane()),
            self._propose,
            failed=lambda error: None,  # of the image: reported when it is used
            owner=image,
            clear_errors=False,
        )

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _find(
        self, image: ImageSession, plane: tuple[int, ...], task: Task[ModelBundle | None]
    ) -> ModelBundle | None:
        pyramid, bundles = image.source.pyramid(plane), {}
        for name, installed in installed_bundles().items():
            with suppress(ModelError):  # a broken plug-in is reported when it is selected
                bundles[name] = installed.load()
        cards = {name: b.roles["main"] for name, b in bundles.items() if "main" in b.roles}
        best = best_model(cards, pyramid)
        return None if best is None else bundles[best]

    def _propose(self, bundle: ModelBundle | None) -> None:
        self._task = None
        proposed = self._state.settings.model
        if not self._state.model_is_chosen and (bundle or proposed) is not None:
            self._state.propose_model(bundle)


def best_model(cards: Mapping[str, ModelCard], pyramid: Pyramid) -> str | None:
    """Return the model that fits an image best.

    Parameters
    ----------
    cards : mapping of str to ModelCard
        Cards of the main models, by name.
    pyramid : Pyramid
        The image.

    Returns
    -------
    str or None
        Of a synthetic image, the model of its objects; of an image whose pixel size is known, the
        model of the nearest one, within a factor of four, if the image looks as that model's do; of
        a photograph, the only model that was trained for no pixel size. None where none or several
        fit alike, and for labels, macros, thumbnails and masks.
    """
    if kind_of_series(pyramid) != "image":
        return None
    fitting = {name: card for name, card in cards.items() if fits(card, pyramid)}
    synthetic = pyramid.synthetic_image
    if synthetic is not None:
        known = set(synthetic.classes)
        return only([n for n, card in fitting.items() if known & {*card.output.classes}])
    sizes = {name: card.input.pixel_size for name, card in fitting.items()}
    if pyramid.pixel_size is None:
        photographed = only([name for name, size in sizes.items() if size is None])
        return photographed if photographed and is_photograph(pyramid) else None
    side = math.sqrt(math.prod(pyramid.pixel_size))
    ratios = {name: abs(math.log(side / size)) for name, size in sizes.items() if size is not None}
    nearest = min(ratios.values(), default=math.inf)
    if nearest > math.log(MAX_RATIO):
        return None
    best = only([name for name, ratio in ratios.items() if ratio == nearest])
    if best is None or not pyramid.is_rgb:
        return best
    size = sizes[best]
    in_brightfield = size is not None and size < MAX_MICROSCOPE_PIXEL
    return best if not in_brightfield or is_bright(sample(pyramid)) else None


def kind_of_series(pyramid: Pyramid) -> SeriesKind:
    """Return what the opened series of a file is."""
    opened = (series for series in pyramid.series if series.id == pyramid.selected_series)
    return next((series.kind for series in opened), "image")


def is_photograph(pyramid: Pyramid) -> bool:
    """Return whether an image without a pixel size may be an ordinary photograph.

    It is in colours of bytes, alone in its file, on no map, and no stained section.
    """
    plain = pyramid.is_rgb and pyramid.dtype == np.uint8 and pyramid.georeference is None
    return plain and len(pyramid.series) <= 1 and not is_stained(sample(pyramid))


def sample(pyramid: Pyramid) -> NDArray[np.uint8]:
    """Return an image in colours in small; its middle where coarse levels are missing."""
    h, w = pyramid.plane_shape
    if not pyramid.missing_levels():
        return pyramid.thumbnail(SAMPLE_SIDE)[..., :3]
    side = min(h, w, 2 * SAMPLE_SIDE)
    middle = pyramid.read(((h - side) // 2, (w - side) // 2, side, side), 2.0)[..., :3]
    return np.asarray(middle, np.uint8)


def is_bright(pixels: NDArray[np.uint8]) -> bool:
    """Return whether pixels ``(h, w, 3)`` are those of light that went through a section."""
    return bool(np.median(pixels.max(axis=2)) >= BRIGHT)


def is_stained(pixels: NDArray[np.uint8]) -> bool:
    """Return whether pixels ``(h, w, 3)`` are those of a section: glass, pink and violet."""
    red, green, blue = (pixels[..., band].astype(int) for band in range(3))
    glass = pixels.min(axis=2) > 200
    stain = (np.minimum(red, blue) > green + 10) & (pixels.max(axis=2) >= BRIGHT)
    return bool(stain.any() and (glass | stain).mean() >= STAINED_SHARE)


def fits(card: ModelCard, pyramid: Pyramid) -> bool:
    """Whether a model is for an image's channels: colour only for colours, grey for both."""
    wanted = card.input.channels
    if wanted in ("rgb", "bgr"):
        return pyramid.is_rgb
    if wanted == "gray" or card.input.channel_count == 1:
        return pyramid.is_rgb or pyramid.channels == 1
    return card.input.channel_count == pyramid.channels


def only(names: list[str]) -> str | None:
    """Return the name in a list of one."""
    return names[0] if len(names) == 1 else None
