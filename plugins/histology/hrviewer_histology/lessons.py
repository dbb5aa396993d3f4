"""What the networks of the pack ``nuclei`` learn: ``hrviewer-train nuclei ROLE --data FOLDER``.

FOLDER holds ``index.csv``, photos and labels. The train split is learned from; the val split is
for choosing and, there being no other, for the card's figures.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.errors import UserError
from hrviewer.models.card import Architecture, Card, Input, Output
from hrviewer.training import (
    CHOOSE,
    TEST,
    TRAIN,
    Alone,
    Batch,
    Chooser,
    Coder,
    Counted,
    Course,
    Density,
    Joined,
    Picker,
    Pieces,
    Reader,
    Reconstructor,
    Resizer,
    Student,
    TokenStudent,
    halo,
    picture,
)
from hrviewer.training import counted as whole
from hrviewer.training.losses import WINDOWS
from torch.utils.data import Dataset

from hrviewer_histology.marked import Field, Marked, read_fields
from hrviewer_histology.photos import Photo, read_photos, shrink
from hrviewer_histology.stains import Fields, Pictures

__all__ = ["COURSE", "INPUT", "SCALES", "counted"]

NETWORK = Architecture(
    name="density-unet", params={"classes": 1, "widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}
)
INPUT = Input(
    channels="rgb",
    scale=1 / 255,
    mean=(0.7, 0.6, 0.7),
    std=(0.2, 0.25, 0.2),
    tile=512,
    multiple_of=16,
    pixel_size=0.5,
)
COARSE = ((1, 1.0, 0.03), (4, 0.5, 0.15), (10, 1.5, 0.4), (40, 0.3, 1.5))
"""Windows where marks are some pixels off: counts of tens of pixels weigh more than places."""
SIZE, WHOLE = 8192, 4096
"""Sides of the procedural slides that main, and its students, are judged by."""
SCALES = (1, 2, 4)
"""By how much val photos are shrunk before they are counted."""


def main(data: Path | None, pack: Path, *, tissue: int = 0, marked: int = 0) -> Density:
    """Count nuclei; of twelve fields learn some from `tissue`, and others from a marked slide."""
    photos, judges = _photos(data, "train"), _photos(data, "val")
    fields = read_fields(data) if data and marked else []
    card = Card(
        name="nuclei-density",
        title="Nuclei, a density network",
        task="density",
        input=INPUT,
        output=Output(stride=4, halo=halo(NETWORK), context=32, classes=("nucleus",)),
        architecture=NETWORK,
        licence="BSD-3-Clause",
        citation="Trained on the histology photos of the 2018 Data Science Bowl (BBBC038, CC0): "
        "Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 2019.",
    )
    lots = {f"val_{k}": counted(judges, k) for k in SCALES}

    def pictures(steps: int, seed: int) -> Dataset[Batch]:
        cut = Fields(photos, steps, seed, batch=12 - tissue)
        streams: list[Dataset[Any]] = [cut]
        if tissue:
            streams.append(Pieces("tissue", steps, seed, side=cut.side, batch=tissue, stride=4))
        if marked:
            streams.append(Marked(fields, steps, seed, side=cut.side, batch=marked))
        return Joined(*streams)

    return Density(
        card,
        (_with_scenes(photos) if tissue else _photographs(photos)) | _marks(fields),
        pictures,
        choose={"val_1": lots["val_1"]}
        | {"tissue": [whole("tissue", SIZE, seed) for seed in CHOOSE[:4]]},
        test=lots | {"tissue": [whole("tissue", SIZE, seed) for seed in TEST[:4]]},
        windows=COARSE if marked else WINDOWS,
        steps=3600,
        rate=6e-3 if marked else 3e-3,
    )


def scout(data: Path | None, pack: Path) -> Student:
    """Guess from an eighth of the size what ``main`` counts."""
    return _student("scout", data, pack, side=512, photographs=1, pieces=3)


def picker(data: Path | None, pack: Path) -> Student:
    """Guess the same, and doubt most where a look would correct most."""
    return _student("scout", data, pack, side=512, photographs=1, pieces=3, kind=Picker)


def scanner(data: Path | None, pack: Path) -> Student:
    """Guess from every pixel, with a tenth of the work, what ``main`` counts."""
    return _student("scanner", data, pack, side=256, photographs=2, pieces=6)


def encoder(data: Path | None, pack: Path) -> Student:
    """Say in a few numbers what ``main`` counts, and what it looks like."""
    return _student("encoder", data, pack, side=256, photographs=3, pieces=5, kind=Coder)


def blind(data: Path | None, pack: Path) -> Student:
    """Say in a few numbers what a place looks like, without knowing what is to be counted."""
    return _student("encoder", data, pack, side=256, photographs=3, pieces=5, kind=Reconstructor)


def head(data: Path | None, pack: Path) -> Student:
    """Read from codes what ``main`` counts."""
    return _student("head", data, pack, side=256, photographs=3, pieces=5, kind=Reader)


def resizer(data: Path | None, pack: Path) -> Student:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _student("resizer", data, pack, side=256, photographs=3, pieces=5, kind=Resizer)


def policy(data: Path | None, pack: Path) -> Student:
    """Learn by reward where ``main`` is worth a look, given the scout's guess."""
    return _student("policy", data, pack, side=512, photographs=1, pieces=3, kind=Chooser)


