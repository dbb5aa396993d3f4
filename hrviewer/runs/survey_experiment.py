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

from hrviewer.engine import Budget, Control, Watch, native_scale
from hrviewer.errors import UserError
from hrviewer.io.ground_truth.datasets import pairs
from hrviewer.models import Card, Pack
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.compare import Bench, Choice, bench, default_folder
from hrviewer.runs.evaluation import find_judge
from hrviewer.runs.metrics import bias, ci95, mae, rmse
from hrviewer.strategies import strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cell", "cells", "experiment"]


@dataclass
class Cell:
    """One way to look at all images.

    Parameters
    ----------
    name : str
        As ``uniform/4``: how, and by how much the cost is divided.
    strategy : str
        Its id.
    shrink : int
        How many times smaller each side becomes; 0 where the strategy decides.
    cut : int
        Into how many rows and columns; 0 leaves the strategy's tiles.
    budget : Budget, optional
        What may be spent.
    """

    name: str
    strategy: str
    shrink: int = 0
    cut: int = 0
    budget: Budget | None = None
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    note: str = ""

    def choice(self, card: Card, pyramid: Pyramid) -> Choice:
        """Return the strategy with the parameters that this image asks for."""
        params: dict[str, Any] = {}
        if self.shrink:
            params["scale"] = self.shrink * native_scale(card, pyramid)[0]
        if self.cut:
            params = {"grid": f"{self.cut}x{self.cut}", "halo": 0}
        return Choice(self.strategy, params).checked()

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


def cells() -> list[Cell]:
    """Return the five baseline cells, and two for every other strategy that is installed."""
    found = [
        Cell("full", "patches"),
        # Their scale says what they spend; the default budget would cut them short.
        Cell("uniform/4", "uniform", shrink=2, budget=Budget(1.0, "share")),
        Cell("uniform/16", "uniform", shrink=4, budget=Budget(1.0, "share")),
        Cell("cut/4", "patches", cut=2),
        Cell("cut/16", "patches", cut=4),
    ]
    for name in strategy_ids():
        if name not in ("uniform", "patches"):
            found += [Cell(f"{name}/{n}", name, budget=Budget(1 / n, "share")) for n in (4, 16)]
    return found


def experiment(
    folder: str | Path,
    model: str | Path | Pack = "nuclei",
    *,
    seed: int = 0,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    watch: Watch | None = None,
    control: Control | None = None,
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
    watch, control
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

    asked = pairs(Path(folder).expanduser())
    root = Path(out).expanduser() if out else default_folder("experiments")
    found = cells()
    complete = True
    with bench(root / "runs", device=device, cache=cache, watch=watch, control=control) as runner:
        networks = runner.networks(model)
        card = networks.pack.roles["main"]
        if card.task not in ("density", "detection"):
            raise UserError(f"{card.name} does not count: the experiment compares counts")
        for image, truth in asked:
            with open_pyramid(image) as pyramid:
                judge = find_judge(truth, pyramid, card)
                for cell, error, seconds, flops in looks(
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


def looks(
    runner: Bench,
    model: str | Path | Pack,
    pyramid: Pyramid,
    judge: Any,
    asked: Sequence[Cell],
    card: Card,
    seed: int,
) -> Iterator[tuple[Cell, float, float, float]]:
    """Yield every cell's error, seconds and FLOPs on one image."""
    for cell in asked:
        if runner.stopped:
            return
        try:
            done = runner.run(
                pyramid, model, cell.choice(card, pyramid), budget=cell.budget, seed=seed,
                judge=judge,
            )  # fmt: skip
        except UserError as error:
            if cell.strategy in ("uniform", "patches"):
                raise
            cell.note = f"left out: {error}"
            continue
        if not done.complete or done.truth is None:
            continue
        if done.truth["error"] is None:
            cell.note = f"no answer on {pyramid.name}: {'; '.join(done.header['notes'])}"
        else:
            yield cell, done.truth["error"], done.cost["wall_s"], done.cost["flops"]
