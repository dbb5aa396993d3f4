"""How the networks of packs are taught: one program, ``hrviewer-train PACK ROLE``, for all of them.

A plug-in says *what* is learned, this package *how*. What is learned is a `Lesson`, one per role;
the lessons of a pack are its `Course`, found by an entry point that bears the pack's name::

    [project.entry-points."hrviewer.packs"]
    gulls = "hrviewer_gulls:folder"

    [project.entry-points."hrviewer.lessons"]
    gulls = "hrviewer_gulls.lessons:COURSE"

Lessons of the two commonest kinds are put together from parts, in ``hrviewer_gulls/lessons.py``::

    from hrviewer.models.card import Card
    from hrviewer.training import Counted, Course, Density, Scout, halo

    PARAMS = {"widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}

    class Beaches(Dataset):
        \"\"\"Batches: images (n, 3, h, w) from 0 to 1, densities (n, k, h/4, w/4).\"\"\"

        def __init__(self, steps, seed): ...
        def __len__(self): return self.steps
        def __getitem__(self, step):  # of the seed and the step alone
            rng = np.random.default_rng((self.seed, step))
            ...
            return images, densities

    def main(data, pack):
        counted = [Counted(image, count), ...]  # whole pictures, never trained on
        card = Card(name="gulls-density", task="density", architecture={...}, input=..., output=...)
        return Density(
            card, {"data": "beach scenes, seeds 0-9999"}, Beaches,
            choose={"choose": counted}, test={"test": others},
        )

    def scout(data, pack):  # learns from the pack's main; needs pictures only, no truth
        return Scout.of(
            pack, {"data": "beach scenes, seeds 0-9999"}, BeachPictures, down=8,
            choose=pictures, test=others,
        )

    COURSE = Course("Gulls", "Counts gulls from above.", {"main": main, "scout": scout})

Any other role offers an object of its own with what `Lesson` asks for. The loop (`train`) never
looks into a batch or an output: both are the lesson's.
"""

from hrviewer.training.density import Counted, Density, halo
from hrviewer.training.lesson import Batch, Course, Lesson, installed_courses
from hrviewer.training.loop import train
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.scout import Scout
from hrviewer.training.streams import CHOOSE, TEST, TRAIN, Joined
from hrviewer.training.writing import write_role

__all__ = [
    "CHOOSE",
    "TEST",
    "TRAIN",
    "Batch",
    "Counted",
    "Course",
    "Density",
    "Joined",
    "Lesson",
    "Scout",
    "density_loss",
    "halo",
    "installed_courses",
    "train",
    "variance_loss",
    "write_role",
]