def transformer(data: Path | None, pack: Path) -> Student:
    """Guess, from squares of several sizes, what ``main`` counts."""
    return _student(
        "transformer", data, pack, side=512, photographs=1, pieces=3, rings=3, kind=TokenStudent
    )


def _student(
    role: str,
    data: Path | None,
    pack: Path,
    *,
    side: int,
    photographs: int,
    pieces: int,
    rings: int = 0,
    kind: type[Student] = Student,
) -> Student:
    photos = _photos(data, "train")

    def pictures(steps: int, seed: int) -> Joined:
        alone: Dataset[Batch] = Pictures(photos, steps, seed, batch=photographs, side=side)
        return Joined(
            Alone(alone, rings) if rings else alone,
            Pieces("tissue", steps, seed, side=side, batch=pieces, rings=rings),
        )

    return kind.of(
        pack,
        _with_scenes(photos),
        pictures,
        role=role,
        choose=[picture("tissue", WHOLE, seed) for seed in CHOOSE[:4]],
        test=[picture("tissue", WHOLE, seed) for seed in TEST[:4]],
    )


COURSE = Course(
    "Nuclei in histology",
    "Counts nuclei in bright-field histology at about 0.5 µm per pixel.",
    {
        "main": main,
        "main/tissue": partial(main, tissue=2),
        "main/slide": partial(main, tissue=2, marked=6),
        "main/both": partial(main, tissue=5, marked=6),
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


def counted(photos: list[Photo], factor: int = 1) -> list[Counted]:
    """Return photos shrunk by `factor`, with their counts."""
    return [Counted(shrink(p.layers[:3], factor), p.count) for p in photos]


def _photos(data: Path | None, split: str) -> list[Photo]:
    if data is None:
        raise UserError("nuclei are learned from labelled photos: give their folder with --data")
    return read_photos(data, split)


def _photographs(photos: list[Photo]) -> dict[str, Any]:
    return {
        "data": "histology photos of the 2018 Data Science Bowl (BBBC038), CC0",
        "split": f"train, {len(photos)} photos, {sum(p.count for p in photos)} nuclei",
    }


def _with_scenes(photos: list[Photo]) -> dict[str, Any]:
    return {
        **_photographs(photos),
        "scenes": f"`tissue` of 8192 px, seeds {TRAIN[0]}–{TRAIN[-1]}",
    }


def _marks(fields: list[Field]) -> dict[str, Any]:
    if not fields:
        return {}
    count = sum(len(field.truth) for field in fields)
    return {"slide": f"CMU-1-Small-Region, CC0: {len(fields)} fields, {count} nuclei by eye"}
