"""One run: a strategy with a model on an image, written into a run folder."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from hrviewer.engine import (
    Budget,
    Callback,
    DeviceScheduler,
    InferencePipeline,
    LoadedModels,
    Priors,
    ResultCache,
    RunControl,
    RunRecord,
    answering_network,
    build_context,
    measure_deviation,
    prior_fingerprints,
    recommended_streams,
    run_plan,
    validate_priors,
)
from hrviewer.errors import HrviewerError, ParameterError, RunError, validation_error
from hrviewer.geometry import Rect, RectLike, as_rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import read_region
from hrviewer.models import ModelBundle, ModelCard, open_bundle
from hrviewer.models.memory_usage import peak_memory, reset_peak_memory
from hrviewer.paths import cache_folder, is_vacant, runs_folder, unused_path
from hrviewer.phases import Phase
from hrviewer.pyramid import Pyramid, using_pyramid
from hrviewer.runs.estimates import estimate_to_dict
from hrviewer.runs.evaluation import make_evaluator
from hrviewer.runs.priors import as_priors
from hrviewer.runs.progress import with_progress
from hrviewer.runs.run import Run
from hrviewer.runs.writer import RunWriter, engine_settings, read_header, write_header
from hrviewer.strategies import Estimate, Params, PlanContext, Strategy, get_strategy

__all__ = ["RunSpec", "parse_params", "run"]


def run(
    image: object,
    model: str | Path | ModelBundle = "nuclei",
    strategy: str | Strategy = "patches",
    *,
    plane: Mapping[str, int] | None = None,
    channels: Sequence[int] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    region: RectLike | str | Path | None = None,
    budget: str | Budget | None = None,
    seed: int = 0,
    priors: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "float32",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    resume: bool = False,
    truth: str | Path | GroundTruth | None = None,
    progress: bool = True,
    on_event: Callback | None = None,
    control: RunControl | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Run:
    """Run inference on an image with a strategy.

    Parameters
    ----------
    image : object
        Any input of `hrviewer.open`: a path, a URL, an array or a pyramid.
    model : str, Path or ModelBundle
        Name or folder of a model bundle, or a model file with its card next to it.
    strategy : str or Strategy
        A strategy's id; `hrviewer.strategies` lists them.
    plane, channels, pixel_size
        Plane, channels and micrometres per pixel of the image, as `hrviewer.open` takes them.
    region : Rect, sequence of int, or path, optional
        ``(y, x, h, w)`` in level-0 pixels, or a file of shapes whose bounding box is the region;
        the whole image by default.
    budget : str, optional
        ``2TFLOP``, ``30s`` or ``500patches``; the strategy's own default otherwise.
    seed : int
        Random seed of the strategy.
    priors : mapping, optional
        Prior maps by name; see `as_priors`.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : {"float32", "bfloat16", "int8"}
        Precision of inference. The deviation of bfloat16 and int8 from float32 is measured on
        this image and noted in the run.
    cache : {"use", "off"}
        Whether results of earlier runs are reused.
    out : path, optional
        The run folder, ``NAME.run.zarr``; in the user's data folder by default.
    resume : bool
        Continue the run in `out`.
    truth : str, Path or GroundTruth, optional
        Ground truth to evaluate the estimate against: a file, a folder, or ``auto`` for that of a
        synthetic image; see `hrviewer.io.ground_truth`.
    progress : bool
        Whether to show a progress bar, in a terminal or a notebook.
    on_event : callable, optional
        Called on this thread with phases, requests, results, maps and progress as they come.
    control : RunControl, optional
        Pauses and stops the run from another thread.
    params : mapping, optional
        Parameters of the strategy, by name.
    **more_params
        The same as keywords, where no argument above has their name.

    Returns
    -------
    Run

    Raises
    ------
    HrviewerError
        If an input is invalid or the run cannot be carried out; the message names the remedy.
    """
    with using_pyramid(image, plane=plane, channels=channels, pixel_size=pixel_size) as pyramid:
        bundle = model if isinstance(model, ModelBundle) else open_bundle(model)
        chosen = get_strategy(strategy) if isinstance(strategy, str) else strategy
        card = bundle.roles.get(chosen.answering_role(bundle.roles))
        evaluator = make_evaluator(truth, pyramid, card)
        spec = RunSpec(
            pyramid,
            bundle,
            chosen,
            parse_params(chosen, merge_params(params, more_params)),
            region=resolve_region(pyramid, region),
            budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            seed=seed,
            priors=validate_priors(chosen, as_priors(priors or {})),
        )
        scheduler = DeviceScheduler(streams=recommended_streams())
        try:
            with with_progress(progress, on_event) as on_event:
                done = spec.run(
                    LoadedModels(bundle, scheduler, device, precision),
                    out=Path(out) if out else None,
                    resume=resume,
                    cache=result_cache() if cache == "use" else None,
                    on_event=on_event,
                    control=control,
                )
        finally:
            scheduler.close()
        if evaluator is not None:
            done.set_evaluation(evaluator(done))
        return done


def resolve_region(pyramid: Pyramid, region: RectLike | str | Path | None) -> Rect | None:
    """Return a region as a rectangle: as given, or around the shapes in a file."""
    if isinstance(region, str | Path):
        return read_region(region, pyramid.path or pyramid.name, pyramid.plane_shape)
    return None if region is None else as_rect(region)


def merge_params(
    params: Mapping[str, Any] | None, more_params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters of a mapping and of keywords together.

    Raises
    ------
    HrviewerError
        If a parameter is given in both.
    """
    twice = sorted({*(params or {})} & {*more_params})
    if twice:
        raise ParameterError(
            f"{', '.join(twice)}: give a parameter once, in params or as a keyword"
        )
    return {**(params or {}), **more_params}


