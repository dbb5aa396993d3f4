"""What the networks of the pack ``crowd`` learn: ``hrviewer-train crowd ROLE``.

All from the scene ``crowd``, whose truth is known; nothing has to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.models.card import Architecture, ModelCard, ModelInput, ModelOutput
from hrviewer.training import (
    TEST,
    TRAIN,
    VALIDATION,
    CropStream,
    DenoisingTask,
    DensityTask,
    DistilledScout,
    EncoderTask,
    FullImages,
    HeadTask,
    PolicyTask,
    ResizerTask,
    TaskSet,
    TopKScout,
    TransformerTask,
    counted_image,
    full_image,
    halo,
)

__all__ = ["TASKS"]

ARCHITECTURE = Architecture(
    name="density-unet", params={"classes": 1, "widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}
)
SOURCES = {"data": f"scenes `crowd` of 8192 px, seeds {TRAIN[0]}–{TRAIN[-1]}"}
CROP_SIDE = 192
"""Of the pieces that it learns from, in pixels."""
CROPS = partial(CropStream, "crowd", size_gradient=10, density_exponent=0.5)
"""The nearest people are ten times as large as the farthest ones."""
WINDOWS = ((1, 2.0, 0.01), (4, 0.5, 0.03), (10, 0.4, 0.06), (40, 0.3, 0.15))
"""Little is added to a count: most of a scene is empty, and a trace everywhere would add up."""
TEST_SIDE, DISTILLATION_SIDE = 8192, 4096
"""Of the scenes that main, and its students, are judged by."""


def main(data: Path | None, pack: Path) -> DensityTask:
    """Count people."""
    card = ModelCard(
        name="crowd-density",
        title="People from above, a density network",
        task="density",
        input=ModelInput(
            channels="rgb",
            scale=1 / 255,
            mean=(0.5, 0.45, 0.42),
            std=(0.2,),
            tile=512,
            multiple_of=16,
        ),
        output=ModelOutput(stride=4, halo=halo(ARCHITECTURE), context=32, classes=("person",)),
        architecture=ARCHITECTURE,
        licence="BSD-3-Clause",
        citation="Trained on procedural scenes; hrviewer, https://pypi.org/project/hrviewer/",
    )
    return DensityTask(
        card,
        SOURCES,
        partial(
            CROPS,
            side=CROP_SIDE,
            batch=18,
            stride=4,
            object_fraction=0.4,
            batches_per_image=8,
            downscaled=2,
        ),
        validation={
            "validation": [counted_image("crowd", TEST_SIDE, seed) for seed in VALIDATION[:8]]
        },
        test={"test": [counted_image("crowd", TEST_SIDE, seed) for seed in TEST[:4]]},
        windows=WINDOWS,
        hard_negatives=4,
        calibration={"validation": FullImages("crowd", TEST_SIDE, VALIDATION[:24])},
        steps=9000,
    )


def scout(data: Path | None, pack: Path) -> DistilledScout:
    """Guess from half the size what ``main`` counts: from farther, people cannot be seen."""
    return _distillation_task("scout", pack, partial(CROPS, side=512, batch=4), downsample=2)


def topk_scout(data: Path | None, pack: Path) -> DistilledScout:
    """Guess the same, and doubt most where a look would correct most."""
    pieces = partial(CROPS, side=512, batch=4)
    return _distillation_task("scout", pack, pieces, TopKScout, downsample=2)


def scanner(data: Path | None, pack: Path) -> DistilledScout:
    """Guess from every pixel, with a tenth of the work, what ``main`` counts."""
    return _distillation_task("scanner", pack, partial(CROPS, side=256, batch=8))


def encoder(data: Path | None, pack: Path) -> DistilledScout:
    """Say in a few numbers what ``main`` counts, and what it looks like."""
    return _distillation_task("encoder", pack, partial(CROPS, side=256, batch=8), EncoderTask)


def unsupervised_encoder(data: Path | None, pack: Path) -> DistilledScout:
    """Say in a few numbers what a place looks like, without knowing what is to be counted."""
    pieces = partial(CROPS, side=256, batch=8)
    return _distillation_task("encoder", pack, pieces, DenoisingTask)


def head(data: Path | None, pack: Path) -> DistilledScout:
    """Read from codes what ``main`` counts."""
    return _distillation_task("head", pack, partial(CROPS, side=256, batch=8), HeadTask)


def resizer(data: Path | None, pack: Path) -> DistilledScout:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _distillation_task("resizer", pack, partial(CROPS, side=256, batch=8), ResizerTask)


def policy(data: Path | None, pack: Path) -> DistilledScout:
    """Learn by reward where ``main`` is worth a look, given the scout's guess.

    It sees a quarter of the size, where the scout sees half: it shares a budget with the scout.
    """
    return _distillation_task(
        "policy", pack, partial(CROPS, side=512, batch=4), PolicyTask, downsample=4, steps=2000
    )


def transformer(data: Path | None, pack: Path) -> DistilledScout:
    """Guess, from squares of several sizes, what ``main`` counts."""
    pieces = partial(CROPS, side=512, batch=4, rings=3)
    return _distillation_task("transformer", pack, pieces, TransformerTask)


def _distillation_task(
    role: str,
    pack: Path,
    crops: Callable[[int, int], CropStream],
    task: type[DistilledScout] = DistilledScout,
    **how: Any,
) -> DistilledScout:
    return task.from_bundle(
        pack,
        SOURCES,
        crops,
        role=role,
        validation=[full_image("crowd", DISTILLATION_SIDE, seed) for seed in VALIDATION[:12]],
        test=[full_image("crowd", DISTILLATION_SIDE, seed) for seed in TEST[:4]],
        **how,
    )


TASKS = TaskSet(
    "People from above",
    "Counts people in scenes seen obliquely from above.",
    {
        "main": main,
        "scout": scout,
        "scout/topk": topk_scout,
        "scanner": scanner,
        "encoder": encoder,
        "encoder/nic": unsupervised_encoder,
        "head": head,
        "resizer": resizer,
        "policy": policy,
        "transformer": transformer,
    },
)
