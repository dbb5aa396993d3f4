"""How the networks of packs are taught: one program, ``hrviewer-train PACK ROLE``, for all of them.

A plug-in says *what* is learned, this package *how*. What is learned is a `Lesson`, one per role;
the lessons of a pack are its `Course`, found by an entry point that bears the pack's name::

    [project.entry-points."hrviewer.models"]
    gulls = "hrviewer_gulls:folder"

    [project.entry-points."hrviewer.training_tasks"]
    gulls = "hrviewer_gulls.training_tasks:TASKS"

Lessons of the two commonest kinds are put together from parts. Where the pictures are scenes that
the plug-in draws (``sample:beach``), ``hrviewer_gulls/training_tasks.py`` is no more than::

    NETWORK = Architecture(name="density-unet", params={"widths": [24, 48, 72, 96]})
    SOURCES = {"data": "scenes of beaches, seeds 0-9999"}

    def main(data, pack):
        card = Card(
            name="gulls-density", title="Gulls", task="density", architecture=NETWORK,
            input=Input(channels="rgb", scale=1 / 255, mean=[0.5], std=[0.25], tile=512,
                        multiple_of=16),
            output=Output(stride=4, halo=halo(NETWORK), classes=["gull"]),
        )
        return Density(
            card, SOURCES, partial(Pieces, "beach", side=256, stride=4),
            validation={"validation": [counted("beach", 2048, seed) for seed in CHOOSE[:8]]},
            test={"test": [counted("beach", 2048, seed) for seed in TEST[:10]]},
        )

    def scout(data, pack):  # learns from the pack's main: pictures are enough
        return Student.of(
            pack, SOURCES, partial(Pieces, "beach", side=512, batch=4), downsample=8,
            validation=[picture("beach", 4096, seed) for seed in CHOOSE[:8]],
            test=[picture("beach", 4096, seed) for seed in TEST[:10]],
        )

    TASKS = Course("Gulls", "Counts gulls from above.", {"main": main, "scout": scout})

Other pictures come from a stream of one's own: a function of steps and seed that returns a
``torch.utils.data.Dataset`` whose item ``i`` is batch ``i``, of the seed and ``i`` alone, here
``(images (n, 3, h, w) from 0 to 1, densities (n, k, h/stride, w/stride))``. `Joined` puts several
streams side by side.

Any other role offers an object of its own with what `Lesson` asks for. The loop (`train`) never
looks into a batch or an output: both are the lesson's.
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
