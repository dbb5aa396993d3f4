"""Training tasks of the model bundle ``nuclei``: ``hrviewer-train nuclei ROLE --data FOLDER``.

FOLDER holds ``index.csv``, photos and labels. The train split is for training; the val split is
for validation and, there being no other, for the card's figures.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.errors import ParameterError
from hrviewer.models.card import Architecture, ModelCard, ModelInput, ModelOutput
from hrviewer.training import (
    TEST,
    TRAIN,
    VALIDATION,
    Batch,
    CountedImage,
    CropStream,
    DenoisingTask,
    DensityTask,
    DistilledScout,
    EncoderTask,
    HeadTask,
    PolicyTask,
    ResizerTask,
    TaskSet,
    TopKScout,
    TransformerTask,
    WithoutContext,
    ZippedStreams,
    counted_image,
    full_image,
    halo,
)
from hrviewer.training.losses import WINDOWS
from torch.utils.data import Dataset

from hrviewer_histology.marked import AnnotatedField, AnnotatedFields, read_annotated_fields
from hrviewer_histology.photos import Photo, read_photos, shrink
from hrviewer_histology.stains import PhotoFields, UnlabelledPhotos

__all__ = ["INPUT", "SCALES", "TASKS", "count_samples"]

ARCHITECTURE = Architecture(
    name="density-unet", params={"classes": 1, "widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}
)
INPUT = ModelInput(
    channels="rgb",
    scale=1 / 255,
    mean=(0.7, 0.6, 0.7),
    std=(0.2, 0.25, 0.2),
    tile=512,
    multiple_of=16,
    pixel_size=0.5,
)
COARSE_WINDOWS = ((1, 1.0, 0.03), (4, 0.5, 0.15), (10, 1.5, 0.4), (40, 0.3, 1.5))
"""Windows where marks are some pixels off: counts of tens of pixels weigh more than places."""
TEST_SIDE, DISTILLATION_SIDE = 8192, 4096
"""Sides of the synthetic test slides of main, and of the distilled roles."""
SCALES = (1, 2, 4)
"""Downsampling factors of the val photos."""


def main(data: Path | None, bundle: Path, *, tissue: int = 0, marked: int = 0) -> DensityTask:
    """Count nuclei; of twelve fields some may be of `tissue`, others of an annotated slide."""
    photos, validation = _read_split(data, "train"), _read_split(data, "val")
    fields = read_annotated_fields(data) if data and marked else []
    card = ModelCard(
        name="nuclei-density",
        title="Nuclei, a density network",
        task="density",
        input=INPUT,
        output=ModelOutput(stride=4, halo=halo(ARCHITECTURE), context=32, classes=("nucleus",)),
        architecture=ARCHITECTURE,
        licence="BSD-3-Clause",
        citation="Trained on the histology photos of the 2018 Data Science Bowl (BBBC038, CC0): "
        "Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 2019.",
    )
    lots = {f"val_{k}": count_samples(validation, k) for k in SCALES}

    def pictures(steps: int, seed: int) -> Dataset[Batch]:
        cut = PhotoFields(photos, steps, seed, batch=12 - tissue)
        streams: list[Dataset[Any]] = [cut]
        if tissue:
            streams.append(CropStream("tissue", steps, seed, side=cut.side, batch=tissue, stride=4))
        if marked:
            streams.append(AnnotatedFields(fields, steps, seed, side=cut.side, batch=marked))
        return ZippedStreams(*streams)

    return DensityTask(
        card,
        (_photo_and_synthetic_provenance(photos) if tissue else _photo_provenance(photos))
        | _slide_provenance(fields),
        pictures,
        validation={"val_1": lots["val_1"]}
        | {"tissue": [counted_image("tissue", TEST_SIDE, seed) for seed in VALIDATION[:4]]},
        test=lots | {"tissue": [counted_image("tissue", TEST_SIDE, seed) for seed in TEST[:4]]},
        windows=COARSE_WINDOWS if marked else WINDOWS,
        steps=3600,
        learning_rate=6e-3 if marked else 3e-3,
    )


def scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts at an eighth of the size."""
    return _distillation_task(
        "scout", data, bundle, side=512, photos_per_batch=1, crops_per_batch=3
    )


