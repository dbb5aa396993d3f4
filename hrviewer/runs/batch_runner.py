"""Runs of many strategies on one device: specifications, reuse of runs, loaded models."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hrviewer.engine import (
    Budget,
    Callback,
    DeviceScheduler,
    LoadedModels,
    RunControl,
    build_context,
    recommended_streams,
)
from hrviewer.errors import ParameterError, WriteError
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle
from hrviewer.paths import data_folder, is_vacant, unused_path
from hrviewer.phases import LOADING, Phase
from hrviewer.pyramid import Pyramid
from hrviewer.runs.evaluation import Evaluator
from hrviewer.runs.model import Model, ModelLike, as_bundle, device_settings
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec, result_cache
from hrviewer.runs.settings import parse_params
from hrviewer.strategies import get_strategy, strategy_ids

__all__ = [
    "BatchRunner",
    "StrategySpec",
    "batch_runner",
    "default_folder",
    "parse_specs",
    "run_folder_name",
]


@dataclass(frozen=True)
class StrategySpec:
    """A strategy and its parameters.

    Parameters
    ----------
    strategy : str
        Its id.
    params : mapping
        Parameters that differ from the defaults.
    """

    strategy: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> StrategySpec:
        """Parse ``zoom`` or ``zoom:k=32:method=topk``.

        Raises
        ------
        HrviewerError
            If there is no such strategy or parameter.
        """
        name, *items = text.split(":")
        if not all("=" in item for item in items):
            raise ParameterError(f"write a strategy's parameters as {name}:key=value, not {text!r}")
        return cls(name, dict(item.split("=", 1) for item in items)).validated()

    def validated(self) -> StrategySpec:
        """Return the specification with validated parameters, as runs record them."""
        params = parse_params(get_strategy(self.strategy), self.params)
        return StrategySpec(self.strategy, params.model_dump(exclude_defaults=True))

    def __str__(self) -> str:
        return ":".join([self.strategy, *(f"{k}={v}" for k, v in self.params.items())])


def parse_specs(specs: str | Sequence[str | StrategySpec]) -> list[StrategySpec]:
    """Parse strategies; ``all`` stands for the installed ones."""
    items = specs.split(",") if isinstance(specs, str) else specs
    parsed: list[StrategySpec] = []
    for item in items:
        if item == "all":
            parsed += [StrategySpec(name) for name in strategy_ids()]
        else:
            parsed.append(StrategySpec.parse(item) if isinstance(item, str) else item.validated())
    if not parsed:
        raise ParameterError("no strategy is given: give one or several, or all")
    return list({str(spec): spec for spec in parsed}.values())


class BatchRunner:
    """Runs strategies one after the other on one device; every model is loaded once.

    Parameters
    ----------
    folder : Path
        Folder of the runs; those that exist are reused.
    device, precision, cache
        See `hrviewer.run`.
    streams, batch : int, optional
        Inputs that run at once, and inputs per call; as recommended here by default.
    on_event, control
        As `run` takes them.

    Attributes
    ----------
    folder, control
        As given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        precision: str = "float32",
        cache: Literal["use", "off"] = "use",
        streams: int | None = None,
        batch: int | None = None,
        on_event: Callback | None = None,
        control: RunControl | None = None,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{folder} cannot be created: {error}") from None
        self.folder = folder
        self._device_name, self._precision, self._batch = device, precision, batch
        self._on_event, self.control = on_event, control
        self._cache = result_cache() if cache == "use" else None
        self._scheduler = DeviceScheduler(streams=streams or recommended_streams())
        self._models: dict[str | ModelBundle | Model, LoadedModels] = {}

    def close(self) -> None:
        """End the device's threads."""
        self._scheduler.close()

    def load(self, model: ModelLike) -> LoadedModels:
        """Return a model's networks, loaded once."""
        key = str(model) if isinstance(model, Path) else model
        if key not in self._models:
            settings = device_settings(model, self._device_name, self._precision)
            self._models[key] = LoadedModels(as_bundle(model), self._scheduler, *settings)
        return self._models[key]

    def display_names(self, models: Sequence[ModelLike]) -> list[str]:
        """Return the names of models; those that share a name with their path or number, too."""
        names = [self.load(model).bundle.name for model in models]
        places = (
            i if isinstance(m, ModelBundle | Model) else str(m)
            for i, m in enumerate(models, start=1)
        )
        return [
            name if names.count(name) == 1 or name == str(place) else f"{name} ({place})"
            for name, place in zip(names, places, strict=True)
        ]

    @property
    def stopped(self) -> bool:
        """Whether the user stopped the comparison."""
        return self.control is not None and self.control.stopped

    def run(
        self,
        pyramid: Pyramid,
        model: ModelLike,
        spec: StrategySpec,
        *,
        budget: Budget | None = None,
        seed: int = 0,
        region: Rect | None = None,
        evaluator: Evaluator | None = None,
    ) -> Run:
        """Return a run: an existing one, resumed if it was stopped, or a new one.

        Raises
        ------
        HrviewerError
            If the strategy cannot run with this model or budget.
        """
        if self._on_event is not None:
            self._on_event(Phase(LOADING, f"{spec} on {pyramid.name}"))
        models = self.load(model)
        bundle = models.bundle
        strategy = get_strategy(spec.strategy)
        params = parse_params(strategy, spec.params)
        run_spec = RunSpec(pyramid, bundle, strategy, params, region, budget, seed)
        run = self.run_in(
            self.folder / run_folder_name(run_spec, chosen_parameters(run_spec, models)),
            run_spec,
            models,
        )
        if evaluator is not None and run.complete:
            run.set_evaluation(evaluator(run))
        return run

    def run_in(self, path: Path, spec: RunSpec, models: LoadedModels) -> Run:
        """Return the run of a folder: as it is if it is complete, resumed or new otherwise.

        Raises
        ------
        HrviewerError
            If the strategy cannot run, or the folder holds another run.
        """
        if self._batch is not None:
            self._scheduler.batch = self._batch
        return spec.run(
            models,
            out=path,
            resume=not is_vacant(path),
            cache=self._cache,
            on_event=self._on_event,
            control=self.control,
        )


