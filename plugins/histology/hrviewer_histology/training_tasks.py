"""Training tasks of the model bundle ``nuclei``: ``hrviewer-train nuclei ROLE --data FOLDER``.

FOLDER holds ``index.csv``, photos and labels. The train split is for training; the val split is
for validation and, there being no other, for the card's figures.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
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
from hrviewer_histology.sections import (
    COARSE,
    Section,
    SectionFields,
    UnlabelledSections,
    read_sections,
)
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
SLIDE = "CMU-1"
SOURCES = ("TCGA-A7", "TCGA-A8", "TCGA-AC", "photos", SLIDE)
"""Sources of real images, each of which a training can leave out."""


def main(
    data: Path | None,
    bundle: Path,
    *,
    tissue: int = 0,
    marked: int = 0,
    sections: int = 0,
    left_out: str = "",
) -> DensityTask:
    """Count nuclei; fields of a batch are of photos, synthetic slides, a slide and sections.

    Parameters
    ----------
    data, bundle
        As of every task.
    tissue
        Fields of twelve that are of synthetic slides; with `sections` of fourteen, some at random
        scales.
    marked
        Further fields, of an annotated slide.
    sections
        Further fields, of sections, and four without nuclei.
    left_out
        Source that is tested on instead of being learned: one of `SOURCES`.
    """
    photos, validation = _read_split(data, "train"), _read_split(data, "val")
    fields = read_annotated_fields(data) if data and marked else []
    real = read_sections(data.parent / "tissue") if data and sections else []
    learned = [section for section in real if section.source != left_out]
    card = ModelCard(
        name="nuclei-density",
        title="Nuclei, a density network",
        task="density",
        input=INPUT,
        output=ModelOutput(stride=4, halo=halo(ARCHITECTURE), context=32, classes=("nucleus",)),
        architecture=ARCHITECTURE,
        licence="BSD-3-Clause",
        citation="Trained on the histology photos of the 2018 Data Science Bowl (BBBC038, CC0): "
        "Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 2019"
        + ("; and on BRCA-M2C (BSD-3-Clause): Abousamra et al., ICCV 2021." if real else "."),
    )
    lots = {f"val_{k}": count_samples(validation, k) for k in SCALES}
    test = lots | {"tissue": [counted_image("tissue", TEST_SIDE, seed) for seed in TEST[:4]]}
    if left_out == "photos":
        test["photos"] = count_samples(photos)
    for source in sorted({section.source for section in real}):
        name = source if source == left_out else f"{source}, learned"
        of_source = [section for section in real if section.source == source]
        test[name] = [counted_section(section) for section in of_source]

    def pictures(steps: int, seed: int) -> Dataset[Batch]:
        side, streams = 160, list[Dataset[Any]]()
        if left_out != "photos":
            batch = 12 - tissue + (2 if sections else 0)
            streams.append(PhotoFields(photos, steps, seed, batch=batch, side=side))
        if tissue:
            at_scales = (
                {"batches_per_image": 64, "downscaled": tissue // 2, "scales": COARSE}
                if sections
                else {}
            )
            streams.append(
                CropStream("tissue", steps, seed, side=side, batch=tissue, stride=4, **at_scales)
            )
        if marked and left_out != SLIDE:
            streams.append(AnnotatedFields(fields, steps, seed, side=side, batch=marked))
        if learned:
            streams.append(
                SectionFields(learned, steps, seed, side=side, batch=sections, negatives=4)
            )
        return ZippedStreams(*streams)

    return DensityTask(
        card,
        (_photo_and_synthetic_provenance(photos) if tissue else _photo_provenance(photos))
        | _slide_provenance(fields)
        | _section_provenance(learned, left_out),
        pictures,
        validation={"val_1": lots["val_1"]}
        | {"tissue": [counted_image("tissue", TEST_SIDE, seed) for seed in VALIDATION[:4]]},
        test=test,
        windows=COARSE_WINDOWS if marked else WINDOWS,
        steps=1500 if sections else 3600,
        learning_rate=2e-3 if sections else 6e-3 if marked else 3e-3,
    )


def scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts at an eighth of the size."""
    return _distillation_task("scout", data, bundle, side=512, photos=1, crops=2, sections=2)


