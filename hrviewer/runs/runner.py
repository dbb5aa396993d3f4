"""One run: a strategy with a model on an image, written into a run folder."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from hrviewer.claims import Claim, claim_folder
from hrviewer.engine import (
    Budget,
    Callback,
    InferencePipeline,
    LoadedModels,
    Priors,
    ResultCache,
    RunClock,
    RunControl,
    answering_network,
    build_context,
    measure_deviation,
    prior_fingerprints,
    run_plan,
)
from hrviewer.engine.precision import PrecisionDeviation
from hrviewer.errors import HrviewerError, ParameterError, RunError
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle, ModelCard
from hrviewer.models.memory_usage import reset_peak_memory
from hrviewer.paths import cache_folder, runs_folder, unused_path
from hrviewer.phases import LOADING, Phase
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region
from hrviewer.runs.leftovers import keeping_results, remove_leftovers
from hrviewer.runs.provenance import image_info, versions
from hrviewer.runs.region_measurement import measure_regions
from hrviewer.runs.resuming import check_matches, existing_header
from hrviewer.runs.run import Run
from hrviewer.runs.run_regions import (
    UnfinishedRun,
    area_notes,
    counting_part,
    write_parts,
)
from hrviewer.runs.summary import RunSummary
from hrviewer.runs.writer import RunFolderWriter, engine_settings, write_header
from hrviewer.strategies import Estimate, Params, PlanContext, Rates, Strategy, aggregation_of

__all__ = ["RunSpec", "result_cache"]

log = logging.getLogger(__name__)


@cache
def result_cache() -> ResultCache:
    """Return the cache of inference results on this machine."""
    return ResultCache(cache_folder() / "results.sqlite")


@dataclass
class RunSpec:
    """Specification of a run: image, model bundle, strategy and settings.

    The viewer makes it on the main thread and runs it on another; `run` does both at once.
    `prior_sources` records where prior maps were read, so that a stopped run can be resumed. Of
    `regions`, the rectangle around them is processed where it touches one, and only what is inside
    counts; outside `tissue` nothing does.
    """

    pyramid: Pyramid
    bundle: ModelBundle
    strategy: Strategy
    params: Params
    region: Rect | None = None
    budget: Budget | None = None
    seed: int = 0
    priors: Priors = field(default_factory=dict)
    prior_sources: Mapping[str, str] = field(default_factory=dict)
    regions: Sequence[Region] = ()
    tissue: Region | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise ParameterError(f"a seed is a whole number of 0 or more, not {self.seed!r}")
        self.seed = int(self.seed)

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
        if out is None and resume:
            raise RunError("there is no run to resume: give its folder as out")
        if out is not None and (run := self._complete_run(out, resume, models)) is not None:
            return run
        path = out or self.default_path()
        with claim_folder(path) as claim:
            if out is not None and (run := self._complete_run(out, resume, models)) is not None:
                return run  # another process has just finished it
            earlier = existing_header(path, resume) if out is not None else None
            with keeping_results(path, is_new=earlier is None):
                return self._run_in(path, claim, earlier, models, cache, on_event, control)

    def _complete_run(self, path: Path, resume: bool, models: LoadedModels) -> Run | None:
        """Return the run in a folder if it is complete and of these settings."""
        header = existing_header(path, resume)
        if header is None or not header["complete"]:
            return None
        check_matches(header, self._identity(), models.for_image(self.pyramid), None, path)
        remove_leftovers(path)
        return Run(path)

    def _run_in(
        self,
        path: Path,
        claim: Claim,
        earlier: dict[str, Any] | None,
        models: LoadedModels,
        cache: ResultCache | None,
        on_event: Callback | None,
        control: RunControl | None,
    ) -> Run:
        """Run inference in a claimed folder; `earlier` is the header of a run to be resumed."""
        start, generic = time.perf_counter(), models
        models = models.for_image(self.pyramid)
        calibration_s = 0.0 if models is generic else time.perf_counter() - start
        setup_s = models.setup_s - calibration_s  # before this run
        if on_event is not None:
            on_event(Phase(LOADING))
        within, mask = self.part
        rates = Rates(**earlier["rates"]) if earlier and earlier.get("rates") else None
        context, notes, rates = build_context(
            self.pyramid,
            models,
            self.strategy,
            region=within,
            budget=self.budget,
            rates=rates,
            timed=True,
            seed=self.seed,
            priors=self.priors,
            mask=mask,
        )
        chosen = earlier.get("chosen", {}) if earlier else self.chosen(context)
        if earlier is not None:
            models.device.batch = earlier["engine"]["batch"]
            models.device.streams = earlier["engine"].get("streams", 1)
        region, device = context.region, models.device
        pipeline = InferencePipeline(
            self.pyramid, models, device, region, cache=cache, control=control, mask=mask
        )
        identity = self._identity()
        if earlier is not None:
            check_matches(earlier, identity, models, engine_settings(pipeline), path)
        main, card = models["main"], answering_network(models, self.strategy).card
        deviation = measure_deviation(self.pyramid, models, context)
        notes += [str(x) for x in (deviation, self.strategy.advice(context, self.params)) if x]
        writer = RunFolderWriter(
            path,
            self.pyramid,
            card,
            main.stride,
            context.native_scale,
            context.region,
            lambda role: models[role].digest,
            claim,
            mask,
        )
        write_parts(path, self.regions, self.tissue)
        header = {
            **identity,
            **self._provenance(pipeline, models, rates, deviation),
            "chosen": chosen,
            "once_per_pixel_flops": context.once_per_pixel,
            "notes": notes,
            "started": earlier["started"] if earlier else datetime.now(UTC).isoformat(),
            "run": str(path),
        }
        if on_event is not None:
            on_event(Phase("inference"))
        self._log_start("resuming" if earlier else "running", path, context, main.device, notes)
        reset_peak_memory()
        damaged_before = cache.damaged if cache is not None else 0
        summary = self._summary(context, card)
        begun = summary.to_dict(writer.record, setup_s=max(0.0, models.setup_s - setup_s))
        write_header(path, {**header, **begun})
        clock = RunClock(context.seconds, pipeline.control)
        start = time.perf_counter()
        estimate: Estimate | None = None
        try:
            estimate = run_plan(
                self.strategy.plan(context, self.params.model_copy(update=chosen)),
                pipeline,
                writer,
                budget=context.budget,
                clock=clock,
                on_event=on_event,
            )
        finally:
            elapsed = time.perf_counter() - start
            record, skipped = writer.record, writer.record.skipped
            result = summary.to_dict(
                record,
                estimate,
                setup_s=max(0.0, models.setup_s - setup_s),
                wall_s=elapsed,
                saved_s=pipeline.meter.seconds_saved,
            )
            used = {row.role: models[row.role].digest for row in record.patches}
            header["networks"] = used or header["networks"]
            # Roles that only the policy requested may have been substituted.
            notes += [note for note in models.notes if note not in notes]
            notes += area_notes(self.pyramid, self.region, self.tissue, context, result, skipped)
            notes += [*summary.notes(estimate, result), *writer.journal_notes()]
            if cache is not None and (damaged := cache.damaged - damaged_before):
                notes.append(f"{damaged} cached results were damaged: they were computed again")
            notes += writer.object_notes(estimate.values if estimate else None)
            header["notes"] = [*notes, estimate.note] if estimate and estimate.note else notes
            state = "finished" if estimate else "stopped or failed", path
            log.info("%s %s after %.1f s: %s", *state, elapsed, record.counts())
            if sys.exc_info()[0] is None:
                writer.finish(self._with_regions(writer, {**header, **result}))
            else:
                # Partial results are kept; the first error is the one to report.
                with suppress(HrviewerError):
                    writer.finish({**header, **result})
        return Run(path)

    @cached_property
    def part(self) -> tuple[Rect | None, Region | None]:
        """The rectangle of the run and the part of it that counts; None stands for all."""
        return counting_part(self.pyramid.rect, self.region, self.regions, self.tissue)

    def _with_regions(self, writer: RunFolderWriter, header: dict[str, Any]) -> dict[str, Any]:
        """Return a header with the measurements of the run's regions, as far as it came."""
        if not self.regions or header["estimate"] is None:
            return header
        writer.save()
        return header | {
            "regions": measure_regions(UnfinishedRun(writer.path, header), self.regions)
        }

    def chosen(self, context: PlanContext) -> dict[str, Any]:
        """Return the values that the strategy chooses for automatic parameters."""
        chosen = self.strategy.choose(context, self.params).model_dump()
        return {k: v for k, v in chosen.items() if v != getattr(self.params, k)}

    def _summary(self, context: PlanContext, card: ModelCard) -> RunSummary:
        """Return what summarises the results for the header."""
        main, aggregation = self.bundle.roles.get("main"), aggregation_of(self.params)
        in_tissue = self.tissue is not None
        return RunSummary(self.pyramid, context, card, main, aggregation, in_tissue)

    def _provenance(
        self,
        pipeline: InferencePipeline,
        models: LoadedModels,
        rates: Rates | None,
        deviation: PrecisionDeviation | None,
    ) -> dict[str, Any]:
        """Return what the run header records of software, device and networks."""
        return {
            "engine": engine_settings(pipeline),
            "rates": asdict(rates) if rates else None,
            "networks": {role: models[role].digest for role in self.strategy.roles},
            "versions": versions(),
            "device": models["main"].device,
            "precision": deviation.to_dict() if deviation else None,
            "truth": None,
        }

    def _log_start(
        self, verb: str, path: Path, context: PlanContext, device: str, notes: Sequence[str]
    ) -> None:
        """Log what is run, and its notes."""
        log.info(
            "%s %s: %s on %s with %s, region %s, budget %.3g FLOP, on %s",
            verb,
            path,
            self.strategy.id,
            self.pyramid.name,
            self.bundle.name,
            context.region.astuple(),
            context.budget,
            device,
        )
        for note in notes:
            log.info("note: %s", note)

    def _identity(self) -> dict[str, Any]:
        """Return the header entries that identify a run."""
        within, _ = self.part
        region = within & self.pyramid.rect if within else self.pyramid.rect
        return {
            "image": image_info(self.pyramid),
            "region": list(region.astuple()),
            "parts": self._parts(),
            "model": self.bundle.name,
            "strategy": self.strategy.id,
            "params": self.params.model_dump(exclude_defaults=True),
            "seed": self.seed,
            "priors": prior_fingerprints(self.priors),
            "prior_sources": dict(self.prior_sources),
            "budget": str(self.budget) if self.budget else None,
        }

    def _parts(self) -> dict[str, Any]:
        """Return what identifies the regions and the tissue; empty without any."""
        regions = {"regions": [r.digest for r in self.regions]} if self.regions else {}
        return {**regions, **({"tissue": self.tissue.digest} if self.tissue else {})}