def run_folder_name(run: RunSpec, chosen: Mapping[str, Any]) -> str:
    """Return the name of a run's folder: the same for the same settings, given and chosen."""
    weights = {role: card.sha256 for role, card in run.bundle.roles.items()}
    pyramid, region = run.pyramid, run.region
    image = [pyramid.image_key, pyramid.pixel_size, pyramid.given_range]
    parts = [one.digest for one in (*run.regions, *([run.tissue] if run.tissue else []))]
    settings = [*image, run.bundle.name, weights, run.strategy.id,
                run.params.model_dump(exclude_defaults=True), dict(chosen), str(run.budget),
                run.seed, region and region.astuple(), *([parts] if parts else [])]  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    stem = re.sub(r"[^\w.-]+", "_", Path(pyramid.name).stem)[:40] or "image"
    return f"{stem}-{run.strategy.id}-{digest.hexdigest()[:10]}.run.zarr"


def chosen_parameters(run: RunSpec, models: LoadedModels) -> dict[str, Any]:
    """Return the values that a run's strategy would choose for automatic parameters.

    Under a budget in seconds they depend on measured rates, and are known to the run alone.
    """
    if run.budget is not None and run.budget.unit == "seconds":
        return {}
    context, _, _ = build_context(
        run.pyramid, models, run.strategy, region=run.region, budget=run.budget, seed=run.seed
    )
    return run.chosen(context)


@contextmanager
def batch_runner(*args: Any, **settings: Any) -> Iterator[BatchRunner]:
    """Return a `BatchRunner` that is closed in the end."""
    runner = BatchRunner(*args, **settings)
    try:
        yield runner
    finally:
        runner.close()


def default_folder(kind: str) -> Path:
    """Claim a new folder in the data folder."""
    return unused_path(data_folder() / kind, f"{datetime.now(UTC):%Y%m%d-%H%M%S}")
