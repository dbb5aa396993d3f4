"""What was seen and spent: running, writing, reading runs.

`execute` carries a job out, `writer` is the engine's sink, `run` reads a folder, `estimate` says
what an answer means, `judge` measures it against the truth by `metrics`;
`compare` and `experiment` run many, `resolution` measures a network at every size, `published`
writes what came of it, `shelf` finds the runs of an image; `fitting` makes heads for the codes that
a run kept.
"""

from hrviewer.runs.compare import compare
from hrviewer.runs.estimates import describe, sentence, verdict
from hrviewer.runs.heads import Fitted, fit_head, fit_images
from hrviewer.runs.run import Run
from hrviewer.runs.runner import Job, parse_params, run
from hrviewer.runs.scaling import Scaling, cost
from hrviewer.runs.survey_experiment import experiment

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
