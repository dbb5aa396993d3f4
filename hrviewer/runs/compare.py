"""Comparison of strategies on the same images with the same models, as one table.

Pure orchestration: every row is an ordinary run, in a folder named by a digest of its settings, so
a stopped comparison is resumed, and a larger one runs only the new rows. Costs are nominal: neither
the order nor the cache changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hrviewer.engine import (
    Budget,
    Callback,
    RunControl,
)
from hrviewer.errors import HrviewerError, ModelError
from hrviewer.geometry import Rect, RectLike, as_rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import datasets
from hrviewer.io.object_table import has_objects, read_objects
from hrviewer.io.run_maps import is_exclusive
from hrviewer.models import ModelBundle, no_model_error
from hrviewer.objects import CANDIDATE_SCORE
from hrviewer.pyramid import Pyramid, using_pyramid
from hrviewer.runs.batch_runner import (
    BatchRunner,
    StrategySpec,
    batch_runner,
    default_folder,
    parse_specs,
)
from hrviewer.runs.class_agreement import (
    class_errors,
    embedding_distance,
    run_dice,
    total_variation,
)
from hrviewer.runs.estimates import EvaluationDict
from hrviewer.runs.evaluation import make_evaluator, run_counts
from hrviewer.runs.metrics import grid_errors
from hrviewer.runs.model import Model, ModelLike
from hrviewer.runs.object_metrics import as_ground_truth, has_boxes, object_precision
from hrviewer.runs.progress import with_progress
from hrviewer.runs.run import Run
from hrviewer.strategies import get_strategy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COST_COLUMNS", "MATCHED_MARK", "compare", "summarize"]

COST_COLUMNS = (
    "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
    "peak_rss_bytes",
)  # fmt: skip
"""The columns of nominal costs."""

MATCHED_MARK = " of "
"""In the budget of a row that is matched to the cost of another: ``FLOPs of zoom``."""

BASELINE = "uniform"
"""The strategy that runs at any budget, to compare the others with at equal cost."""


def compare(
    images: object,
    models: ModelLike | Sequence[ModelLike] | None = None,
    strategies: str | Sequence[str | StrategySpec] = "all",
    *,
    truth: str | Path | GroundTruth | None = None,
    budgets: str | Sequence[str | None] | None = None,
    matched: bool = False,
    seeds: Sequence[int] = (0,),
    series: str | int | None = None,
    plane: Mapping[str, int] | None = None,
    channels: Sequence[int | str] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    value_range: Sequence[float] | None = None,
    region: RectLike | None = None,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    progress: bool = True,
    on_event: Callback | None = None,
    control: RunControl | None = None,
) -> pd.DataFrame:
    """Run strategies on the same images with the same models.

    Parameters
    ----------
    images : object
        Any input of `hrviewer.open`, a folder of images, or a list of them.
    models : str, Path, Model or ModelBundle, or a sequence
        One or several models of `run`. There is no default.
    strategies : str or sequence
        Ids, optionally with parameters as ``zoom:k=32``; ``all`` for the installed ones.
    truth : str, Path or GroundTruth, optional
        Ground truth, see `run`; without it, an exhaustive ``patches`` run of each image is the
        reference.
    budgets : str or sequence, optional
        ``2TFLOP``, ``30s``, ``500patches`` or ``10%`` for all strategies, or several to sweep
        over; by default (``default`` in a sweep) each strategy's own.
    matched : bool
        Also run ``uniform`` at the cost of every other row: once with its FLOPs, once with its
        seconds, at the measured rate. The budget of such a row reads ``FLOPs of zoom``.
    seeds : sequence of int
        Random seeds of the strategies.
    series, plane, channels, pixel_size, value_range
        Options of the images, as `hrviewer.open` takes them.
    region : Rect or sequence of int, optional
        ``(y, x, h, w)`` in level-0 pixels; the whole image by default.
    device, cache
        See `run`.
    out : str or Path, optional
        Folder of the comparison; in the user's data folder by default. Existing runs are reused.
    progress, on_event, control
        As `run` takes them.

    Returns
    -------
    DataFrame
        A row per run. ``attrs["reference"]`` names the reference of the errors,
        ``attrs["complete"]`` is False if it was stopped, ``attrs["folder"]`` is the folder, and
        ``attrs["failed"]`` has the reasons why images could not be used; a single one is an error.

        ================================= ========================================================
        column                            meaning
        ================================= ========================================================
        ``image``, ``model``              path or name
        ``strategy``, ``params``          id, and parameters that differ from the defaults
        ``seed``, ``budget``              as given; None is the strategy's default budget
        ``estimate``                      count, area in level-0 pixels, or probability
        ``ci95``, ``ci95_truth``          95 % intervals of the estimate, ``(low, high)``: of what
                                          exhaustive inference would give, and of the true count;
                                          None where there is none
        ``reference``                     the same of the ground truth or the reference run
        ``error``                         estimate − reference of counts and means; against a run,
                                          total variation distance of class shares, mean absolute
                                          difference of several labels, mean cosine distance of
                                          embeddings; against ground truth, 1 − mean Dice of a
                                          label map, 1 or 0 for a wrong or right class of a slide
        ``class_error``                   estimate − reference by class: of shares, probabilities,
                                          means or counts
        ``dice``                          Dice coefficient by class, of the map with that of the
                                          reference; None where only a part was processed
        ``game4``                         grid average mean error of counts over 256 cells; None
                                          where only a part of the region was processed
        ``coverage``                      part of the region that the estimate rests on, per cent
        ``ap50``                          average precision of detected boxes, or outlines where
                                          both have any, at an intersection over union of 0.5
        ``flops``                         nominal FLOPs
        ``of_once_per_pixel``             FLOPs over those of ``main`` once on every pixel
        ``of_patches``                    FLOPs over those of ``patches`` at its defaults, where it
                                          ran on the same image
        ``chosen``                        values that the strategy chose for automatic parameters,
                                          such as its tile or scale
        ``wall_s``                        nominal seconds in all
        ``read_s``, ``prepare_s``,        nominal seconds of each stage
        ``infer_s``, ``post_s``
        ``bytes_read``, ``pixels_read``   compressed bytes and pixels
        ``peak_rss_bytes``                peak memory of the process, bytes
        ``run``                           the run's folder
        ``note``                          notes, or the reason why a strategy did not run
        ================================= ========================================================

    Raises
    ------
    HrviewerError
        If an image, a model, a strategy or the ground truth cannot be used.

    Examples
    --------
    >>> table = hrviewer.compare(
    ...     image, model, ["patches", "uniform"], region=(0, 0, 1024, 1024), progress=False
    ... )
    >>> table["strategy"].tolist(), table.attrs["reference"]
    (['patches', 'uniform'], 'patches')
    >>> table["flops"].is_monotonic_decreasing
    True
    """
    import pandas as pd

    if models is None:
        raise no_model_error()
    specs = parse_specs(strategies)
    sweep = parse_budgets(budgets)
    area = None if region is None else as_rect(region)
    folder = Path(out).expanduser() if out else default_folder("comparisons")
    several = [models] if isinstance(models, str | Path | ModelBundle | Model) else list(models)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    complete = True
    with (
        with_progress(progress, on_event) as on_event,
        batch_runner(
            folder / "runs", device=device, cache=cache, on_event=on_event, control=control
        ) as runner,
    ):
        listed = list(iter_images(images))
        names = runner.display_names(several)
        for image in listed:
            begun = len(rows)
            try:
                with using_pyramid(
                    image,
                    series=series,
                    plane=plane,
                    channels=channels,
                    pixel_size=pixel_size,
                    value_range=value_range,
                ) as pyramid:
                    for model, name in zip(several, names, strict=True):
                        for row in iter_rows(
                            runner, pyramid, model, specs, sweep, seeds, area, truth,
                            matched=matched,
                        ):  # fmt: skip
                            rows.append({**row, "model": name})
            except HrviewerError as error:
                if len(listed) == 1:
                    raise
                failed[str(image)] = str(error)
                rows[begun:] = failed_rows(str(image), names, specs, str(error))
            if runner.stopped:
                complete = False
                break
    table = pd.DataFrame(with_cost_of_patches(rows), columns=[*COLUMNS])
    table.attrs = {
        "reference": "patches" if truth is None else truth_source(truth),
        "complete": complete,
        "failed": failed,
        "folder": str(folder),
    }
    return table


def failed_rows(
    image: str, models: Sequence[str], specs: Sequence[StrategySpec], note: str
) -> list[dict[str, Any]]:
    """Return the rows of an image that cannot be used: why, in place of every result."""
    return [
        {"image": image, "model": model, "strategy": spec.strategy, "params": dict(spec.params),
         "seed": None, "budget": None, "note": note}
        for model in models
        for spec in specs
    ]  # fmt: skip


COLUMNS = (
    "image", "strategy", "model", "params", "seed", "budget", "estimate", "ci95", "ci95_truth",
    "reference", "error", "class_error", "dice", "game4", "ap50", "coverage", "of_once_per_pixel",
    "of_patches", "chosen", *COST_COLUMNS, "run", "note",
)  # fmt: skip


def with_cost_of_patches(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with their FLOPs over those of ``patches`` on the same image and model."""
    known = {
        (row["image"], row["model"]): row["flops"]
        for row in rows
        if row["strategy"] == "patches" and not row["params"] and row["budget"] is None
        if row.get("flops")
    }
    return [
        {**row, "of_patches": row["flops"] / known[row["image"], row["model"]]}
        if row.get("flops") is not None and (row["image"], row["model"]) in known
        else row
        for row in rows
    ]


