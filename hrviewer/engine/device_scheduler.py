"""Scheduler of inference on one device: priority queues, batches and threads.

Jobs are taken by priority, oldest first, and jobs of one network and one input shape form a batch.
Networks are also loaded on these threads, so that the threads they start inherit the scheduling.
On a GPU two batches are in flight: while one computes, the other is copied. On a CPU every stream
has its share of the cores: two inputs on one core each never wait for each other, as two halves of
one input do when another process takes a core for a moment.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.buffer_pool import BufferPool
from hrviewer.errors import HrviewerError, short_message
from hrviewer.models import Network
from hrviewer.models.threads import recommended_streams, share_cores
from hrviewer.objects import CANDIDATE_SCORE

__all__ = ["DeviceScheduler", "Priority", "TimedOutput", "is_out_of_memory", "recommended_streams"]

log = logging.getLogger(__name__)

NICENESS = 10
"""Niceness of the threads of a scheduler of low priority."""
MAX_BATCH = 64
"""Most inputs in a batch."""
MIN_SPEEDUP = 1.05
"""Speed-up by which a GPU must profit from twice the batch."""


RECOVERY_BATCHES = 64
"""Batches after which a halved batch is doubled again; twice as many after each failure."""

LARGE_INPUT = 8 << 20
"""Bytes of an input from which on it gets all cores of a CPU, one such input at a time."""


class Priority(IntEnum):
    """Priority of jobs, the most urgent first."""

    LIVE = 0
    RUN = 1
    PREFETCH = 2


@dataclass(frozen=True, slots=True)
class TimedOutput:
    """One input's output and its share of the batch's time."""

    output: Any
    seconds: float


@dataclass(slots=True, eq=False)  # compared by identity, since arrays have no single truth value
class _Job:
    network: Network | None
    work: Any
    future: Future[TimedOutput]
    exclusive: bool = False

    @property
    def batch_key(self) -> object:
        """Jobs of the same key fit one batch."""
        return id(self) if self.alone else (id(self.network), self.work.shape)

    @property
    def alone(self) -> bool:
        """Whether it gets all cores, and is not batched."""
        return self.network is None or self.exclusive or self.large

    @property
    def one_thread(self) -> bool:
        """Whether it runs on the first thread only.

        Large inputs, one at a time, in the memory of one thread; and all on Apple's GPUs: torch's
        stream there is not safe for several (pytorch/pytorch#197805).
        """
        return self.large or (self.network is not None and self.network.device == "mps")

    @property
    def large(self) -> bool:
        """Whether the input is shared by all cores of a CPU, so that memory stays bounded."""
        on_cpu = self.network is not None and self.network.device == "cpu"
        return on_cpu and self.work.nbytes >= LARGE_INPUT


@dataclass(slots=True)
class _BatchSize:
    """Inputs per call on a device: halved when memory does not suffice, doubled again later."""

    full: int
    now: int = 0
    patience: int = 0
    succeeded: int = 0

    def __post_init__(self) -> None:
        self.now, self.patience = self.full, RECOVERY_BATCHES

    def fail(self) -> None:
        """Halve the batch, and wait longer before it is doubled again."""
        self.now, self.succeeded = max(1, self.now // 2), 0
        self.patience *= 2

    def succeed(self) -> None:
        """Count a batch that fitted."""
        self.succeeded += 1
        if self.now < self.full and self.succeeded >= self.patience:
            self.now, self.succeeded = min(self.full, 2 * self.now), 0


class _SharedClock:
    """A clock that splits the time evenly among the jobs that run at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._elapsed, self._since = 0, 0.0, 0.0

    def start(self) -> float:
        """Begin a job; return the value to pass to `stop`."""
        return self._tick(1)

    def stop(self, start: float) -> float:
        """End a job; return its seconds: elapsed time over the number of jobs at each moment."""
        return self._tick(-1) - start

    @property
    def running(self) -> int:
        """Number of running jobs."""
        return self._running

    def _tick(self, more: int) -> float:
        with self._lock:
            now = time.perf_counter()
            if self._running:
                self._elapsed += (now - self._since) / self._running
            self._running, self._since = self._running + more, now
            return self._elapsed


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a back end ran out of memory; each reports it in a different way."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text


def lower_priority() -> None:
    """Lower the scheduling priority of the calling thread, and of those it starts (Linux).

    By niceness, not ``SCHED_IDLE``: that keeps the window smoother, but next to any other busy
    process inference stops, and an unprivileged thread cannot leave it again.
    """
    if sys.platform == "linux":  # elsewhere niceness applies to the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class DeviceScheduler:
    """Queues and threads of one device.

    Parameters
    ----------
    batch : int
        Inputs per call, until `autotune_batch` finds the fastest for a GPU. One is best for tiles
        on a CPU, and makes results independent of the other inputs in a batch; larger batches are
        padded with zeros for the same reason.
    low_priority : bool
        Run below other processes, for use beside a window (Linux).
    streams : int
        Number of batches that run at once, each on a thread with its share of the cores.

    Attributes
    ----------
    buffers : BufferPool
        Buffers in which inputs may be prepared.
    roles : dict of int to str
        Roles of the networks that were loaded for it, by their identity.
    """

    def __init__(self, batch: int = 1, *, low_priority: bool = False, streams: int = 1) -> None:
        self.streams = streams
        self._initial, self._main_device = batch, "cpu"
        self._batches: dict[str, _BatchSize] = {}
        self._clock = _SharedClock()
        self._active, self._retrying = 0, 0
        self.buffers = BufferPool()
        self.roles: dict[int, str] = {}
        self._low_priority = low_priority
        self._queues: dict[Priority, deque[_Job]] = {priority: deque() for priority in Priority}
        self._wake = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._start_threads(streams)

    def submit(
        self,
        network: Network,
        array: NDArray[np.float32],
        priority: Priority = Priority.RUN,
        *,
        exclusive: bool = False,
    ) -> Future[TimedOutput]:
        """Queue one input, ``(C, h, w)``; the future gives its output, ``(k, rows, columns)``.

        The output of a detector is its `Detections`, all down to a low score.

        An `exclusive` input gets all cores and is not batched.
        """
        return self._enqueue(_Job(network, array, Future(), exclusive), priority)

    def call(
        self, work: Callable[[], Any], priority: Priority = Priority.RUN
    ) -> Future[TimedOutput]:
        """Queue any other work for these threads; it gets all cores."""
        return self._enqueue(_Job(None, work, Future()), priority)

    @property
    def batch(self) -> int:
        """Inputs per call on the device of the main network."""
        return self._size_on(self._main_device).now

    @batch.setter
    def batch(self, batch: int) -> None:
        self._batches[self._main_device] = _BatchSize(batch)

    def _size_on(self, device: str) -> _BatchSize:
        """Return the batch size on a device; one found for another is of no use."""
        return self._batches.setdefault(device, _BatchSize(self._initial))

    @property
    def in_flight(self) -> int:
        """Number of inputs that may run at once."""
        return self.batch * self.streams

    @property
    def running(self) -> int:
        """Number of running batches and other jobs."""
        return self._clock.running

    def close(self) -> None:
        """Finish running jobs, cancel waiting ones, end the threads."""
        with self._wake:
            self._closed = True
            for queue in self._queues.values():
                while queue:
                    queue.popleft().future.cancel()
            self._wake.notify_all()
        for thread in self._threads:
            if threading.current_thread() is not thread:
                thread.join()

    def autotune_batch(self, network: Network) -> None:
        """Find the fastest batch size for the main network's tiles on a GPU.

        Called on one of its threads. The size is doubled while that is faster and fits in memory.
        """
        self._main_device = network.device
        if not network.device.startswith("cuda"):
            return
        self._start_threads(2)
        if ("batch",) in network.measurements:
            self.batch = network.measurements["batch",]
            return
        card = network.card.input
        side = card.tile if card.fixed else card.tile + 2 * network.halo
        best, chosen = 0.0, 1
        for batch in (2**k for k in range(MAX_BATCH.bit_length())):
            if batch > (network.max_batch or MAX_BATCH):
                break
            inputs = np.zeros((batch, card.channel_count, side, side), np.float32)
            try:
                network(inputs)  # warms up
                start = time.perf_counter()
                network(inputs)
                rate = batch / (time.perf_counter() - start)
            except MemoryError:
                break
            if rate < MIN_SPEEDUP * best:
                break
            chosen, best = batch, rate
        self.batch = network.measurements["batch",] = chosen
        log.info("batches of %d inputs on %s", self.batch, network.device)

    def batch_for(self, network: Network | None, array: Any) -> int:
        """Return the number of inputs in a batch: on a GPU, fewer than `batch` of large ones."""
        if network is None:
            return 1
        batch = self._size_on(network.device).now
        if network.device == "cpu":
            return batch
        tile = network.card.input.tile + 2 * network.halo
        pixels = int(math.prod(array.shape[-2:]))
        return max(1, min(batch, batch * tile**2 // pixels))

    def _start_threads(self, count: int) -> None:
        """Start threads until there are `count`."""
        while len(self._threads) < count:
            thread = threading.Thread(target=self._run_jobs, name="hrviewer-device", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _enqueue(self, job: _Job, priority: Priority) -> Future[TimedOutput]:
        with self._wake:
            if self._closed:
                raise RuntimeError("the device is closed")
            self._queues[priority].append(job)
            self._wake.notify_all()  # not every thread takes every job
        return job.future

    def _next_batch(self) -> list[_Job]:
        """Wait for work; return jobs of the same batch key, none when closed."""
        with self._wake:
            while True:
                # A batch that is tried again has the device's memory for itself.
                for queue in self._queues.values() if not self._retrying else ():
                    jobs: list[_Job] = []
                    for job in list(queue):
                        if jobs and job.batch_key != jobs[0].batch_key:
                            continue
                        first = threading.current_thread() is self._threads[0]
                        if not first and self._needs_first_thread(job):
                            continue
                        queue.remove(job)
                        if job.future.set_running_or_notify_cancel():
                            jobs.append(job)
                        if jobs and len(jobs) >= self.batch_for(jobs[0].network, jobs[0].work):
                            break
                    if jobs:
                        self._active += 1
                        return jobs
                if self._closed:
                    return []
                self._wake.wait()

    def _needs_first_thread(self, job: _Job) -> bool:
        return job.one_thread

    def _run_jobs(self) -> None:
        if self._low_priority:
            lower_priority()
        while jobs := self._next_batch():
            try:
                self._run_batch(jobs)
            finally:
                with self._wake:
                    self._active -= 1
                    self._wake.notify_all()

    def _run_batch(self, jobs: list[_Job]) -> None:
        network, alone = jobs[0].network, jobs[0].alone
        batch = 1 if alone else self.batch_for(network, jobs[0].work)
        if len(jobs) > batch:
            self._run_split(jobs, batch)
            return
        error = self._attempt(jobs, batch, alone)
        if error is None:
            if network is not None:
                self._size_on(network.device).succeed()
        elif is_out_of_memory(error) and network is not None and batch > 1:
            size = self._size_on(network.device)
            size.fail()
            log.warning("out of memory: batches of %d tiles from now on", size.now)
            self._run_split(jobs, max(1, batch // 2))
        elif len(jobs) > 1:
            self._run_split(jobs, 1)  # find the one at fault
        elif is_out_of_memory(error):
            self._retry_alone(jobs, alone)
        else:
            jobs[0].future.set_exception(error)

    def _attempt(self, jobs: list[_Job], batch: int, alone: bool) -> BaseException | None:
        """Run jobs as one batch, and set their results; return the error, if there is one.

        An error for lack of memory is returned without its frames: they hold the inputs and
        activations of the failed attempt, which the next one needs.
        """
        network, start = jobs[0].network, self._clock.start()
        try:
            with share_cores(1 if alone else self.streams):
                if network is None:
                    outputs: Any = [jobs[0].work()]
                else:
                    outputs = self._infer(network, [job.work for job in jobs], batch)
        except BaseException as error:
            self._clock.stop(start)
            if not is_out_of_memory(error):
                return error
            if isinstance(error, HrviewerError):
                return type(error)(str(error))
            return MemoryError(short_message(error))
        seconds = self._clock.stop(start) / len(jobs)
        for job, output in zip(jobs, outputs, strict=False):
            job.future.set_result(TimedOutput(output, seconds))
        return None

    def _retry_alone(self, jobs: list[_Job], alone: bool) -> None:
        """Run a job for which memory did not suffice again, while no other runs."""
        with self._wake:
            self._retrying += 1
            self._active -= 1  # two that wait for one another
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._active == 0)
            self._active += 1
        try:
            error = self._attempt(jobs, 1, alone)
        finally:
            with self._wake:
                self._retrying -= 1
                self._wake.notify_all()
        if error is not None:
            jobs[0].future.set_exception(error)

    def _run_split(self, jobs: list[_Job], size: int) -> None:
        for i in range(0, len(jobs), size):
            self._run_batch(jobs[i : i + size])

    def _infer(self, network: Network, arrays: list[NDArray[np.float32]], batch: int) -> Any:
        if batch == 1:
            return predict(network, arrays[0][None])  # a tile need not be copied
        full = np.zeros((batch, *arrays[0].shape), np.float32)
        for row, array in zip(full, arrays, strict=False):
            row[:] = array
        return predict(network, full)[: len(arrays)]


def predict(network: Network, batch: NDArray[np.float32]) -> Any:
    """Return the output map of each input, or a detector's candidates for objects."""
    if network.card.detects:
        return network.detect(batch, CANDIDATE_SCORE, overlap=1.0)
    return network(batch)
