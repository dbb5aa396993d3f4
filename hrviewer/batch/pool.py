"""Inference of one run on many workers: its plan, reading and results stay in this process.

Every strategy runs as on one machine, and only its networks' inputs are sent to the workers. An
input is computed alone, on a number of threads that does not follow from the number of workers, so
neither do the bits (with the same back end).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.batch.cluster import Workers, connect
from hrviewer.batch.settings import BatchSettings
from hrviewer.engine import DeviceScheduler, LoadedModels
from hrviewer.engine.device_scheduler import predict
from hrviewer.errors import ParameterError, RunError, short_message
from hrviewer.models import BUILTINS, Network, open_bundle
from hrviewer.models.threads import (
    available_cores,
    core_limit,
    current_share,
    limit_cores,
    share_cores,
)

__all__ = ["InferencePool", "inference_pool"]

INPUTS_PER_PLACE = 2
"""Inputs on their way to each place at a worker, so that it does not wait for the next."""

ATTEMPTS = 3
"""Attempts at an input whose worker ended."""


_loading = threading.Lock()


@contextmanager
def inference_pool(
    model: str | Path, *, trust: bool = False, **places: Any
) -> Iterator[InferencePool]:
    """Start or connect to workers that run a model's networks, for the `scheduler` of a run.

    Parameters
    ----------
    model : str or Path
        Name, file or folder of the model, which every worker can open.
    trust : bool
        Whether model files that can run code are opened.
    **places
        Arguments of `hrviewer.batch.cluster.connect`: ``workers``, ``scheduler``, ``cluster``, …

    Raises
    ------
    HrviewerError
        If there are no workers, or they have another version of hrviewer.

    Examples
    --------
    >>> with inference_pool("nuclei", workers=2) as pool:  # doctest: +SKIP
    ...     run = hrviewer.run("slide.svs", "nuclei", "zoom", scheduler=pool)
    """
    with connect(**places, shared=True) as workers, restoring_engine():
        pool = InferencePool(workers, str(model), trust)
        try:
            yield pool
        finally:
            pool.close()


@contextmanager
def restoring_engine() -> Iterator[None]:
    """Restore this process's cores and back end, which a pool adapts to its workers'."""
    cores, backend = core_limit(), os.environ.get("HRVIEWER_BACKEND")
    try:
        yield
    finally:
        limit_cores(cores)
        os.environ.pop("HRVIEWER_BACKEND", None)
        if backend is not None:
            os.environ["HRVIEWER_BACKEND"] = backend


class InferencePool(DeviceScheduler):
    """A scheduler whose networks run on the workers of a cluster.

    Parameters
    ----------
    workers : Workers
        The workers.
    model : str
        Name, file or folder of the model.
    trust : bool
        Whether model files that can run code are opened.
    """

    def __init__(self, workers: Workers, model: str, trust: bool) -> None:
        from hrviewer.batch.worker import WorkerState, measure_engine, use_engine

        client = self._client = workers.client
        client.register_plugin(WorkerState("pool", workers.cores, workers.devices))
        settings = BatchSettings(model=model, trust=trust)
        engine = client.submit(measure_engine, settings, workers.cores, pure=False).result()
        if engine.device != "cpu":
            raise ParameterError(
                "one run on several GPUs is not supported: give each GPU its images by a batch"
            )
        self._engine, self._model, self._trust = engine, model, trust
        self._elsewhere = workers.elsewhere
        infos = client.scheduler_info(-1)["workers"].values()
        self._at_once = max(1, sum(int(info["nthreads"]) for info in infos))
        use_engine(engine, elsewhere=self._elsewhere)
        super().__init__(streams=1)
        self._start_threads(INPUTS_PER_PLACE * self._at_once)

    @property
    def in_flight(self) -> int:
        """Number of inputs that may run at once."""
        return INPUTS_PER_PLACE * self._at_once

    def _needs_first_thread(self, job: object) -> bool:
        return False  # a large input has a worker's memory for itself

    def _infer(self, network: Network, arrays: list[NDArray[np.float32]], batch: int) -> Any:
        role = self.roles.get(id(network))
        if role is None or role in BUILTINS or network.precision != "float32":
            return super()._infer(network, arrays, batch)
        return [self._infer_elsewhere(role, network, array) for array in arrays]

    def _infer_elsewhere(self, role: str, network: Network, array: NDArray[np.float32]) -> Any:
        from distributed import KilledWorker

        for _ in range(ATTEMPTS):
            future = self._client.submit(
                infer,
                self._model,
                self._trust,
                self._engine,
                role,
                network.digest,
                network.backend,
                array,
                current_share(),
                elsewhere=self._elsewhere,
                pure=False,
            )
            try:
                return future.result()
            except KilledWorker as error:
                ended = error
        raise RunError(f"the workers of this run end: {short_message(ended)}")


def infer(
    model: str,
    trust: bool,
    engine: Any,
    role: str,
    digest: str,
    backend: str,
    array: NDArray[np.float32],
    share: int | None,
    *,
    elsewhere: bool,
) -> Any:
    """Return the output of one input; runs on a worker.

    Raises
    ------
    ParameterError
        If the worker's network is another one than the run's.
    RunError
        If it runs on another back end, whose last bits differ.
    """
    from hrviewer.batch.worker import check_backend, use_engine

    use_engine(engine, elsewhere=elsewhere)
    with _loading:
        network = loaded_models(model, trust=trust)[role]
    if network.digest != digest:
        raise ParameterError(
            f"the workers were started for {model}, and this run has another {role}: start them "
            "for its model"
        )
    check_backend(network, backend)
    with share_cores(share or available_cores()):
        return predict(network, array[None])[0]


@lru_cache(maxsize=2)
def loaded_models(model: str, *, trust: bool) -> LoadedModels:
    """Return a model's networks on this worker, loaded once."""
    return LoadedModels(open_bundle(model, trust), DeviceScheduler())
