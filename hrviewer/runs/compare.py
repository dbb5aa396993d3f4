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

from hrviewer.engine import Budget, Control, Device, Networks, Watch, streams_here
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import Truth
from hrviewer.io.ground_truth import datasets
from hrviewer.models import Pack, open_pack
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.evaluation import Judge, find_judge
from hrviewer.runs.metrics import grid_errors, parts
from hrviewer.runs.run import Run
from hrviewer.runs.runner import Job, parse_params, result_cache
from hrviewer.strategies import get_strategy, strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Bench", "Choice", "bench", "choices", "compare", "default_folder"]

COSTS = (
    "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
    "peak_rss_bytes",
)  # fmt: skip
"""The columns that say what a row cost."""

MATCHED = " of "
"""In the budget of a row that was run at another one's cost: ``FLOPs of zoom``."""

EVEN = "uniform"
"""The baseline that can be had at any cost, to hold the others against."""


@dataclass(frozen=True)
class Choice:
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
    def parse(cls, text: str) -> Choice:
        """Read ``zoom`` or ``zoom:k=32:method=topk``.

        Raises
        ------
        UserError
            If there is no such strategy or parameter.
        """
        name, *items = text.split(":")
        if not all("=" in item for item in items):
            raise UserError(f"a strategy's parameters read {name}:key=value, not {text!r}")
        return cls(name, dict(item.split("=", 1) for item in items)).checked()

    def checked(self) -> Choice:
        """Return the same with its parameters as they will be recorded."""
        params = parse_params(get_strategy(self.strategy), self.params)
        return Choice(self.strategy, params.model_dump(exclude_defaults=True))

    def __str__(self) -> str:
        return ":".join([self.strategy, *(f"{k}={v}" for k, v in self.params.items())])


def choices(asked: str | Sequence[str | Choice]) -> list[Choice]:
    """Return strategies by name; ``all`` for whatever is installed."""
    items = asked.split(",") if isinstance(asked, str) else asked
    found: list[Choice] = []
    for item in items:
        if item == "all":
            found += [Choice(name) for name in strategy_ids()]
        else:
            found.append(Choice.parse(item) if isinstance(item, str) else item.checked())
    return list({str(choice): choice for choice in found}.values())


class Bench:
    """Runs jobs one after the other on one device; every network is loaded once.

    Parameters
    ----------
    folder : Path
        Where the runs are kept, and found again.
    device, cache
        See `hrviewer.run`.
    watch, control
        See `runs.run`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        cache: Literal["use", "off"] = "use",
        watch: Watch | None = None,
        control: Control | None = None,
    ) -> None:
        self.folder = folder
        self._name, self._watch, self._control = device, watch, control
        self._store = result_cache() if cache == "use" else None
        self._device = Device(streams=streams_here())
        self._networks: dict[str | Pack, Networks] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error}") from None

    def close(self) -> None:
        """End the device's thread."""
        self._device.close()

    def networks(self, model: str | Path | Pack) -> Networks:
        """Return a pack's networks, loaded once."""
        key = model if isinstance(model, Pack) else str(model)
        if key not in self._networks:
            pack = model if isinstance(model, Pack) else open_pack(model)
            self._networks[key] = Networks(pack, self._device, self._name)
        return self._networks[key]

    def names(self, models: Sequence[str | Path | Pack]) -> list[str]:
        """Return what packs are called: those that share a name also as they were asked for."""
        names = [self.networks(model).pack.name for model in models]
        places = (i if isinstance(m, Pack) else str(m) for i, m in enumerate(models, start=1))
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
        model: str | Path | Pack,
        choice: Choice,
        *,
        budget: Budget | None = None,
        seed: int = 0,
        region: Rect | None = None,
        judge: Judge | None = None,
    ) -> Run:
        """Return one run: the one that is there, gone on with, or anew.

        Raises
        ------
        UserError
            If the strategy cannot do with these networks or this budget.
        """
        networks = self.networks(model)
        pack = networks.pack
        strategy = get_strategy(choice.strategy)
        params = parse_params(strategy, choice.params)
        job = Job(pyramid, pack, strategy, params, region, budget, seed)
        path = self.folder / self._file(pyramid, pack, choice, budget, seed, region)
        done = job.run(
            networks,
            out=path,
            resume=path.exists(),
            cache=self._store,
            watch=self._watch,
            control=self._control,
        )
        if judge is not None and done.complete:
            done.judged(judge(done))
        return done

    @staticmethod
    def _file(
        pyramid: Pyramid,
        pack: Pack,
        choice: Choice,
        budget: Budget | None,
        seed: int,
        region: Rect | None,
    ) -> str:
        """Return a run's folder's name: the same for the same question."""
        weights = {role: card.sha256 for role, card in pack.roles.items()}
        asked = [pyramid.fingerprint, pack.name, weights, choice.strategy, dict(choice.params),
                 str(budget), seed, region and region.astuple()]  # fmt: skip
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode())
        stem = re.sub(r"[^\w.-]+", "_", Path(pyramid.name).stem)[:40] or "image"
        return f"{stem}-{choice.strategy}-{digest.hexdigest()[:10]}.run.zarr"


