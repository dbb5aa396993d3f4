"""What the networks of the pack ``crowd`` learn: ``hrviewer-train crowd ROLE``.

All from the scene ``crowd``, whose truth is known; nothing has to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.models.card import Architecture, Card, Input, Output
from hrviewer.training import (
    CHOOSE,
    TEST,
    TRAIN,
    Chooser,
    Coder,
    Course,
    Density,
    Picker,
    Pieces,
    Reader,
    Reconstructor,
    Resizer,
    Student,
    TokenStudent,
    Whole,
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
PIECES = partial(Pieces, "crowd", growth=10, crowding=0.5)
"""The nearest people are ten times as large as the farthest ones."""
WINDOWS = ((1, 2.0, 0.01), (4, 0.5, 0.03), (10, 0.4, 0.06), (40, 0.3, 0.15))
"""Little is added to a count: most of a scene is empty, and a trace everywhere would add up."""
SIZE, WHOLE = 8192, 4096
"""Of the scenes that main, and its students, are judged by."""


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
        output=Output(stride=4, halo=halo(NETWORK), context=32, classes=("person",)),
        architecture=NETWORK,
        licence="BSD-3-Clause",
        citation="Trained on procedural scenes; hrviewer, https://pypi.org/project/hrviewer/",
    )
    return Density(
        card,
        SOURCES,
        partial(PIECES, side=SIDE, batch=18, stride=4, around=0.4, again=8, shrunk=2),
        choose={"choose": [counted("crowd", SIZE, seed) for seed in CHOOSE[:8]]},
        test={"test": [counted("crowd", SIZE, seed) for seed in TEST[:4]]},
        windows=WINDOWS,
        worst=4,
        gauge={"choose": Whole("crowd", SIZE, CHOOSE[:24])},
        steps=9000,
    )


def scout(data: Path | None, pack: Path) -> Student:
    """Guess from half the size what ``main`` counts: from farther, people cannot be seen."""
    return _student("scout", pack, partial(PIECES, side=512, batch=4), down=2)


def picker(data: Path | None, pack: Path) -> Student:
    """Guess the same, and doubt most where a look would correct most."""
    pieces = partial(PIECES, side=512, batch=4)
    return _student("scout", pack, pieces, Picker, down=2)


def scanner(data: Path | None, pack: Path) -> Student:
    """Guess from every pixel, with a tenth of the work, what ``main`` counts."""
    return _student("scanner", pack, partial(PIECES, side=256, batch=8))


def encoder(data: Path | None, pack: Path) -> Student:
    """Say in a few numbers what ``main`` counts, and what it looks like."""
    return _student("encoder", pack, partial(PIECES, side=256, batch=8), Coder)


def blind(data: Path | None, pack: Path) -> Student:
    """Say in a few numbers what a place looks like, without knowing what is to be counted."""
    pieces = partial(PIECES, side=256, batch=8)
    return _student("encoder", pack, pieces, Reconstructor)


def head(data: Path | None, pack: Path) -> Student:
    """Read from codes what ``main`` counts."""
    return _student("head", pack, partial(PIECES, side=256, batch=8), Reader)


def resizer(data: Path | None, pack: Path) -> Student:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _student("resizer", pack, partial(PIECES, side=256, batch=8), Resizer)


def policy(data: Path | None, pack: Path) -> Student:
    """Learn by reward where ``main`` is worth a look, given the scout's guess.

    It sees a quarter of the size, where the scout sees half: it shares a budget with the scout.
    """
    return _student("policy", pack, partial(PIECES, side=512, batch=4), Chooser, down=4, steps=2000)


def transformer(data: Path | None, pack: Path) -> Student:
    """Guess, from squares of several sizes, what ``main`` counts."""
    pieces = partial(PIECES, side=512, batch=4, rings=3)
    return _student("transformer", pack, pieces, TokenStudent)


def _student(
    role: str,
    pack: Path,
    pieces: Callable[[int, int], Pieces],
    lesson: type[Student] = Student,
    **how: Any,
) -> Student:
    return lesson.of(
        pack,
        SOURCES,
        pieces,
        role=role,
        choose=[picture("crowd", WHOLE, seed) for seed in CHOOSE[:12]],
        test=[picture("crowd", WHOLE, seed) for seed in TEST[:4]],
        **how,
    )


COURSE = Course(
    "People from above",
    "Counts people in scenes seen obliquely from above.",
    {
        "main": main,
        "scout": scout,
        "scout/topk": picker,
        "scanner": scanner,
        "encoder": encoder,
        "encoder/nic": blind,
        "head": head,
        "resizer": resizer,
        "policy": policy,
        "transformer": transformer,
    },
)
