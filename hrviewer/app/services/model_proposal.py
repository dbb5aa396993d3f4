"""Proposal of an installed model for an image, by what it shows and how large its pixels are.

Until the user selects a model, each image that becomes current is given the one that fits it best;
where none stands out, none is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import ModelError
from hrviewer.models import ModelBundle, ModelCard, installed_bundles
from hrviewer.pyramid import Pyramid

__all__ = ["ModelProposer", "best_model"]

MAX_RATIO = 4.0
"""Largest ratio of an image's pixel size to that of a model's training data."""


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
        model of the nearest one, within a factor of four; of another image, the only model that
        was trained for no pixel size. None where none or several fit alike.
    """
    fitting = {name: card for name, card in cards.items() if fits(card, pyramid)}
    synthetic = pyramid.synthetic_image
    if synthetic is not None:
        known = set(synthetic.classes)
        return only([n for n, card in fitting.items() if known & {*card.output.classes}])
    sizes = {name: card.input.pixel_size for name, card in fitting.items()}
    if pyramid.pixel_size is None:
        return only([name for name, size in sizes.items() if size is None])
    side = math.sqrt(math.prod(pyramid.pixel_size))
    ratios = {name: abs(math.log(side / size)) for name, size in sizes.items() if size is not None}
    nearest = min(ratios.values(), default=math.inf)
    if nearest > math.log(MAX_RATIO):
        return None
    return only([name for name, ratio in ratios.items() if ratio == nearest])


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
