"""The runs of an image in some folders, with their errors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hrviewer.engine import Budget
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.runs.compare import summarize
from hrviewer.runs.evaluation import evaluate_count, select_classes
from hrviewer.runs.run import Run
from hrviewer.runs.run_label import RunLabel, read_label

__all__ = ["RunEntry", "entries_of_one_place", "list_runs"]


@dataclass(frozen=True, eq=False)
class RunEntry:
    """A run of the index.

    Parameters
    ----------
    run : Run
        The run.
    row : dict
        Columns of a comparison's table, as ``estimate``, ``error`` and ``flops``.
    reference_source : {"truth", "patches", ""}
        Reference of the error; empty without one.
    label : RunLabel
        The user's title and note.
    """

    run: Run
    row: dict[str, Any]
    reference_source: str
    label: RunLabel = field(default_factory=RunLabel)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def strategy(self) -> str:
        """The strategy's id."""
        return str(self.run.header["strategy"])

    @property
    def settings(self) -> str:
        """Parameters that differ from the defaults, and the budget."""
        header = self.run.header
        params = [f"{name}={value}" for name, value in header["params"].items()]
        budget = header["budget"]
        return " ".join([*params, *([Budget.parse(budget).label] if budget else [])])

    @property
    def title(self) -> str:
        """The user's title, else the strategy and its settings."""
        return self.label.title or f"{self.strategy} {self.settings}".rstrip()


def list_runs(
    image_key: str,
    folders: Iterable[Path],
    find_objects: Callable[[Rect], GroundTruth] | None = None,
) -> list[RunEntry]:
    """Return the finished runs of an image, the earliest first.

    Errors are relative to the ground truth if there is any; else to an exhaustive ``patches`` run
    with the same model on the same regions, if there is one; else they are those recorded in the
    run.

    Parameters
    ----------
    image_key : str
        `Pyramid.image_key`: runs on other planes or channels of the file are left out.
    folders : iterable of Path
        Folders of runs; other files are ignored.
    find_objects : callable, optional
        Returns the ground truth in a rectangle; called with the region of every run.
    """
    by_path: dict[Path, Run] = {}
    for folder in folders:
        for path in folder.glob("*.run.zarr"):
            try:
                run = Run(path)
            except HrviewerError:
                continue
            if run.complete and run.image_key == image_key:
                by_path[path.resolve()] = run
    runs = sorted(by_path.values(), key=lambda run: str(run.header["started"]))
    return [make_entry(run, runs, find_objects) for run in runs]


def make_entry(
    run: Run, runs: Iterable[Run], find_objects: Callable[[Rect], GroundTruth] | None
) -> RunEntry:
    """Return a run with its error, and its cost over that of ``patches``; see `list_runs`."""
    entry = entry_with_error(run, runs, find_objects)
    full = next((one for one in runs if is_exhaustive(one) and is_comparable(run, one)), None)
    if full is not None and full.cost["flops"]:
        entry.row["of_patches"] = run.cost["flops"] / full.cost["flops"]
    return replace(entry, label=read_label(run.path))


def entry_with_error(
    run: Run, runs: Iterable[Run], find_objects: Callable[[Rect], GroundTruth] | None
) -> RunEntry:
    """Return a run with its error; see `list_runs`."""
    estimate = run.estimate
    if find_objects is not None and estimate is not None and estimate["kind"] == "count":
        objects = select_classes(find_objects(run.region), estimate["per_class"])
        # In memory only: the run folder keeps the evaluation that was made with the run.
        run.header["truth"] = evaluate_count(run, objects)
        return RunEntry(run, summarize(run, None), "truth")
    reference = next(
        (other for other in runs if is_exhaustive(other) and is_comparable(run, other)), None
    )
    if reference is not None and reference.estimate is not None:
        return RunEntry(run, summarize(run, reference), "patches")
    return RunEntry(run, summarize(run, None), "truth" if run.evaluation else "")


def is_exhaustive(run: Run) -> bool:
    """Return whether a run processed the whole region at native scale."""
    header = run.header
    return header["strategy"] == "patches" and not header["params"] and not header["budget"]


def is_comparable(run: Run, other: Run) -> bool:
    """Return whether two runs have the same model, place and prior maps."""
    same = ("model", "priors")
    at_same_place = place_of(run) == place_of(other)
    return at_same_place and all(run.header.get(name) == other.header.get(name) for name in same)


def place_of(run: Run) -> str:
    """Return what identifies the part of the image that counts in a run: equal for the same part.

    That is its rectangle, and the regions and the tissue inside.
    """
    rect = Rect(*run.header["region"]) & Rect(0, 0, *run.image_shape)
    sides = [rect.y, rect.x, rect.h, rect.w]
    return json.dumps([sides, run.header.get("parts") or {}], sort_keys=True)


def entries_of_one_place(
    entries: Sequence[RunEntry], selected: Sequence[RunEntry], shown: Path | None
) -> tuple[list[RunEntry], int]:
    """Return the runs of one part of the image, and how many are of others.

    It is that of the selected runs, else of the displayed one, else of most runs: estimates of
    different parts cannot be compared.
    """
    if not entries:
        return [], 0
    places = {entry.path: place_of(entry.run) for entry in entries}
    wanted = {places[entry.path] for entry in selected if entry.path in places}
    wanted = wanted or {place for path, place in places.items() if path == shown}
    wanted = wanted or {Counter(places.values()).most_common(1)[0][0]}
    found = [entry for entry in entries if places[entry.path] in wanted]
    return found, len(entries) - len(found)
