"""What a worker of a batch does: run the strategy on one image, with models loaded once.

A worker is a process of dask.distributed that computes one image at a time. What it keeps between
images is in `WorkerState`; everything that it returns is plain data.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from hrviewer.batch.image_list import ImageEntry
from hrviewer.batch.results_table import Row, run_columns
from hrviewer.batch.settings import STOP_FILE, BatchSettings, EngineSettings
from hrviewer.engine import Budget, RunControl
from hrviewer.engine.device_scheduler import lower_priority
from hrviewer.errors import (
    ClaimedError,
    HrviewerError,
    ImageReadError,
    ParameterError,
    RunError,
    WriteError,
    format_error,
)
from hrviewer.geometry import Rect
from hrviewer.io import get_writer
from hrviewer.models import ModelBundle, Network, open_bundle
from hrviewer.models.threads import available_cores, limit_cores, recommended_streams
from hrviewer.paths import is_vacant
from hrviewer.pyramid import Pyramid, using_pyramid
from hrviewer.runs.batch_runner import BatchRunner, run_folder_name
from hrviewer.runs.evaluation import make_evaluator
from hrviewer.runs.exporting import export
from hrviewer.runs.provenance import versions
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec
from hrviewer.runs.settings import merge_params, parse_params, resolve_region
from hrviewer.runs.tissue import resolve_tissue
from hrviewer.strategies import get_strategy

__all__ = ["WorkerState", "measure_engine", "run_image", "stop_batch"]

STOP_SECONDS = 25.0
"""Seconds that a worker which ends waits for its run to stop in good order."""


class WorkerState(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """What a worker knows of a batch: its device and cores, and whether it is to stop.

    Parameters
    ----------
    name : str
        Name of the batch.
    cores : int, optional
        Cores that networks use; all by default.
    devices : tuple of str
        The device of each local worker; ``auto`` for all without any.
    low_priority : bool
        Whether it gives way to other programs.
    """

    def __init__(
        self,
        name: str,
        cores: int | None,
        devices: tuple[str, ...],
        *,
        low_priority: bool = False,
    ) -> None:
        self.name = f"hrviewer-{name}"
        self._cores, self._devices, self._low_priority = cores, devices, low_priority

    def setup(self, worker: Any) -> None:
        """Prepare a worker that joins."""
        if self._low_priority:
            lower_priority()  # of this thread, which starts those that compute
        if self._cores is not None:
            limit_cores(self._cores)
        number = worker.name if isinstance(worker.name, int) else 0
        _process.device = self._devices[number % len(self._devices)] if self._devices else "auto"
        _process.control = RunControl()

    def teardown(self, worker: Any) -> None:
        """Stop the run of a worker that ends, as at the end of its walltime."""
        _process.control.stop()
        _process.idle.wait(STOP_SECONDS)


class _Process:
    """The state of this process: one image at a time."""

    def __init__(self) -> None:
        self.device = "auto"
        self.control = RunControl()
        self.idle = threading.Event()
        self.idle.set()
        self.runner: tuple[object, BatchRunner] | None = None


_process = _Process()


def stop_batch() -> None:
    """Stop the run of this worker after the current batch of inputs, and start no other."""
    _process.control.stop()


@lru_cache(maxsize=8)
def opened_bundle(model: str, trust: bool) -> ModelBundle:
    """Return a model's bundle, the same one for all images."""
    return open_bundle(model, trust)


def measure_engine(settings: BatchSettings, cores: int | None) -> EngineSettings:
    """Load the model on this worker, and return how its networks run.

    Raises
    ------
    HrviewerError
        If the model cannot be loaded.
    """
    runner = BatchRunner(Path(), device=_process.device, precision=settings.precision)
    try:
        models = runner.load(opened_bundle(str(settings.model), settings.trust))
        # Not calibrated: int8 is on each image.
        main = models.in_float32() if settings.precision == "int8" else models["main"]
        return EngineSettings(
            version=versions()["hrviewer"],
            device=main.device.partition(":")[0],
            backend=main.backend,
            cores=cores or available_cores(),
            streams=min(cores or available_cores(), recommended_streams()),
            batch=models.device.batch,
        )
    finally:
        runner.close()


def use_engine(engine: EngineSettings, *, elsewhere: bool) -> None:
    """Make this process run networks as all workers of the batch do.

    Raises
    ------
    ParameterError
        If it has another version of hrviewer.
    """
    if versions()["hrviewer"] != engine.version:
        raise ParameterError(
            f"worker {socket.gethostname()} has hrviewer {versions()['hrviewer']}, the batch "
            f"{engine.version}: install the same version everywhere"
        )
    limit_cores(engine.cores)
    if elsewhere:  # here the fastest back end was measured once for all processes
        os.environ["HRVIEWER_BACKEND"] = engine.backend.partition(" ")[0]


def check_backend(network: Network, backend: str) -> None:
    """Check that a network runs on the back end of the other workers.

    Raises
    ------
    RunError
        If it does not: an export that failed here would change the last bits without a word.
    """
    if network.backend != backend:
        raise RunError(
            f"{network.card.name} runs on {network.backend} at worker {socket.gethostname()}:"
            f"{os.getpid()}, elsewhere on {backend}: install the same versions everywhere, or "
            "start a new batch (another --out) with HRVIEWER_BACKEND=torch"
        )


