"""Strategies side by side: the same image, the same networks, one table.

Pure orchestration: every row is a run like any other, in a folder named by what was asked, so a
comparison that was stopped goes on, and one that grows runs only what is new. Costs are nominal:
neither the order nor the cache changes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from platformdirs import user_data_path

from hrviewer.engine import (
    Budget,
    Callback,
    DeviceScheduler,
    LoadedModels,
    RunControl,
    recommended_streams,
)
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import datasets
from hrviewer.models import ModelBundle, open_bundle
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.evaluation import Evaluator, make_evaluator
from hrviewer.runs.metrics import grid_counts, grid_errors
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec, parse_params, result_cache
from hrviewer.strategies import get_strategy, strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BatchRunner",
    "StrategySpec",
    "batch_runner",
    "compare",
    "default_folder",
    "parse_specs",
]

COST_COLUMNS = (
    "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
    "peak_rss_bytes",
)  # fmt: skip
"""The columns that say what a row cost."""

MATCHED_MARK = " of "
"""In the budget of a row that was run at another one's cost: ``FLOPs of zoom``."""

BASELINE = "uniform"
"""The baseline that can be had at any cost, to hold the others against."""


@dataclass(frozen=True)
class StrategySpec:
    """A strategy and its parameters.

    Parameters
    ----------
    strategy : str
        Its id.
    params : mapping
        Those that are not the defaults.
    """

    strategy: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> StrategySpec:
        """Read ``zoom`` or ``zoom:k=32:method=topk``.

        Raises
        ------
        UserError
            If there is no such strategy or parameter.
        """
        name, *items = text.split(":")
        if not all("=" in item for item in items):
            raise HrviewerError(f"a strategy's parameters read {name}:key=value, not {text!r}")
        return cls(name, dict(item.split("=", 1) for item in items)).validated()

    def validated(self) -> StrategySpec:
        """Return the same with its parameters as they will be recorded."""
        params = parse_params(get_strategy(self.strategy), self.params)
        return StrategySpec(self.strategy, params.model_dump(exclude_defaults=True))

    def __str__(self) -> str:
        return ":".join([self.strategy, *(f"{k}={v}" for k, v in self.params.items())])


def parse_specs(specs: str | Sequence[str | StrategySpec]) -> list[StrategySpec]:
    """Return strategies by name; ``all`` for whatever is installed."""
    items = specs.split(",") if isinstance(specs, str) else specs
    found: list[StrategySpec] = []
    for item in items:
        if item == "all":
            found += [StrategySpec(name) for name in strategy_ids()]
        else:
            found.append(StrategySpec.parse(item) if isinstance(item, str) else item.validated())
    return list({str(choice): choice for choice in found}.values())


class BatchRunner:
    """Runs jobs one after the other on one device; every network is loaded once.

    Parameters
    ----------
    folder : Path
        Where the runs are kept, and found again.
    device, cache
        See `hrviewer.run`.
    on_event, control
        As `run` takes them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        cache: Literal["use", "off"] = "use",
        on_event: Callback | None = None,
        control: RunControl | None = None,
    ) -> None:
        self.folder = folder
        self._device_name, self._on_event, self._control = device, on_event, control
        self._cache = result_cache() if cache == "use" else None
        self._scheduler = DeviceScheduler(streams=recommended_streams())
        self._models: dict[str | ModelBundle, LoadedModels] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HrviewerError(f"{folder} cannot be made: {error}") from None

    def close(self) -> None:
        """End the device's thread."""
        self._scheduler.close()

    def load(self, model: str | Path | ModelBundle) -> LoadedModels:
        """Return a pack's networks, loaded once."""
        key = model if isinstance(model, ModelBundle) else str(model)
        if key not in self._models:
            pack = model if isinstance(model, ModelBundle) else open_bundle(model)
            self._models[key] = LoadedModels(pack, self._scheduler, self._device_name)
        return self._models[key]

    def display_names(self, models: Sequence[str | Path | ModelBundle]) -> list[str]:
        """Return what packs are called: those that share a name also as they were asked for."""
        names = [self.load(model).bundle.name for model in models]
        places = (
            i if isinstance(m, ModelBundle) else str(m) for i, m in enumerate(models, start=1)
        )
        return [
            name if names.count(name) == 1 or name == str(place) else f"{name} ({place})"
            for name, place in zip(names, places, strict=True)
        ]

    @property
    def stopped(self) -> bool:
        """Whether the person asked to end."""
        return self._control is not None and self._control.stopped

    def run(
        self,
        pyramid: Pyramid,
        model: str | Path | ModelBundle,
        spec: StrategySpec,
        *,
        budget: Budget | None = None,
        seed: int = 0,
        region: Rect | None = None,
        evaluator: Evaluator | None = None,
    ) -> Run:
        """Return one run: the one that is there, gone on with, or anew.

        Raises
        ------
        UserError
            If the strategy cannot do with these networks or this budget.
        """
        networks = self.load(model)
        pack = networks.bundle
        strategy = get_strategy(spec.strategy)
        params = parse_params(strategy, spec.params)
        job = RunSpec(pyramid, pack, strategy, params, region, budget, seed)
        path = self.folder / self._folder_name(pyramid, pack, spec, budget, seed, region)
        done = job.run(
            networks,
            out=path,
            resume=path.exists(),
            cache=self._cache,
            on_event=self._on_event,
            control=self._control,
        )
        if evaluator is not None and done.complete:
            done.set_evaluation(evaluator(done))
        return done

    @staticmethod
    def _folder_name(
        pyramid: Pyramid,
        bundle: ModelBundle,
        spec: StrategySpec,
        budget: Budget | None,
        seed: int,
        region: Rect | None,
    ) -> str:
        """Return a run's folder's name: the same for the same question."""
        weights = {role: card.sha256 for role, card in bundle.roles.items()}
        asked = [pyramid.fingerprint, bundle.name, weights, spec.strategy, dict(spec.params),
                 str(budget), seed, region and region.astuple()]  # fmt: skip
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode())
        stem = re.sub(r"[^\w.-]+", "_", Path(pyramid.name).stem)[:40] or "image"
        return f"{stem}-{spec.strategy}-{digest.hexdigest()[:10]}.run.zarr"


