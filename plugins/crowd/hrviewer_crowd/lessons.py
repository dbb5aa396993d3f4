"""What the networks of the pack ``crowd`` learn: ``hrviewer-train crowd ROLE``.

All from the scene ``crowd``, whose truth is known; nothing has to be fetched.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hrviewer.models.card import Architecture, Card, Input, Output
from hrviewer.training import (
    CHOOSE,
    TEST,
    TRAIN,
    Course,
    Density,
    Pieces,
    Scout,
    Shrunk,
    counted,
    halo,
    picture,
)

__all__ = ["COURSE"]

NETWORK = Architecture(
    name="density-unet", params={"classes": 1, "widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}
)
SOURCES = {"data": f"scenes `crowd` of 8192 px, seeds {TRAIN[0]}–{TRAIN[-1]}"}
SIDE = 192
"""Of the pieces that it learns from, in pixels."""
WHOLE = 4096
"""Of the scenes that it is judged by."""


def main(data: Path | None, pack: Path) -> Density:
    """Count people."""
    card = Card(
        name="crowd-density",
        title="People from above, a density network",
        task="density",
        input=Input(
            channels="rgb",
            scale=1 / 255,
            mean=(0.5, 0.45, 0.42),
            std=(0.2,),
            tile=512,
            multiple_of=16,
        ),
        output=Output(stride=4, halo=halo(NETWORK), classes=("person",)),
        architecture=NETWORK,
        licence="BSD-3-Clause",
        citation="Trained on procedural scenes; hrviewer, https://pypi.org/project/hrviewer/",
    )
    return Density(
        card,
        SOURCES,
        _pieces,
        choose={"choose": [counted("crowd", WHOLE, seed) for seed in CHOOSE[:4]]},
        test={"test": [counted("crowd", WHOLE, seed) for seed in TEST[:4]]},
        steps=3600,
    )


def scout(data: Path | None, pack: Path) -> Scout:
    """Guess from an eighth of the size what ``main`` counts."""
    return Scout.of(
        pack,
        SOURCES,
        partial(Pieces, "crowd", side=512, batch=4),
        choose=[picture("crowd", WHOLE, seed) for seed in CHOOSE[:4]],
        test=[picture("crowd", WHOLE, seed) for seed in TEST[:4]],
    )


def _pieces(steps: int, seed: int) -> Shrunk:
    """Return batches of pieces, some of them halved: people there are, then, half as tall."""
    return Shrunk(
        lambda side: Pieces("crowd", steps, seed, side=side, batch=8, stride=4, among=24),
        SIDE,
        {1: 0.8, 2: 0.2},
        seed,
    )


COURSE = Course(
    "People from above",
    "Counts people in scenes seen obliquely from above.",
    {"main": main, "scout": scout},
)