def runner_of(folder: str, settings: BatchSettings, engine: EngineSettings) -> BatchRunner:
    """Return this process's runner, with its loaded models."""
    key = folder, engine, settings.precision, settings.cache
    if _process.runner is None or _process.runner[0] != key:
        close_runner()
        runner = BatchRunner(
            Path(folder),
            device=_process.device,
            precision=settings.precision,
            cache=settings.cache,
            streams=engine.streams,
            batch=engine.batch,
        )
        _process.runner = key, runner
    _process.runner[1].control = _process.control
    return _process.runner[1]


def close_runner() -> None:
    """Close this process's runner, with its models and threads, if it has one."""
    if _process.runner is not None:
        _process.runner[1].close()
        _process.runner = None


def run_image(
    folder: str,
    settings: BatchSettings,
    engine: EngineSettings,
    entry: ImageEntry,
    *,
    elsewhere: bool = False,
) -> Row:
    """Run the strategy on an image, and return its row.

    Parameters
    ----------
    folder : str
        The batch's folder.
    settings, engine
        The batch's.
    entry : ImageEntry
        The image.
    elsewhere : bool
        Whether this worker may be on another machine than the batch was started on.

    Returns
    -------
    dict
        The row; of an image that failed its ``error``, and ``retry`` where another attempt may
        help.
    """
    row: Row = {"status": "stopped", "worker": f"{socket.gethostname()}:{os.getpid()}"}
    if _process.control.stopped or (Path(folder) / STOP_FILE).exists():
        return row
    _process.idle.clear()
    start = time.perf_counter()
    try:
        use_engine(engine, elsewhere=elsewhere)
        run = run_entry(Path(folder), settings, engine, entry)
        row |= run_columns(run)
        if run.complete:
            row |= {"status": "done", "error": export_run(Path(folder), run, settings)}
            if row["error"]:
                row["status"] = "failed"
        elif not _process.control.stopped:
            row |= {"status": "failed", "error": f"incomplete: {run.incomplete}"}
    except (Exception, MemoryError) as error:
        row |= {"status": "failed", "error": format_error(error), "retry": may_pass(error, entry)}
        row["seconds"] = time.perf_counter() - start
    finally:
        _process.idle.set()
    return row


def run_entry(
    folder: Path, settings: BatchSettings, engine: EngineSettings, entry: ImageEntry
) -> Run:
    """Return the run of an image: complete, resumed or new."""
    bundle = opened_bundle(entry.model or str(settings.model), settings.trust)
    strategy = get_strategy(settings.strategy)
    own = {name: value for name, value in settings.params.items() if name not in entry.params}
    params = parse_params(strategy, merge_params(own, entry.params))
    with using_pyramid(entry.image, series=entry.series) as pyramid:
        within, regions = resolve_region(pyramid, region_of(entry.region or settings.region))
        spec = RunSpec(
            pyramid,
            bundle,
            strategy,
            params,
            region=within,
            regions=regions,
            tissue=resolve_tissue(pyramid, settings.tissue),
            budget=Budget.parse(settings.budget) if settings.budget else None,
            seed=settings.seed,
        )
        path = folder / "runs" / run_folder_name(spec, {})
        found = complete_run(path, pyramid)
        if found is None:
            runner = runner_of(str(folder / "runs"), settings, engine)
            models = runner.load(bundle)
            if entry.model is None and settings.precision != "int8":  # int8: on each image
                check_backend(models["main"], engine.backend)
            found = runner.run_in(path, spec, models)
        truth = entry.truth or settings.truth
        if truth is not None and found.complete and found.evaluation is None:
            card = bundle.roles.get(strategy.answering_role(bundle.roles))
            evaluator = make_evaluator(truth, pyramid, card)
            if evaluator is not None:
                found.set_evaluation(evaluator(found))
        return found


def complete_run(path: Path, pyramid: Pyramid) -> Run | None:
    """Return the run in a folder if it is whole, so that no model is loaded for it."""
    if is_vacant(path) or not (path / "run.json").exists():
        return None
    run = Run(path)
    same = run.header["image"]["fingerprint"] == pyramid.fingerprint
    return run if run.complete and same else None


def region_of(text: str | None) -> Rect | str | None:
    """Return a region as given in a table: a rectangle ``y,x,h,w``, or a file of regions."""
    if text is None:
        return None
    with suppress(ValueError):
        y, x, h, w = (int(part) for part in text.split(","))
        return Rect(y, x, h, w)
    return text


def export_run(folder: Path, run: Run, settings: BatchSettings) -> str:
    """Export a complete run in all formats of the batch; return what went wrong."""
    exports = folder / "exports"
    for name in settings.exports:
        suffix = get_writer(name).suffixes[0]
        target = exports / f"{run.path.name.removesuffix('.run.zarr')}{suffix}"
        if target.exists():
            continue
        try:
            exports.mkdir(exist_ok=True)
            export(run, target, name)
        except (HrviewerError, OSError) as error:
            return f"not exported as {name}: {format_error(error)}"
    return ""


def may_pass(error: BaseException, entry: ImageEntry) -> bool:
    """Return whether another attempt at an image may succeed."""
    if isinstance(error, ImageReadError):
        return "://" in entry.image
    lasting = isinstance(error, HrviewerError) and not isinstance(error, WriteError)
    return not lasting or isinstance(error, ClaimedError)