@contextmanager
def batch_runner(*args: Any, **settings: Any) -> Iterator[BatchRunner]:
    """Return a bench that is closed in the end."""
    made = BatchRunner(*args, **settings)
    try:
        yield made
    finally:
        made.close()


def compare(
    images: object,
    models: str | Path | ModelBundle | Sequence[str | Path | ModelBundle] = "nuclei",
    strategies: str | Sequence[str | StrategySpec] = "all",
    *,
    truth: str | Path | GroundTruth | None = None,
    budgets: str | Sequence[str | None] | None = None,
    matched: bool = False,
    seeds: Sequence[int] = (0,),
    region: Rect | Sequence[int] | None = None,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    on_event: Callback | None = None,
    control: RunControl | None = None,
) -> pd.DataFrame:
    """Run strategies on the same images with the same networks.

    Parameters
    ----------
    images : object
        Whatever `hrviewer.open` takes, a folder of images, or a list of them.
    models : str, Path or Pack, or a sequence
        As `run` takes them.
    strategies : str or sequence
        Ids, each with parameters as ``zoom:k=32``; ``all`` for whatever is installed.
    truth : str, Path or Truth, optional
        See `run`; an exhaustive ``patches`` run of each image is the reference otherwise.
    budgets : str or sequence, optional
        ``2TFLOP``, ``30s``, ``500patches`` or ``10%`` for all alike, or several to sweep over;
        every strategy's own default otherwise (``default`` in a sweep).
    matched : bool
        Whether ``uniform`` is run at the cost of every other row, too: once with its FLOPs, once
        with its seconds, at the measured rate. Such a row's budget reads ``FLOPs of zoom``.
    seeds : sequence of int
        Of what strategies draw at random.
    region : Rect or sequence of int, optional
        ``(y, x, h, w)`` in level-0 pixels.
    device, cache
        See `run`.
    out : str or Path, optional
        Where the runs are kept; in the user's data folder by default. With what is already there,
        nothing is run twice.
    on_event, control
        As `run` takes them.

    Returns
    -------
    DataFrame
        A row per run: ``image``, ``strategy``, ``model``, ``params``, ``seed``, ``budget``,
        ``estimate``, ``reference``, ``error``, ``game4``, the nominal costs, ``run`` (its folder)
        and ``note`` (why there is none, where a strategy was refused). ``attrs["reference"]`` says
        what errors are measured against, ``attrs["complete"]`` whether it came to its end.

    Raises
    ------
    UserError
        If an image, a network, a strategy or the truth is not as it should be.
    """
    import pandas as pd

    asked = parse_specs(strategies)
    sweep = parse_budgets(budgets)
    area = region if region is None or isinstance(region, Rect) else Rect(*region)
    folder = Path(out).expanduser() if out else default_folder("comparisons")
    packs = [models] if isinstance(models, (str, Path, ModelBundle)) else list(models)
    rows: list[dict[str, Any]] = []
    complete = True
    with batch_runner(
        folder / "runs", device=device, cache=cache, on_event=on_event, control=control
    ) as runner:
        for image in iter_images(images):
            with open_pyramid(image) as pyramid:
                for model, name in zip(packs, runner.display_names(packs), strict=True):
                    for row in iter_rows(
                        runner, pyramid, model, asked, sweep, seeds, area, truth, matched=matched
                    ):
                        rows.append({**row, "model": name})
                if runner.stopped:
                    complete = False
                    break
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    table.attrs = {
        "reference": "patches" if truth is None else truth_source(truth),
        "complete": complete,
        "folder": str(folder),
    }
    return table


COLUMNS = (
    "image", "strategy", "model", "params", "seed", "budget", "estimate", "reference", "error",
    "game4", *COST_COLUMNS, "run", "note",
)  # fmt: skip


