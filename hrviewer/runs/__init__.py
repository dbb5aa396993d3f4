"""What was seen and spent: running, writing, reading runs.

`execute` carries a job out, `writer` is the engine's sink, `run` reads a folder, `estimate` says
what an answer means, `judge` measures it against the truth by `metrics`;
`compare` and `experiment` run many, `resolution` measures a network at every size, `published`
writes what came of it, `shelf` finds the runs of an image; `fitting` makes heads for the codes that
a run kept.
"""

from hrviewer.runs.compare import compare
from hrviewer.runs.estimate import describe, sentence, verdict
from hrviewer.runs.execute import Job, parse_params, run
from hrviewer.runs.experiment import experiment
from hrviewer.runs.fitting import Fitted, fit_head, fit_images
from hrviewer.runs.resolution import Scaling, cost
from hrviewer.runs.run import Run

__all__ = [
    "Fitted",
    "Job",
    "Run",
    "Scaling",
    "compare",
    "cost",
    "describe",
    "experiment",
    "fit_head",
    "fit_images",
    "parse_params",
    "run",
    "sentence",
    "verdict",
]