def parse_params(strategy: Strategy, values: Mapping[str, Any]) -> Params:
    """Validate the parameters of a strategy.

    Raises
    ------
    HrviewerError
        If a parameter is unknown or out of range.
    """
    try:
        return strategy.Params(**values)
    except ValidationError as error:
        known = strategy.Params.model_fields
        raise validation_error(error, strategy.id, known=known) from None


@cache
def result_cache() -> ResultCache:
    """Return the cache of inference results on this machine."""
    return ResultCache(cache_folder() / "results.sqlite")


@dataclass
class RunSpec:
    """Specification of a run: image, model bundle, strategy and settings.

    The viewer makes it on the main thread and runs it on another; `run` does both at once.
    """

    pyramid: Pyramid
    bundle: ModelBundle
    strategy: Strategy
    params: Params
    region: Rect | None = None
    budget: Budget | None = None
    seed: int = 0
    priors: Priors = field(default_factory=dict)

    def default_path(self) -> Path:
        """Claim a new folder among the user's runs."""
        stem = f"{Path(self.pyramid.name).stem or 'image'}-{self.strategy.id}"
        return unused_path(runs_folder(), f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}", ".run.zarr")

    def run(
        self,
        models: LoadedModels,
        *,
        out: Path | None = None,
        resume: bool = False,
        cache: ResultCache | None = None,
        on_event: Callback | None = None,
        control: RunControl | None = None,
    ) -> Run:
        """Run inference and return the run; see `run`."""
        path = out or self.default_path()
        if not path.name.endswith(".run.zarr"):
            raise RunError(f"a run folder is named NAME.run.zarr, not {path.name!r}")
        earlier = self._existing_header(path, resume)
        models = models.for_image(self.pyramid)
        if earlier is not None and earlier["complete"]:
            self._check_matches(earlier, path, models, None)
            return Run(path)
        if on_event is not None:
            on_event(Phase("loading"))
        rate = earlier["rate"] if earlier else None
        context, notes, rate = build_context(
            self.pyramid,
            models,
            self.strategy,
            region=self.region,
            budget=self.budget,
            rate=rate,
            seed=self.seed,
            priors=self.priors,
        )
        if earlier is not None:
            models.device.batch = earlier["engine"]["batch"]
            models.device.streams = earlier["engine"].get("streams", 1)
        pipeline = InferencePipeline(
            self.pyramid,
            models,
            models.device,
            context.region,
            cache=cache,
            control=control,
        )
        if earlier is not None:
            self._check_matches(earlier, path, models, pipeline)
        main, card = models["main"], answering_network(models, self.strategy).card
        deviation = measure_deviation(self.pyramid, models, context)
        notes = [*notes, *([str(deviation)] if deviation else [])]
        writer = RunWriter(
            path,
            self.pyramid,
            card,
            main.stride,
            context.native_scale,
            context.region,
            lambda role: models[role].digest,
        )
        header = {
            **self._identity(context),
            "engine": engine_settings(pipeline),
            "rate": rate,
            "networks": {role: models[role].digest for role in self.strategy.roles},
            "notes": notes,
            "started": earlier["started"] if earlier else datetime.now(UTC).isoformat(),
            "versions": versions(),
            "run": str(path),
            "device": main.device,
            "precision": deviation.to_dict() if deviation else None,
            "truth": None,
        }
        if on_event is not None:
            on_event(Phase("inference"))
        reset_peak_memory()
        start = time.perf_counter()
        partial = {**header, **self._summary(writer.record, None, context, card, models, 0.0)}
        write_header(path, {**partial, "complete": False})
        estimate: Estimate | None = None
        try:
            estimate = run_plan(
                self.strategy.plan(context, self.params),
                pipeline,
                writer,
                budget=context.budget,
                on_event=on_event,
            )
        finally:
            elapsed = time.perf_counter() - start
            saved = pipeline.meter.seconds_saved
            result = self._summary(writer.record, estimate, context, card, models, elapsed, saved)
            header["networks"] = {
                role: models[role].digest for role in {row.role for row in writer.record.patches}
            } or header["networks"]
            # Roles that only the policy requested may have been substituted.
            notes += [note for note in models.notes if note not in notes]
            header["notes"] = [*notes, estimate.note] if estimate and estimate.note else notes
            if sys.exc_info()[0] is None:
                writer.finish({**header, **result})
            else:
                # Partial results are kept; the first error is the one to report.
                with suppress(HrviewerError):
                    writer.finish({**header, **result})
                refused = isinstance(sys.exc_info()[1], HrviewerError) and not writer.record.patches
                if refused and earlier is None:  # no patch was run: leave no folder behind
                    shutil.rmtree(path, ignore_errors=True)
        return Run(path)

    def _identity(self, context: PlanContext) -> dict[str, Any]:
        """Return the header entries that identify a run."""
        return {
            "image": image_info(self.pyramid),
            "region": list(context.region.astuple()),
            "model": self.bundle.name,
            "strategy": self.strategy.id,
            "params": self.params.model_dump(exclude_defaults=True),
            "seed": self.seed,
            "priors": prior_fingerprints(self.priors),
            "budget": str(self.budget) if self.budget else None,
        }

    def _existing_header(self, path: Path, resume: bool) -> dict[str, Any] | None:
        if is_vacant(path):
            if resume and not path.exists():
                raise RunError(f"there is no run to resume in {path}; run without --resume")
            if resume:
                raise RunError(f"{path} is not a run folder; choose another --out")
            return None
        if not resume:
            raise RunError(f"{path} exists: resume it with --resume, or choose another --out")
        if not (path / "run.json").exists() and not (path / "journal").exists():
            raise RunError(f"{path} is not a run folder; choose another --out")
        if not (path / "run.json").exists():
            # Killed before the header was written: there are no results.
            shutil.rmtree(path)
            return None
        return read_header(path)

    def _check_matches(
        self,
        header: dict[str, Any],
        path: Path,
        models: LoadedModels,
        pipeline: InferencePipeline | None,
    ) -> None:
        """Refuse to resume with another image, model, strategy or device than the run's own."""
        region = self.region & self.pyramid.rect if self.region else self.pyramid.rect
        checks: dict[str, tuple[Any, Any]] = {
            "image": (header["image"]["fingerprint"], self.pyramid.fingerprint),
            "plane": (header["image"]["plane"], self.pyramid.plane),
            "channels": (
                header["image"]["channels"],
                self.pyramid.selected_channels and list(self.pyramid.selected_channels),
            ),
            "pixel size": (
                header["image"]["pixel_size"],
                self.pyramid.pixel_size and list(self.pyramid.pixel_size),
            ),
            "region": (header["region"], list(region.astuple())),
            "strategy": (header["strategy"], self.strategy.id),
            "parameters": (header["params"], self.params.model_dump(exclude_defaults=True)),
            "seed": (header["seed"], self.seed),
            "prior": (header.get("priors", {}), prior_fingerprints(self.priors)),
            "budget": (header["budget"], str(self.budget) if self.budget else None),
        }
        # The header names the roles used so far: a strategy may never have requested `main`.
        for role, digest in header["networks"].items():
            now = models[role].digest if role in models else None
            checks[f"model as {role}"] = digest, now
        if pipeline is not None:
            checks["engine"] = (header["engine"], engine_settings(pipeline))
        for name, (was, now) in checks.items():
            if was != now:
                raise RunError(
                    f"{path} was started with another {name} ({was}, now {now}): choose another "
                    "--out for a new run"
                )

    def _summary(
        self,
        record: RunRecord,
        final_estimate: Estimate | None,
        context: PlanContext,
        card: ModelCard,
        models: LoadedModels,
        wall: float,
        saved: float = 0.0,
    ) -> dict[str, Any]:
        """Return the estimate and the costs so far."""
        costs = record.cost_map
        estimate = final_estimate.values if final_estimate else record.estimate
        interval = final_estimate.interval if final_estimate else record.interval
        total = costs.total
        return {
            "complete": final_estimate is not None,
            "estimate": estimate_to_dict(
                card, estimate, interval, context.region, context.pixel_size
            ),
            "cost": {
                "flops": total.flops,
                # Results from memory, the cache or the journal count with their original cost.
                "wall_s": wall + saved + total.seconds - costs.spent.seconds,
                "read_s": total.read_s,
                "prepare_s": total.prepare_s,
                "infer_s": total.infer_s,
                "post_s": total.post_s,
                "bytes_read": round(total.bytes),
                "pixels_read": round(total.pixels),
                "peak_rss_bytes": peak_memory(),
                "peak_device_bytes": None,
            },
            "spent": {"flops": costs.spent.flops, "wall_s": wall},
            "setup_s": models.setup_s,
            "patches": record.counts(),
        }


def image_info(pyramid: Pyramid) -> dict[str, Any]:
    """Return the header entries of an image."""
    return {
        "path": pyramid.path or pyramid.name,
        "shape": list(pyramid.plane_shape),
        "levels": len(pyramid.levels),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        "fingerprint": pyramid.fingerprint,
        "plane": pyramid.plane,
        "channels": pyramid.selected_channels and list(pyramid.selected_channels),
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    names = ("hrviewer", "numpy", "tifffile", "imagecodecs", "zarr")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in names},
    }
