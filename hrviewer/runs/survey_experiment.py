"""Experiment of the survey: the effect of downsampling and cutting on counts, and what each costs.

Bakhtiarnia, Zhang, Iosifidis, Efficient High-Resolution Deep Learning: A Survey, ACM Computing
Surveys 2024: the same images at full resolution, downsampled to a quarter and a sixteenth of their
area, and cut into four and sixteen; in addition every other strategy with the same two budgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hrviewer.engine import Budget, Callback, RunControl, native_scale
from hrviewer.errors import HrviewerError, ModelError
from hrviewer.io.ground_truth.datasets import pair_images
from hrviewer.models import ModelCard, no_model_error
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.batch_runner import BatchRunner, StrategySpec, batch_runner, default_folder
from hrviewer.runs.evaluation import make_evaluator
from hrviewer.runs.metrics import bias, ci95, mae, rmse
from hrviewer.runs.model import ModelLike
from hrviewer.runs.progress import with_progress
from hrviewer.runs.run import Run
from hrviewer.strategies import strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Condition", "conditions", "experiment"]


@dataclass
class Condition:
    """One condition of the experiment, applied to all images.

    Parameters
    ----------
    name : str
        As ``uniform/4``: the strategy, and the divisor of the cost.
    strategy : str
        The strategy's id.
    downsample : int
        Downsampling factor per side; 0 leaves it to the strategy.
    grid : int
        Rows and columns that the image is cut into; 0 leaves the strategy's tiles.
    budget : Budget, optional
        Budget of a run.
    """

    name: str
    strategy: str
    downsample: int = 0
    grid: int = 0
    budget: Budget | None = None
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    note: str = ""

    def strategy_spec(self, card: ModelCard, pyramid: Pyramid) -> StrategySpec:
        """Return the strategy with the parameters for an image."""
        params: dict[str, Any] = {}
        if self.downsample:
            params["scale"] = self.downsample * native_scale(card, pyramid)[0]
        if self.grid:
            params = {"grid": f"{self.grid}x{self.grid}", "halo": 0}
        return StrategySpec(self.strategy, params).validated()

    def summary(self) -> dict[str, Any]:
        """Return the errors and costs over all images."""
        identity: dict[str, Any] = {"name": self.name, "strategy": self.strategy}
        if not self.errors:
            empty = dict.fromkeys(
                ("mae", "rmse", "bias", "seconds", "flops", "of_once_per_pixel", "ci95",
                 "rmse_ci95", "bias_ci95")
            )  # fmt: skip
            return {**identity, **empty, "images": 0, "note": self.note}
        n, errors = len(self.errors), np.array(self.errors)
        return {
            **identity,
            "mae": float(mae(errors)),
            "rmse": float(rmse(errors)),
            "bias": float(bias(errors)),
            "seconds": sum(self.seconds) / n,
            "flops": sum(self.flops) / n,
            "of_once_per_pixel": sum(self.shares) / n,
            "ci95": ci95(errors, mae),
            "rmse_ci95": ci95(errors, rmse),
            "bias_ci95": ci95(errors, bias),
            "images": n,
            "note": self.note,
        }


def conditions() -> list[Condition]:
    """Return the five baseline conditions, and two for every other installed strategy."""
    rows = [
        Condition("full", "patches"),
        # The scale sets their cost; the default budget would end them early.
        Condition("uniform/4", "uniform", downsample=2, budget=Budget(1.0, "share")),
        Condition("uniform/16", "uniform", downsample=4, budget=Budget(1.0, "share")),
        Condition("cut/4", "patches", grid=2),
        Condition("cut/16", "patches", grid=4),
    ]
    for name in strategy_ids():
        if name not in ("uniform", "patches"):
            rows += [Condition(f"{name}/{n}", name, budget=Budget(1 / n, "share")) for n in (4, 16)]
    return rows


def experiment(
    folder: str | Path,
    model: ModelLike | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    progress: bool = True,
    on_event: Callback | None = None,
    control: RunControl | None = None,
) -> pd.DataFrame:
    """Repeat the survey's experiment on a folder of images.

    Parameters
    ----------
    folder : str or Path
        Images and their ground truth; see `hrviewer.io.ground_truth.datasets.pair_images`.
    model : str, Path, Model or ModelBundle
        A model that counts.
    seed : int
        Random seed of the strategies.
    device, cache
        See `run`.
    out : str or Path, optional
        Folder of the experiment; in the user's data folder by default. Existing runs are reused.
    progress, on_event, control
        See `run`.

    Returns
    -------
    DataFrame
        A row per condition: ``name``, ``strategy``, ``mae``, ``rmse``, ``bias`` (objects), mean
        ``seconds`` and ``flops`` per image, the latter over those of the model once on every pixel
        (``of_once_per_pixel``) and of ``patches`` (``of_patches``), 95 % bootstrap intervals
        (``ci95`` of the MAE, ``rmse_ci95``, ``bias_ci95``), ``images``, ``note`` (why a strategy
        is missing). ``attrs["images"]`` is the number of images, ``attrs["failed"]`` has
        the reasons why others could not be used.

    Raises
    ------
    HrviewerError
        If the folder has no images with ground truth, or the model does not count.
    """
    import pandas as pd

    if model is None:
        raise no_model_error()
    pairs = pair_images(Path(folder).expanduser())
    root = Path(out).expanduser() if out else default_folder("experiments")
    rows = conditions()
    failed: dict[str, str] = {}
    complete = True
    with (
        with_progress(progress, on_event) as on_event,
        batch_runner(
            root / "runs", device=device, cache=cache, on_event=on_event, control=control
        ) as runner,
    ):
        card = runner.load(model).bundle.roles["main"]
        if not card.counts:
            raise ModelError(f"{card.name} does not count: the experiment compares counts")
        for image, truth in pairs:
            try:
                with open_pyramid(image) as pyramid:
                    evaluator = make_evaluator(truth, pyramid, card)
                    results = [*run_conditions(runner, model, pyramid, evaluator, rows, card, seed)]
            except HrviewerError as reason:
                if len(pairs) == 1:
                    raise
                failed[str(image)] = str(reason)
                continue
            for condition, error, run in results:
                condition.errors.append(error)
                condition.seconds.append(run.cost["wall_s"])
                condition.flops.append(run.cost["flops"])
                condition.shares.append(run.of_once_per_pixel or 0.0)
            if runner.stopped:
                complete = False
                break
    table = pd.DataFrame([condition.summary() for condition in rows])
    full = table.loc[table["name"] == "full", "flops"].iloc[0]
    table["of_patches"] = table["flops"].astype(float) / (full or math.nan)
    table.attrs = {
        "images": len(pairs) - len(failed),
        "failed": failed,
        "complete": complete,
        "folder": str(root),
    }
    return table


def run_conditions(
    runner: BatchRunner,
    model: ModelLike,
    pyramid: Pyramid,
    evaluator: Any,
    selected: Sequence[Condition],
    card: ModelCard,
    seed: int,
) -> Iterator[tuple[Condition, float, Run]]:
    """Yield each condition with its error and its run on one image."""
    for condition in selected:
        if runner.stopped:
            return
        try:
            run = runner.run(
                pyramid,
                model,
                condition.strategy_spec(card, pyramid),
                budget=condition.budget,
                seed=seed,
                evaluator=evaluator,
            )
        except HrviewerError as error:
            if condition.strategy in ("uniform", "patches"):
                raise
            condition.note = f"did not run: {error}"
            continue
        if not run.complete and not runner.stopped:
            condition.note = f"incomplete on {pyramid.name}: {run.incomplete}"
        if not run.complete or run.evaluation is None:
            continue
        if run.evaluation["error"] is None:
            condition.note = f"no estimate on {pyramid.name}: {'; '.join(run.header['notes'])}"
        else:
            yield condition, run.evaluation["error"], run
