"""The runs of one image that lie in folders, each with what it came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrviewer.engine import Budget
from hrviewer.errors import HrviewerError
from hrviewer.ground_truth import GroundTruth
from hrviewer.runs.compare import summarize
from hrviewer.runs.evaluation import evaluate_count, select_classes
from hrviewer.runs.run import Run

__all__ = ["RunEntry", "list_runs"]


@dataclass(frozen=True, eq=False)
class RunEntry:
    """A run on the shelf.

    Parameters
    ----------
    run : Run
        Its folder.
    row : dict
        As in a comparison's table: ``estimate``, ``reference``, ``error``, ``flops``, ``wall_s``…
    reference_source : {"truth", "patches", ""}
        What its error is measured against; nothing where nobody knows.
    """

    run: Run
    row: dict[str, Any]
    reference_source: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def strategy(self) -> str:
        """Where the network looked."""
        return str(self.run.header["strategy"])

    @property
    def settings(self) -> str:
        """What was asked for besides: parameters that are not the defaults, and the budget."""
        header = self.run.header
        params = [f"{name}={value}" for name, value in header["params"].items()]
        budget = header["budget"]
        return " ".join([*params, *([Budget.parse(budget).label] if budget else [])])

    @property
    def title(self) -> str:
        """The strategy, and what was asked for."""
        return f"{self.strategy} {self.settings}".rstrip()


def list_runs(
    fingerprint: str, folders: Iterable[Path], truth: GroundTruth | None = None
) -> list[RunEntry]:
    """Return the finished runs of an image, the earliest first.

    Errors are measured against the truth if it is given; else against an exhaustive ``patches``
    run with the same network on the same region, if there is one; else they are what the run
    itself was measured by.

    Parameters
    ----------
    fingerprint : str
        The image's.
    folders : iterable of Path
        Where runs lie; what is no run is passed over.
    truth : Truth, optional
        The objects on the image.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        for path in folder.glob("*.run.zarr"):
            try:
                run = Run(path)
            except HrviewerError:
                continue
            if run.complete and run.header["image"]["fingerprint"] == fingerprint:
                found[path.resolve()] = run
    runs = sorted(found.values(), key=lambda run: str(run.header["started"]))
    return [make_entry(run, runs, truth) for run in runs]


def make_entry(run: Run, runs: Iterable[Run], truth: GroundTruth | None) -> RunEntry:
    """Return a run with its error; see `shelf`."""
    estimate = run.estimate
    if truth is not None and estimate is not None and estimate["kind"] == "count":
        # Kept in memory only: the run's folder says what it was measured against when it was made.
        run.header["truth"] = evaluate_count(run, select_classes(truth, estimate["per_class"]))
        return RunEntry(run, summarize(run, None), "truth")
    reference = next(
        (other for other in runs if is_exhaustive(other) and is_comparable(run, other)), None
    )
    if reference is not None and reference.estimate is not None:
        return RunEntry(run, summarize(run, reference), "patches")
    return RunEntry(run, summarize(run, None), "truth" if run.evaluation else "")


def is_exhaustive(run: Run) -> bool:
    """Tell whether a run looked at everything as it is."""
    header = run.header
    return header["strategy"] == "patches" and not header["params"] and not header["budget"]


def is_comparable(run: Run, other: Run) -> bool:
    """Tell whether two runs ask the same network about the same region."""
    same = ("model", "region", "priors")
    return all(run.header.get(name) == other.header.get(name) for name in same)
