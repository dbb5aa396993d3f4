"""How the networks of packs are taught: one program, ``hrviewer-train PACK ROLE``, for all of them.

A plug-in says *what* is learned, this package *how*. What is learned is a `Lesson`, one per role;
the lessons of a pack are its `Course`, found by an entry point that bears the pack's name::

    [project.entry-points."hrviewer.packs"]
    gulls = "hrviewer_gulls:folder"

    [project.entry-points."hrviewer.lessons"]
    gulls = "hrviewer_gulls.lessons:COURSE"

Lessons of the two commonest kinds are put together from parts. Where the pictures are scenes that
the plug-in draws (``sample:beach``), ``hrviewer_gulls/lessons.py`` is no more than::

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
            choose={"choose": [counted("beach", 2048, seed) for seed in CHOOSE[:8]]},
            test={"test": [counted("beach", 2048, seed) for seed in TEST[:10]]},
        )

    def scout(data, pack):  # learns from the pack's main: pictures are enough
        return Student.of(
            pack, SOURCES, partial(Pieces, "beach", side=512, batch=4), down=8,
            choose=[picture("beach", 4096, seed) for seed in CHOOSE[:8]],
            test=[picture("beach", 4096, seed) for seed in TEST[:10]],
        )

    COURSE = Course("Gulls", "Counts gulls from above.", {"main": main, "scout": scout})

Other pictures come from a stream of one's own: a function of steps and seed that returns a
``torch.utils.data.Dataset`` whose item ``i`` is batch ``i``, of the seed and ``i`` alone, here
``(images (n, 3, h, w) from 0 to 1, densities (n, k, h/stride, w/stride))``. `Joined` puts several
streams side by side.

Any other role offers an object of its own with what `Lesson` asks for. The loop (`train`) never
looks into a batch or an output: both are the lesson's.
"""

from hrviewer.training.data_streams import Alone, Joined
from hrviewer.training.density_task import Counted, Density, halo
from hrviewer.training.distillation import Student
from hrviewer.training.encoder_tasks import Coder, Reader
from hrviewer.training.loop import train
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.policy_task import Chooser
from hrviewer.training.reconstruction_task import Reconstructor
from hrviewer.training.resizer_task import Resizer
from hrviewer.training.save_pack import write_role
from hrviewer.training.scout_tasks import Picker
from hrviewer.training.synthetic_data import (
    CHOOSE,
    TEST,
    TRAIN,
    Pieces,
    Whole,
    counted,
    density,
    picture,
)
from hrviewer.training.task import Batch, Course, Lesson, installed_courses
from hrviewer.training.token_distillation import TokenStudent

__all__ = [
    "CHOOSE",
    "TEST",
    "TRAIN",
    "Alone",
    "Batch",
    "Chooser",
    "Coder",
    "Counted",
    "Course",
    "Density",
    "Joined",
    "Lesson",
    "Picker",
    "Pieces",
    "Reader",
    "Reconstructor",
    "Resizer",
    "Student",
    "TokenStudent",
    "Whole",
    "counted",
    "density",
    "density_loss",
    "halo",
    "installed_courses",
    "picture",
    "train",
    "variance_loss",
    "write_role",
]
