"""What the pack's network learns: ``hrviewer-train dots main``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hrviewer.models.card import Architecture, Card, Input, Output
from hrviewer.training import CHOOSE, TEST, Course, Density, Pieces, counted, halo

__all__ = ["COURSE"]

NETWORK = Architecture(name="density-unet", params={"widths": [8, 8, 8, 8], "blocks": [1, 0, 0]})


def main(data: Path | None, pack: Path) -> Density:
    """Count dots."""
    card = Card(
        name="dots-density",
        title="Dots, a density network",
        task="density",
        input=Input(
            channels="rgb", scale=1 / 255, mean=(0.8,), std=(0.2,), tile=512, multiple_of=16
        ),
        output=Output(stride=4, halo=halo(NETWORK), classes=("dot",)),
        architecture=NETWORK,
        licence="BSD-3-Clause",
    )
    return Density(
        card,
        {"data": "scenes of dots, seeds 0–9999"},
        partial(Pieces, "dots", size=4096, side=160, stride=4),
        choose={"choose": [counted("dots", 1024, seed) for seed in CHOOSE[:4]]},
        test={"test": [counted("dots", 1024, seed) for seed in TEST[:10]]},
        steps=600,
        rate=1e-2,
    )


COURSE = Course("Dots", "Counts dots: a pack to copy.", {"main": main})