def truth_source(truth: str | Path | GroundTruth) -> str:
    """Return where a truth comes from."""
    return (truth.source or "truth") if isinstance(truth, GroundTruth) else str(truth)


def check_same_task(strategy: str, bundle: ModelBundle) -> None:
    """Raise `UserError` where a strategy would answer another question than ``main`` does."""
    main, card = (
        bundle.roles.get(r) for r in ("main", get_strategy(strategy).answering_role(bundle.roles))
    )
    if main is not None and card is not None and main.task != card.task:
        raise HrviewerError(f"{card.name} answers another question than {main.name}: {card.task}")


def iter_rows(
    runner: BatchRunner,
    pyramid: Pyramid,
    model: str | Path | ModelBundle,
    specs: Sequence[StrategySpec],
    budgets: Sequence[Budget | None],
    seeds: Sequence[int],
    region: Rect | None,
    truth: str | Path | GroundTruth | None,
    *,
    matched: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one image's rows, as they are done."""
    judge = make_evaluator(truth, pyramid, runner.load(model).bundle.roles.get("main"))
    reference: Run | None = None
    if truth is None:
        reference = runner.run(pyramid, model, StrategySpec("patches"), region=region)
    for budget in budgets:
        for choice in specs:
            for seed in seeds:
                if runner.stopped:
                    return
                about = {
                    "image": pyramid.path or pyramid.name,
                    "strategy": choice.strategy,
                    "params": dict(choice.params),
                    "seed": seed,
                    "budget": str(budget) if budget else None,
                }
                try:
                    check_same_task(choice.strategy, runner.load(model).bundle)
                    done = runner.run(
                        pyramid,
                        model,
                        choice,
                        budget=budget,
                        seed=seed,
                        region=region,
                        evaluator=judge,
                    )
                except HrviewerError as error:
                    # What these networks or this budget do not allow is told, and no more; what is
                    # wrong with the image or its truth has been found before.
                    yield {**about, "note": str(error)}
                    continue
                if not done.complete:
                    continue
                yield {**about, **summarize(done, reference)}
                # What spent nothing has no match.
                if not matched or choice.strategy == BASELINE or not done.cost["flops"]:
                    continue
                spent = {"FLOPs": Budget(done.cost["flops"], "flops"),
                         "seconds": Budget(done.cost["wall_s"], "seconds")}  # fmt: skip
                for what, cost in spent.items():
                    named = f"{what}{MATCHED_MARK}{choice}" + (f" at {budget}" if budget else "")
                    even = {"strategy": BASELINE, "params": {}, "budget": named}
                    try:
                        done = runner.run(
                            pyramid,
                            model,
                            StrategySpec(BASELINE),
                            budget=cost,
                            region=region,
                            evaluator=judge,
                        )
                    except HrviewerError as error:
                        yield {**about, **even, "note": str(error)}
                        continue
                    if done.complete:
                        yield {**about, **even, **summarize(done, reference)}


def summarize(done: Run, reference: Run | None) -> dict[str, Any]:
    """Return what a run came to: against another run if there is one, else against its truth."""
    estimate = done.estimate
    value = None if estimate is None else estimate["value"]
    row: dict[str, Any] = {
        "estimate": value,
        "reference": None,
        "error": None,
        "game4": None,
        **{name: done.cost[name] for name in COST_COLUMNS},
        "run": str(done.path),
        "note": "; ".join(done.header["notes"]),
    }
    if reference is not None and reference.estimate is not None and estimate is not None:
        wanted = reference.estimate
        row["reference"] = wanted["value"]
        if estimate["kind"] == "count":
            row["error"] = value - wanted["value"]
            said, told = (
                grid_counts(*run.map("output"), run.region, 16) for run in (done, reference)
            )
            row["game4"] = grid_errors(said, told, [4])[4]
        else:
            row["error"] = total_variation(estimate, wanted)
    elif reference is None and done.evaluation is not None:
        game = done.evaluation["game"]
        row |= {"reference": done.evaluation["value"], "error": done.evaluation["error"]}
        row["game4"] = game and game["4"]
        if "dice" in done.evaluation:
            row["error"] = 1 - float(np.mean(list(done.evaluation["dice"].values())))
    return row


def total_variation(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return half the sum of absolute differences between two answers' shares of the classes."""
    shares = [answer.get("fraction", answer["per_class"]) for answer in (a, b)]
    return float(sum(abs(shares[0][name] - shares[1][name]) for name in shares[1])) / 2


# What was asked for.


def parse_budgets(budgets: str | Sequence[str | None] | None) -> list[Budget | None]:
    """Return the budgets to sweep over; None is every strategy's own default."""
    items = budgets.split(",") if isinstance(budgets, str) else list(budgets or [None])
    return [None if item in (None, "default") else Budget.parse(str(item)) for item in items]


def iter_images(images: object) -> Iterator[object]:
    """Yield images: those of a folder in alphabetical order, those of a list, or the one."""
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


def default_folder(kind: str) -> Path:
    """Return a new folder in the user's data folder."""
    return user_data_path("hrviewer") / kind / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
