"""Runs: inference with a strategy on an image, run folders, comparisons and evaluation.

`runner` runs inference and `writer` writes the run folder that `run` reads; `estimates` defines
and formats estimates, `evaluation` compares them with ground truth by `metrics`; `compare` and
`survey_experiment` run many strategies, `scaling` measures a model by input size,
`comparison_report` writes tables, plots and reports, `run_index` lists the runs of an image;
`heads` fits heads to the embeddings of a run.
"""

from hrviewer.runs.compare import compare
from hrviewer.runs.estimates import (
    describe_estimate,
    estimate_to_dict,
    format_estimate,
    format_evaluation,
)
from hrviewer.runs.exporting import export
from hrviewer.runs.heads import FittedHead, fit_head, fit_image_classifier
from hrviewer.runs.model import Model, load, run
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec
from hrviewer.runs.scaling import Scaling, cost
from hrviewer.runs.settings import parse_params
from hrviewer.runs.survey_experiment import experiment

__all__ = [
    "FittedHead",
    "Model",
    "Run",
    "RunSpec",
    "Scaling",
    "compare",
    "cost",
    "describe_estimate",
    "estimate_to_dict",
    "experiment",
    "export",
    "fit_head",
    "fit_image_classifier",
    "format_estimate",
    "format_evaluation",
    "load",
    "parse_params",
    "run",
]