def topk_scout(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil the same, with the highest uncertainty where ``main`` would correct most."""
    return _distillation_task(
        "scout", data, bundle, side=512, photos=1, crops=2, sections=2, task=TopKScout
    )


def scanner(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from every pixel, at a tenth of the FLOPs."""
    return _distillation_task("scanner", data, bundle, side=256, photos=2, crops=4, sections=3)


def encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of ``main``'s counts and of the appearance."""
    return _distillation_task(
        "encoder", data, bundle, side=256, photos=2, crops=4, sections=3, task=EncoderTask
    )


def unsupervised_encoder(data: Path | None, bundle: Path) -> DistilledScout:
    """Train embeddings of the appearance alone, without counts."""
    return _distillation_task(
        "encoder", data, bundle, side=256, photos=2, crops=4, sections=3, task=DenoisingTask
    )


def head(data: Path | None, bundle: Path) -> DistilledScout:
    """Predict ``main``'s counts from embeddings."""
    return _distillation_task(
        "head", data, bundle, side=256, photos=2, crops=4, sections=3, task=HeadTask
    )


def resizer(data: Path | None, bundle: Path) -> DistilledScout:
    """Make pictures smaller so that ``main`` still counts in them."""
    return _distillation_task(
        "resizer", data, bundle, side=256, photos=2, crops=4, sections=3, task=ResizerTask
    )


def policy(data: Path | None, bundle: Path) -> DistilledScout:
    """Select by reward the tiles for ``main``, given the scout's predictions."""
    return _distillation_task(
        "policy", data, bundle, side=512, photos=1, crops=2, sections=2, task=PolicyTask
    )


def transformer(data: Path | None, bundle: Path) -> DistilledScout:
    """Distil ``main``'s counts from squares of several sizes."""
    return _distillation_task(
        "transformer",
        data,
        bundle,
        side=512,
        photos=1,
        crops=2,
        sections=2,
        rings=3,
        task=TransformerTask,
    )


def _distillation_task(
    role: str,
    data: Path | None,
    bundle: Path,
    *,
    side: int,
    photos: int,
    crops: int,
    sections: int,
    rings: int = 0,
    task: type[DistilledScout] = DistilledScout,
) -> DistilledScout:
    """Return the task of a role; fields of a batch are of photos, synthetic slides and sections.

    Without a folder of sections beside that of the photos their part is of photos, too.
    """
    learned = _read_split(data, "train")
    folder = data.parent / "tissue" if data else Path()
    real = read_sections(folder, labelled=False) if (folder / "index.json").is_file() else []

    def pictures(steps: int, seed: int) -> ZippedStreams:
        more = 0 if real else sections
        streams: list[Dataset[Batch]] = [
            UnlabelledPhotos(learned, steps, seed, batch=photos + more, side=side)
        ]
        if real:
            streams.append(UnlabelledSections(real, steps, seed, batch=sections, side=side))
        return ZippedStreams(
            *(WithoutContext(each, rings) if rings else each for each in streams),
            CropStream("tissue", steps, seed, side=side, batch=crops, rings=rings),
        )

    return task.from_bundle(
        bundle,
        _photo_and_synthetic_provenance(learned) | _unlabelled_provenance(real),
        pictures,
        role=role,
        validation=[full_image("tissue", DISTILLATION_SIDE, seed) for seed in VALIDATION[:4]],
        test=[full_image("tissue", DISTILLATION_SIDE, seed) for seed in TEST[:4]],
    )


sections_main = partial(main, tissue=4, marked=4, sections=6)

TASKS = TaskSet(
    "Nuclei in histology",
    "Counts nuclei in bright-field histology at about 0.5 µm per pixel.",
    {
        "main": main,
        "main/tissue": partial(main, tissue=2),
        "main/slide": partial(main, tissue=2, marked=6),
        "main/both": partial(main, tissue=5, marked=6),
        "main/sections": sections_main,
        **{f"main/without-{source}": partial(sections_main, left_out=source) for source in SOURCES},
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


def counted_section(section: Section) -> CountedImage:
    """Return a section, cut to whole steps of the network, with its count."""
    h, w = (length // INPUT.multiple_of * INPUT.multiple_of for length in section.rgb.shape[:2])
    inside = (section.truth.points < (h, w)).all(axis=1)
    pixels = torch.from_numpy(section.rgb[:h, :w].copy()).permute(2, 0, 1)
    return CountedImage(pixels, int(inside.sum()))


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


def _section_provenance(sections: list[Section], left_out: str) -> dict[str, Any]:
    if not sections:
        return {}
    count = sum(len(section.truth) for section in sections)
    sites = ", ".join(sorted({section.source for section in sections}))
    learned = f"BRCA-M2C, BSD-3-Clause: {len(sections)} sections of {sites}, {count} nuclei"
    return {"sections": learned} | ({"left out": left_out} if left_out else {})


def _unlabelled_provenance(sections: list[Section]) -> dict[str, Any]:
    if not sections:
        return {}
    licences = ", ".join(sorted({f"{each.source} ({each.licence})" for each in sections}))
    return {"sections": f"{len(sections)}, without labels: {licences}"}
