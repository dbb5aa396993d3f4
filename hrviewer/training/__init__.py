"""Training of the networks in model bundles: one program, ``hrviewer-train BUNDLE ROLE``.

A plug-in defines *what* is learned, this package *how*. Each role has a `TrainingTask`; the tasks
of a bundle are its `TaskSet`, found by an entry point with the bundle's name::

    [project.entry-points."hrviewer.models"]
    gulls = "hrviewer_gulls:folder"

    [project.entry-points."hrviewer.training_tasks"]
    gulls = "hrviewer_gulls.training_tasks:TASKS"

Tasks of the two commonest kinds are assembled from parts. If the images are synthetic ones of the
plug-in (``sample:beach``), ``hrviewer_gulls/training_tasks.py`` is no more than::

    ARCHITECTURE = Architecture(name="density-unet", params={"widths": [24, 48, 72, 96]})
    SOURCES = {"data": "synthetic images of beaches, seeds 0-9999"}

    def main(data, bundle):
        card = ModelCard(
            name="gulls-density", title="Gulls", task="density", architecture=ARCHITECTURE,
            input=ModelInput(channels="rgb", scale=1 / 255, mean=[0.5], std=[0.25], tile=512,
                             multiple_of=16),
            output=ModelOutput(stride=4, halo=halo(ARCHITECTURE), classes=["gull"]),
        )
        return DensityTask(
            card, SOURCES, partial(CropStream, "beach", side=256, stride=4),
            validation={"validation": [counted_image("beach", 2048, s) for s in VALIDATION[:8]]},
            test={"test": [counted_image("beach", 2048, s) for s in TEST[:10]]},
        )

    def scout(data, bundle):  # distilled from the bundle's main: unlabelled images suffice
        return DistilledScout.from_bundle(
            bundle, SOURCES, partial(CropStream, "beach", side=512, batch=4), downsample=8,
            validation=[full_image("beach", 4096, seed) for seed in VALIDATION[:8]],
            test=[full_image("beach", 4096, seed) for seed in TEST[:10]],
        )

    TASKS = TaskSet("Gulls", "Counts gulls from above.", {"main": main, "scout": scout})

Other images come from a data stream: a function of steps and seed that returns a
``torch.utils.data.Dataset`` whose item ``i`` is batch ``i`` and depends on the seed and ``i``
alone, here ``(images (n, 3, h, w) from 0 to 1, densities (n, k, h/stride, w/stride))``.
`ZippedStreams` concatenates the batches of several streams.

Any other role has a class of its own that implements `TrainingTask`. The loop (`train`) treats
batches and predictions as opaque.
"""

from hrviewer.training.data_streams import WithoutContext, ZippedStreams
from hrviewer.training.density_task import CountedImage, DensityTask, halo
from hrviewer.training.distillation import DistilledScout
from hrviewer.training.encoder_tasks import EncoderTask, HeadTask
from hrviewer.training.loop import train
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.policy_task import PolicyTask
from hrviewer.training.reconstruction_task import DenoisingTask
from hrviewer.training.resizer_task import ResizerTask
from hrviewer.training.save_bundle import write_role
from hrviewer.training.scout_tasks import TopKScout
from hrviewer.training.synthetic_data import (
    TEST,
    TRAIN,
    VALIDATION,
    CropStream,
    FullImages,
    counted_image,
    density_map,
    full_image,
)
from hrviewer.training.task import Batch, TaskSet, TrainingTask, installed_task_sets
from hrviewer.training.token_distillation import TransformerTask

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Batch",
    "CountedImage",
    "CropStream",
    "DenoisingTask",
    "DensityTask",
    "DistilledScout",
    "EncoderTask",
    "FullImages",
    "HeadTask",
    "PolicyTask",
    "ResizerTask",
    "TaskSet",
    "TopKScout",
    "TrainingTask",
    "TransformerTask",
    "WithoutContext",
    "ZippedStreams",
    "counted_image",
    "density_loss",
    "density_map",
    "full_image",
    "halo",
    "installed_task_sets",
    "train",
    "variance_loss",
    "write_role",
]
