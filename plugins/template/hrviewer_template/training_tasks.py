"""Training task of the model bundle: ``hrviewer-train dots main``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hrviewer.models.card import Architecture, ModelCard, ModelInput, ModelOutput
from hrviewer.training import (
    TEST,
    VALIDATION,
    CropStream,
    DensityTask,
    TaskSet,
    counted_image,
    halo,
)

__all__ = ["TASKS"]

ARCHITECTURE = Architecture(
    name="density-unet", params={"widths": [8, 8, 8, 8], "blocks": [1, 0, 0]}
)


def main(data: Path | None, bundle: Path) -> DensityTask:
    """Count dots."""
    card = ModelCard(
        name="dots-density",
        title="Dots, a density network",
        task="density",
        input=ModelInput(
            channels="rgb", scale=1 / 255, mean=(0.8,), std=(0.2,), tile=512, multiple_of=16
        ),
        output=ModelOutput(stride=4, halo=halo(ARCHITECTURE), classes=("dot",)),
        architecture=ARCHITECTURE,
        licence="BSD-3-Clause",
    )
    return DensityTask(
        card,
        {"data": "synthetic dots, seeds 0–9999"},
        partial(CropStream, "dots", size=4096, side=160, stride=4),
        validation={"validation": [counted_image("dots", 1024, seed) for seed in VALIDATION[:4]]},
        test={"test": [counted_image("dots", 1024, seed) for seed in TEST[:10]]},
        steps=600,
        learning_rate=1e-2,
    )


TASKS = TaskSet("Dots", "Counts dots: a model bundle to copy.", {"main": main})
