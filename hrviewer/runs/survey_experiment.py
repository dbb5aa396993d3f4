"""The survey's experiment: what shrinking and cutting do to a count, and what the families save.

Bakhtiarnia, Zhang, Iosifidis, Efficient High-Resolution Deep Learning: A Survey, ACM Computing
Surveys 2024: the same images whole, shrunk to a quarter and a sixteenth of their area, and cut
into four and sixteen; beside them every other strategy with the same two budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hrviewer.engine import Budget, Callback, RunControl, native_scale
from hrviewer.errors import HrviewerError
from hrviewer.io.ground_truth.datasets import pair_images
from hrviewer.models import ModelBundle, ModelCard
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.compare import BatchRunner, StrategySpec, batch_runner, default_folder
from hrviewer.runs.evaluation import make_evaluator
from hrviewer.runs.metrics import bias, ci95, mae, rmse
from hrviewer.strategies import strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Condition", "conditions", "experiment"]


@dataclass
class Condition:
    """One way to look at all images.

    Parameters
    ----------
    name : str
        As ``uniform/4``: how, and by how much the cost is divided.
    strategy : str
        Its id.
    downsample : int
        How many times smaller each side becomes; 0 where the strategy decides.
    grid : int
        Into how many rows and columns; 0 leaves the strategy's tiles.
    budget : Budget, optional
        What may be spent.
    """

    name: str
    strategy: str
    downsample: int = 0
    grid: int = 0
    budget: Budget | None = None
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    note: str = ""

    def strategy_spec(self, card: ModelCard, pyramid: Pyramid) -> StrategySpec:
        """Return the strategy with the parameters that this image asks for."""
        params: dict[str, Any] = {}
        if self.downsample:
            params["scale"] = self.downsample * native_scale(card, pyramid)[0]
        if self.grid:
            params = {"grid": f"{self.grid}x{self.grid}", "halo": 0}
        return StrategySpec(self.strategy, params).validated()

    def summary(self) -> dict[str, Any]:
        """Return what came of it over all images."""
        about: dict[str, Any] = {"name": self.name, "strategy": self.strategy}
        if not self.errors:
            empty = dict.fromkeys(
                ("mae", "rmse", "bias", "seconds", "flops", "ci95", "rmse_ci95", "bias_ci95")
            )
            return {**about, **empty, "images": 0, "note": self.note}
        n, errors = len(self.errors), np.array(self.errors)
        return {
            **about,
            "mae": float(mae(errors)),
            "rmse": float(rmse(errors)),
            "bias": float(bias(errors)),
            "seconds": sum(self.seconds) / n,
            "flops": sum(self.flops) / n,
            "ci95": ci95(errors, mae),
            "rmse_ci95": ci95(errors, rmse),
            "bias_ci95": ci95(errors, bias),
            "images": n,
            "note": self.note,
        }


def conditions() -> list[Condition]:
    """Return the five baseline cells, and two for every other strategy that is installed."""
    found = [
        Condition("full", "patches"),
        # Their scale says what they spend; the default budget would cut them short.
        Condition("uniform/4", "uniform", downsample=2, budget=Budget(1.0, "share")),
        Condition("uniform/16", "uniform", downsample=4, budget=Budget(1.0, "share")),
        Condition("cut/4", "patches", grid=2),
        Condition("cut/16", "patches", grid=4),
    ]
    for name in strategy_ids():
        if name not in ("uniform", "patches"):
            found += [
                Condition(f"{name}/{n}", name, budget=Budget(1 / n, "share")) for n in (4, 16)
            ]
    return found


def experiment(
    folder: str | Path,
    model: str | Path | ModelBundle = "nuclei",
    *,
    seed: int = 0,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    on_event: Callback | None = None,
    control: RunControl | None = None,
) -> pd.DataFrame:
    """Repeat the survey's experiment on a folder of images.

    Parameters
    ----------
    folder : str or Path
        Images and their truth; see `exchange.truth.folders.pairs`.
    model : str, Path or Pack
        Who counts.
    seed : int
        Of what strategies draw at random.
    device, cache
        See `run`.
    out : str or Path, optional
        Where the runs are kept; nothing that is there is run again.
    on_event, control
        See `runs.run`.

    Returns
    -------
    DataFrame
        A row per cell: ``name``, ``strategy``, ``mae``, ``rmse``, ``bias``, mean ``seconds`` and
        ``flops`` per image, 95 % bootstrap intervals (``ci95`` of the MAE, ``rmse_ci95``,
        ``bias_ci95``), ``images``, ``note`` (why a strategy was left out).
        ``attrs["images"]`` says how many images there were.

    Raises
    ------
    UserError
        If the folder holds no images with truth, or the network does not count.
    """
    import pandas as pd

    asked = pair_images(Path(folder).expanduser())
    root = Path(out).expanduser() if out else default_folder("experiments")
    found = conditions()
    complete = True
    with batch_runner(
        root / "runs", device=device, cache=cache, on_event=on_event, control=control
    ) as runner:
        networks = runner.load(model)
        card = networks.bundle.roles["main"]
        if card.task not in ("density", "detection"):
            raise HrviewerError(f"{card.name} does not count: the experiment compares counts")
        for image, truth in asked:
            with open_pyramid(image) as pyramid:
                judge = make_evaluator(truth, pyramid, card)
                for cell, error, seconds, flops in run_conditions(
                    runner, model, pyramid, judge, found, card, seed
                ):
                    cell.errors.append(error)
                    cell.seconds.append(seconds)
                    cell.flops.append(flops)
            if runner.stopped:
                complete = False
                break
    table = pd.DataFrame([cell.summary() for cell in found])
    table.attrs = {"images": len(asked), "complete": complete, "folder": str(root)}
    return table


def run_conditions(
    runner: BatchRunner,
    model: str | Path | ModelBundle,
    pyramid: Pyramid,
    evaluator: Any,
    selected: Sequence[Condition],
    card: ModelCard,
    seed: int,
) -> Iterator[tuple[Condition, float, float, float]]:
    """Yield every cell's error, seconds and FLOPs on one image."""
    for cell in selected:
        if runner.stopped:
            return
        try:
            done = runner.run(
                pyramid, model, cell.strategy_spec(card, pyramid), budget=cell.budget, seed=seed,
                evaluator=evaluator,
            )  # fmt: skip
        except HrviewerError as error:
            if cell.strategy in ("uniform", "patches"):
                raise
            cell.note = f"left out: {error}"
            continue
        if not done.complete or done.evaluation is None:
            continue
        if done.evaluation["error"] is None:
            cell.note = f"no answer on {pyramid.name}: {'; '.join(done.header['notes'])}"
        else:
            yield cell, done.evaluation["error"], done.cost["wall_s"], done.cost["flops"]