def truth_source(truth: str | Path | GroundTruth) -> str:
    """Return the name of a ground truth."""
    return (truth.source or "ground truth") if isinstance(truth, GroundTruth) else str(truth)


def check_same_task(strategy: str, bundle: ModelBundle) -> None:
    """Raise an error if a strategy's answering model has another task than ``main``."""
    main, card = (
        bundle.roles.get(r) for r in ("main", get_strategy(strategy).answering_role(bundle.roles))
    )
    if main is not None and card is not None and main.task != card.task:
        raise ModelError(
            f"{card.name} has the task {card.task}, {main.name} {main.task}: their estimates "
            "cannot be compared"
        )


def iter_rows(
    runner: BatchRunner,
    pyramid: Pyramid,
    model: ModelLike,
    specs: Sequence[StrategySpec],
    budgets: Sequence[Budget | None],
    seeds: Sequence[int],
    region: Rect | None,
    truth: str | Path | GroundTruth | None,
    *,
    matched: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an image as they are finished."""
    evaluator = make_evaluator(truth, pyramid, runner.load(model).bundle.roles.get("main"))
    reference: Run | None = None
    if truth is None:
        reference = runner.run(pyramid, model, StrategySpec("patches"), region=region)
    for budget in budgets:
        for spec in specs:
            for seed in seeds:
                if runner.stopped:
                    return
                settings = {
                    "image": pyramid.path or pyramid.name,
                    "strategy": spec.strategy,
                    "params": dict(spec.params),
                    "seed": seed,
                    "budget": str(budget) if budget else None,
                }
                try:
                    check_same_task(spec.strategy, runner.load(model).bundle)
                    run = runner.run(
                        pyramid,
                        model,
                        spec,
                        budget=budget,
                        seed=seed,
                        region=region,
                        evaluator=evaluator,
                    )
                except HrviewerError as error:
                    # A strategy that cannot run with this model or budget is a note of its row;
                    # errors of the image or the ground truth were raised before.
                    yield {**settings, "note": str(error)}
                    continue
                if not run.complete and runner.stopped:
                    continue
                yield {**settings, **summarize(run, reference)}
                # A run without cost, or of a part only by failure, cannot be matched.
                matchable = matched and run.complete and run.cost["flops"]
                if not matchable or spec.strategy == BASELINE:
                    continue
                spent = {"FLOPs": Budget(run.cost["flops"], "flops"),
                         "seconds": Budget(run.cost["wall_s"], "seconds")}  # fmt: skip
                for quantity, cost in spent.items():
                    label = f"{quantity}{MATCHED_MARK}{spec}" + (f" at {budget}" if budget else "")
                    matching = {"strategy": BASELINE, "params": {}, "budget": label}
                    try:
                        run = runner.run(
                            pyramid,
                            model,
                            StrategySpec(BASELINE),
                            budget=cost,
                            region=region,
                            evaluator=evaluator,
                        )
                    except HrviewerError as error:
                        yield {**settings, **matching, "note": str(error)}
                        continue
                    if run.complete or not runner.stopped:
                        yield {**settings, **matching, **summarize(run, reference)}


def summarize(run: Run, reference: Run | None) -> dict[str, Any]:
    """Return the result columns of a run, against a reference run or its ground truth."""
    estimate, costs = run.estimate, run.header["cost"]
    value = None if estimate is None else estimate["value"]
    row: dict[str, Any] = {
        "estimate": value,
        **{name: estimate and as_ends(estimate[name]) for name in ("ci95", "ci95_truth")},
        "reference": None,
        "error": None,
        "class_error": None,
        "dice": None,
        "game4": None,
        "ap50": None,
        "coverage": run.coverage,
        "of_once_per_pixel": run.of_once_per_pixel,
        "of_patches": reference.cost["flops"] and costs["flops"] / reference.cost["flops"]
        if reference is not None and reference.header["strategy"] == "patches"
        else None,
        "chosen": run.header.get("chosen", {}),
        **{name: costs[name] for name in COST_COLUMNS},
        "run": str(run.path),
        "note": "; ".join(run.header["notes"]),
    }
    for name, one in (("", run), ("the reference is ", reference)):
        if one is not None and not one.complete:
            return row | {"note": f"{name}incomplete: {one.incomplete}"}
    if reference is not None:
        found = against_reference(run, reference)
        notes = row["note"], found.pop("note", "")
        return row | found | {"note": "; ".join(filter(None, notes))}
    if run.evaluation is not None:
        row |= against_ground_truth(run.evaluation)
    return row


def against_reference(run: Run, reference: Run) -> dict[str, Any]:
    """Return the columns of a run's errors against those of another run of the same region."""
    estimate, expected = run.estimate, reference.estimate
    if estimate is None and expected is None:  # embeddings
        whole = min(run.coverage, reference.coverage) >= 100
        return {"error": embedding_distance(run, reference) if whole else None}
    if estimate is None or expected is None:
        return {}
    row: dict[str, Any] = {"reference": expected["value"]}
    areas = [one.get("area") for one in (estimate, expected)]
    answers = [one.get("aggregation", "mean") for one in (estimate, expected)]
    if areas.count(None) == 1 or answers[0] != answers[1]:
        # They answer other questions: of the foreground and of all, or of the mean and a maximum.
        parts = ["the foreground" if area else "the whole region" for area in areas]
        return {
            "note": f"no error: this is the {answers[0]} of {parts[0]}, the reference the "
            f"{answers[1]} of {parts[1]}"
        }
    if len(expected["per_class"]) > 1:
        row["class_error"] = class_errors(estimate, expected)
    if estimate["kind"] == "count":
        row["error"] = estimate["value"] - expected["value"]
        if run.coverage >= 100:
            counts, expected_counts = (run_counts(one, 16) for one in (run, reference))
            row["game4"] = grid_errors(counts, expected_counts, [4])[4]
            row["ap50"] = reference_precision(run, reference)
        return row
    errors = class_errors(estimate, expected)
    if estimate["kind"] == "mean":
        row["error"] = estimate["value"] - expected["value"]
    elif estimate["kind"] == "area" or is_exclusive(estimate):
        row["error"] = total_variation(estimate, expected) * (2 if len(errors) == 1 else 1)
    else:
        row["error"] = float(np.mean([abs(error) for error in errors.values()]))
    return row | {"dice": run_dice(run, reference)}


def against_ground_truth(evaluation: EvaluationDict) -> dict[str, Any]:
    """Return the columns of a run's errors against ground truth."""
    game = evaluation["game"]
    row = {
        "reference": evaluation["value"],
        "error": evaluation["error"],
        "game4": game and game["4"],
        "ap50": evaluation.get("average_precision", {}).get("ap50"),
        "class_error": evaluation.get("class_error"),
    }
    if "dice" in evaluation:
        row["dice"] = evaluation["dice"]
        row["error"] = 1 - float(np.mean(list(evaluation["dice"].values())))
    return row


def as_ends(interval: list[float] | None) -> tuple[float, float] | None:
    """Return an interval as the ends that a table has."""
    return None if interval is None else (interval[0], interval[1])


def reference_precision(run: Run, reference: Run) -> float | None:
    """Return the average precision of a run's boxes against those of another, if both have any."""
    if not (has_objects(run) and has_objects(reference)):
        return None
    _, found, classes = read_objects(reference)
    expected = as_ground_truth(found, classes, reference.path.name)
    if not has_boxes(expected):
        return None
    _, objects, classes = read_objects(run, score=CANDIDATE_SCORE)
    return object_precision(objects, classes, expected)["ap50"]


# Parsing.


def parse_budgets(budgets: str | Sequence[str | None] | None) -> list[Budget | None]:
    """Parse the budgets to sweep over; None stands for each strategy's default."""
    items = budgets.split(",") if isinstance(budgets, str) else list(budgets or [None])
    return [None if item in (None, "default") else Budget.parse(str(item)) for item in items]


def iter_images(images: object) -> Iterator[object]:
    """Yield the images of a folder in alphabetical order, those of a list, or a single one."""
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from iter_images(image)
        return
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        if path.is_dir() and path.suffix != ".zarr":
            yield from map(str, datasets.list_images(path))
            return
    yield images