def topk_scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil the same, with the highest uncertainty where ``main`` would correct most."""
    return _distillation_task(
        "scout", data, bundle, side=512, photos_per_batch=1, crops_per_batch=3, task=TopKScout
    )


def scanner(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from every pixel, at a tenth of the FLOPs."""
    return _distillation_task(
        "scanner", data, bundle, side=256, photos_per_batch=2, crops_per_batch=6
    )


def encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of ``main``'s counts and of the appearance."""
    return _distillation_task(
        "encoder", data, bundle, side=256, photos_per_batch=3, crops_per_batch=5, task=EncoderTask
    )


def unsupervised_encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of the appearance alone, without counts."""
    return _distillation_task(
        "encoder", data, bundle, side=256, photos_per_batch=3, crops_per_batch=5, task=DenoisingTask
    )


def head(data: Path | None, bundle: Path) -> DistilledScout:
    """Predict ``main``'s counts from embeddings."""
    return _distillation_task(
        "head", data, bundle, side=256, photos_per_batch=3, crops_per_batch=5, task=HeadTask
    )


def resizer(data: Path | None, bundle: Path) -> DistilledScout:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _distillation_task(
        "resizer", data, bundle, side=256, photos_per_batch=3, crops_per_batch=5, task=ResizerTask
    )


def policy(data: Path | None, bundle: Path) -> DistilledScout:
    """Select by reward the tiles for ``main``, given the scout's predictions."""
    return _distillation_task(
        "policy", data, bundle, side=512, photos_per_batch=1, crops_per_batch=3, task=PolicyTask
    )


def transformer(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from squares of several sizes."""
    return _distillation_task(
        "transformer",
        data,
        bundle,
        side=512,
        photos_per_batch=1,
        crops_per_batch=3,
        rings=3,
        task=TransformerTask,
    )


def _distillation_task(
    role: str,
    data: Path | None,
    bundle: Path,
    *,
    side: int,
    photos_per_batch: int,
    crops_per_batch: int,
    rings: int = 0,
    task: type[DistilledScout] = DistilledScout,
) -> DistilledScout:
    photos = _read_split(data, "train")

    def pictures(steps: int, seed: int) -> ZippedStreams:
        alone: Dataset[Batch] = UnlabelledPhotos(
            photos, steps, seed, batch=photos_per_batch, side=side
        )
        return ZippedStreams(
            WithoutContext(alone, rings) if rings else alone,
            CropStream("tissue", steps, seed, side=side, batch=crops_per_batch, rings=rings),
        )

    return task.from_bundle(
        bundle,
        _photo_and_synthetic_provenance(photos),
        pictures,
        role=role,
        validation=[full_image("tissue", DISTILLATION_SIDE, seed) for seed in VALIDATION[:4]],
        test=[full_image("tissue", DISTILLATION_SIDE, seed) for seed in TEST[:4]],
    )


TASKS = TaskSet(
    "Nuclei in histology",
    "Counts nuclei in bright-field histology at about 0.5 µm per pixel.",
    {
        "main": main,
        "main/tissue": partial(main, tissue=2),
        "main/slide": partial(main, tissue=2, marked=6),
        "main/both": partial(main, tissue=5, marked=6),
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


def count_samples(photos: list[Photo], factor: int = 1) -> list[CountedImage]:
    """Return photos shrunk by `factor`, with their counts."""
    return [CountedImage(shrink(p.layers[:3], factor), p.count) for p in photos]


def _read_split(data: Path | None, split: str) -> list[Photo]:
    if data is None:
        raise ParameterError("training needs labelled photos: give their folder with --data")
    return read_photos(data, split)


def _photo_provenance(photos: list[Photo]) -> dict[str, Any]:
    return {
        "data": "histology photos of the 2018 Data Science Bowl (BBBC038), CC0",
        "split": f"train, {len(photos)} photos, {sum(p.count for p in photos)} nuclei",
    }


def _photo_and_synthetic_provenance(photos: list[Photo]) -> dict[str, Any]:
    return {
        **_photo_provenance(photos),
        "synthetic images": f"`tissue` of 8192 px, seeds {TRAIN[0]}–{TRAIN[-1]}",
    }


def _slide_provenance(fields: list[AnnotatedField]) -> dict[str, Any]:
    if not fields:
        return {}
    count = sum(len(field.truth) for field in fields)
    return {"slide": f"CMU-1-Small-Region, CC0: {len(fields)} fields, {count} nuclei by eye"}