@contextmanager
def bench(*args: Any, **settings: Any) -> Iterator[Bench]:
    """Return a bench that is closed in the end."""
    made = Bench(*args, **settings)
    try:
        yield made
    finally:
        made.close()


def compare(
    images: object,
    models: str | Path | Pack | Sequence[str | Path | Pack] = "nuclei",
    strategies: str | Sequence[str | Choice] = "all",
    *,
    truth: str | Path | Truth | None = None,
    budgets: str | Sequence[str | None] | None = None,
    matched: bool = False,
    seeds: Sequence[int] = (0,),
    region: Rect | Sequence[int] | None = None,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    watch: Watch | None = None,
    control: Control | None = None,
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
    watch, control
        See `runs.run`.

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

    asked = choices(strategies)
    sweep = budgets_of(budgets)
    area = region if region is None or isinstance(region, Rect) else Rect(*region)
    folder = Path(out).expanduser() if out else default_folder("comparisons")
    packs = [models] if isinstance(models, (str, Path, Pack)) else list(models)
    rows: list[dict[str, Any]] = []
    complete = True
    with bench(folder / "runs", device=device, cache=cache, watch=watch, control=control) as runner:
        for image in images_in(images):
            with open_pyramid(image) as pyramid:
                for model, name in zip(packs, runner.names(packs), strict=True):
                    for row in rows_of(
                        runner, pyramid, model, asked, sweep, seeds, area, truth, matched=matched
                    ):
                        rows.append({**row, "model": name})
                if runner.stopped:
                    complete = False
                    break
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    table.attrs = {
        "reference": "patches" if truth is None else told(truth),
        "complete": complete,
        "folder": str(folder),
    }
    return table


COLUMNS = (
    "image", "strategy", "model", "params", "seed", "budget", "estimate", "reference", "error",
    "game4", *COSTS, "run", "note",
)  # fmt: skip


def told(truth: str | Path | Truth) -> str:
    """Return where a truth comes from."""
    return (truth.source or "truth") if isinstance(truth, Truth) else str(truth)


def must_ask_the_same(strategy: str, pack: Pack) -> None:
    """Raise `UserError` where a strategy would answer another question than ``main`` does."""
    main, card = (pack.roles.get(r) for r in ("main", get_strategy(strategy).speaker(pack.roles)))
    if main is not None and card is not None and main.task != card.task:
        raise UserError(f"{card.name} answers another question than {main.name}: {card.task}")


def rows_of(
    runner: Bench,
    pyramid: Pyramid,
    model: str | Path | Pack,
    asked: Sequence[Choice],
    sweep: Sequence[Budget | None],
    seeds: Sequence[int],
    region: Rect | None,
    truth: str | Path | Truth | None,
    *,
    matched: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one image's rows, as they are done."""
    judge = find_judge(truth, pyramid, runner.networks(model).pack.roles.get("main"))
    reference: Run | None = None
    if truth is None:
        reference = runner.run(pyramid, model, Choice("patches"), region=region)
    for budget in sweep:
        for choice in asked:
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
                    must_ask_the_same(choice.strategy, runner.networks(model).pack)
                    done = runner.run(
                        pyramid, model, choice, budget=budget, seed=seed, region=region, judge=judge
                    )
                except UserError as error:
                    # What these networks or this budget do not allow is told, and no more; what is
                    # wrong with the image or its truth has been found before.
                    yield {**about, "note": str(error)}
                    continue
                if not done.complete:
                    continue
                yield {**about, **measured(done, reference)}
                # What spent nothing has no match.
                if not matched or choice.strategy == EVEN or not done.cost["flops"]:
                    continue
                spent = {"FLOPs": Budget(done.cost["flops"], "flops"),
                         "seconds": Budget(done.cost["wall_s"], "seconds")}  # fmt: skip
                for what, cost in spent.items():
                    named = f"{what}{MATCHED}{choice}" + (f" at {budget}" if budget else "")
                    even = {"strategy": EVEN, "params": {}, "budget": named}
                    try:
                        done = runner.run(
                            pyramid, model, Choice(EVEN), budget=cost, region=region, judge=judge
                        )
                    except UserError as error:
                        yield {**about, **even, "note": str(error)}
                        continue
                    if done.complete:
                        yield {**about, **even, **measured(done, reference)}


def measured(done: Run, reference: Run | None) -> dict[str, Any]:
    """Return what a run came to: against another run if there is one, else against its truth."""
    estimate = done.estimate
    value = None if estimate is None else estimate["value"]
    row: dict[str, Any] = {
        "estimate": value,
        "reference": None,
        "error": None,
        "game4": None,
        **{name: done.cost[name] for name in COSTS},
        "run": str(done.path),
        "note": "; ".join(done.header["notes"]),
    }
    if reference is not None and reference.estimate is not None and estimate is not None:
        wanted = reference.estimate
        row["reference"] = wanted["value"]
        if estimate["kind"] == "count":
            row["error"] = value - wanted["value"]
            said, told = (parts(*run.map("output"), run.region, 16) for run in (done, reference))
            row["game4"] = grid_errors(said, told, [4])[4]
        else:
            row["error"] = variation(estimate, wanted)
    elif reference is None and done.truth is not None:
        game = done.truth["game"]
        row |= {"reference": done.truth["value"], "error": done.truth["error"]}
        row["game4"] = game and game["4"]
        if "dice" in done.truth:
            row["error"] = 1 - float(np.mean(list(done.truth["dice"].values())))
    return row


def variation(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return half the sum of absolute differences between two answers' shares of the classes."""
    shares = [answer.get("fraction", answer["per_class"]) for answer in (a, b)]
    return float(sum(abs(shares[0][name] - shares[1][name]) for name in shares[1])) / 2


# What was asked for.


def budgets_of(asked: str | Sequence[str | None] | None) -> list[Budget | None]:
    """Return the budgets to sweep over; None is every strategy's own default."""
    items = asked.split(",") if isinstance(asked, str) else list(asked or [None])
    return [None if item in (None, "default") else Budget.parse(str(item)) for item in items]


def images_in(images: object) -> Iterator[object]:
    """Yield images: those of a folder in alphabetical order, those of a list, or the one."""
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from images_in(image)
        return
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        if path.is_dir() and path.suffix != ".zarr":
            yield from map(str, datasets.images(path))
            return
    yield images


def default_folder(kind: str) -> Path:
    """Return a new folder in the user's data folder."""
    return user_data_path("hrviewer") / kind / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
