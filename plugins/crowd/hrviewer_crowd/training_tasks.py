"""Training tasks of the model bundle ``crowd``: ``hrviewer-train crowd ROLE``.

The training data are synthetic images ``crowd`` with exact ground truth; nothing is downloaded.
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
SOURCES = {"data": f"synthetic images `crowd` of 8192 px, seeds {TRAIN[0]}–{TRAIN[-1]}"}
CROP_SIDE = 192
"""Side of the training crops, in pixels."""
CROPS = partial(CropStream, "crowd", size_gradient=10, density_exponent=0.5)
"""The nearest people are ten times as large as the farthest ones."""
WINDOWS = ((1, 2.0, 0.01), (4, 0.5, 0.03), (10, 0.4, 0.06), (40, 0.3, 0.15))
"""Little is added to a count: most of an image is empty, and a trace everywhere would add up."""
TEST_SIDE, DISTILLATION_SIDE = 8192, 4096
"""Side of the test images of main, and of the distilled roles."""


def main(data: Path | None, bundle: Path) -> DensityTask:
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
        citation="Trained on synthetic images; hrviewer, https://pypi.org/project/hrviewer/",
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
            downscaled=7,
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


def scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts at half the size: people vanish at lower resolutions."""
    return _distillation_task("scout", bundle, partial(CROPS, side=512, batch=4), downsample=2)


def topk_scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil the same, with the highest uncertainty where ``main`` would correct most."""
    pieces = partial(CROPS, side=512, batch=4)
    return _distillation_task("scout", bundle, pieces, TopKScout, downsample=2)


def scanner(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from every pixel, at a tenth of the FLOPs."""
    return _distillation_task("scanner", bundle, partial(CROPS, side=256, batch=8))


def encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of ``main``'s counts and of the appearance."""
    return _distillation_task("encoder", bundle, partial(CROPS, side=256, batch=8), EncoderTask)


def unsupervised_encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of the appearance alone, without counts."""
    pieces = partial(CROPS, side=256, batch=8)
    return _distillation_task("encoder", bundle, pieces, DenoisingTask)


def head(data: Path | None, bundle: Path) -> DistilledScout:
    """Predict ``main``'s counts from embeddings."""
    return _distillation_task("head", bundle, partial(CROPS, side=256, batch=8), HeadTask)


def resizer(data: Path | None, bundle: Path) -> DistilledScout:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _distillation_task("resizer", bundle, partial(CROPS, side=256, batch=8), ResizerTask)


def policy(data: Path | None, bundle: Path) -> DistilledScout:
    """Select by reward the tiles for ``main``, given the scout's predictions.

    Its input has a quarter of the size, where the scout's has half: they share a budget.
    """
    return _distillation_task(
        "policy", bundle, partial(CROPS, side=512, batch=4), PolicyTask, downsample=4, steps=2000
    )


def transformer(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from squares of several sizes."""
    pieces = partial(CROPS, side=512, batch=4, rings=3)
    return _distillation_task("transformer", bundle, pieces, TransformerTask)


def _distillation_task(
    role: str,
    bundle: Path,
    crops: Callable[[int, int], CropStream],
    task: type[DistilledScout] = DistilledScout,
    **how: Any,
) -> DistilledScout:
    return task.from_bundle(
        bundle,
        SOURCES,
        crops,
        role=role,
        validation=[full_image("crowd", DISTILLATION_SIDE, seed) for seed in VALIDATION[:12]],
        test=[full_image("crowd", DISTILLATION_SIDE, seed) for seed in TEST[:4]],
        **how,
    )


TASKS = TaskSet(
    "People from above",
    "Counts people viewed obliquely from above.",
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
