"""What was seen and spent: running, writing, reading runs.

`execute` carries a job out, `writer` is the engine's sink, `run` reads a folder, `estimate` says
what an answer means, `judge` measures it against the truth by `metrics`;
`compare` and `experiment` run many, `resolution` measures a network at every size, `published`
writes what came of it, `shelf` finds the runs of an image; `fitting` makes heads for the codes that
a run kept.
"""

from hrviewer.runs.compare import compare
from hrviewer.runs.estimates import estimate_to_dict, format_estimate, format_evaluation
from hrviewer.runs.exporting import export
from hrviewer.runs.heads import FittedHead, fit_head, fit_image_classifier
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec, parse_params, run
from hrviewer.runs.scaling import Scaling, cost
from hrviewer.runs.survey_experiment import experiment

__all__ = [
    "FittedHead",
    "Run",
    "RunSpec",
    "Scaling",
    "compare",
    "cost",
    "estimate_to_dict",
    "experiment",
    "export",
    "fit_head",
    "fit_image_classifier",
    "format_estimate",
    "format_evaluation",
    "parse_params",
    "run",
]
