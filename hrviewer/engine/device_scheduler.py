"""The threads that run networks.

Jobs are taken by priority, oldest first, and jobs of one network and one input shape travel as a
batch. Networks are also loaded on these threads, so that whatever threads they start inherit their
scheduling. On a GPU two batches are in flight: while one computes, the other is copied. On a CPU
every stream has its part of the cores: two inputs that take one core each never wait for each
other, as one input's two halves do whenever something else takes a core for a moment.
"""

from __future__ import annotations

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
from hrviewer.models import Network
from hrviewer.models.threads import recommended_streams, share_cores

__all__ = ["DeviceScheduler", "Priority", "TimedOutput", "is_out_of_memory", "recommended_streams"]


NICENESS = 10
"""How much a polite device gives way."""
MAX_BATCH = 64
"""The most inputs in a batch."""
MIN_SPEEDUP = 1.05
"""By how much a GPU must be quicker with twice the batch."""


class Priority(IntEnum):
    """Who goes first."""

    LIVE = 0
    RUN = 1
    PREFETCH = 2


@dataclass(frozen=True, slots=True)
class TimedOutput:
    """One input's output and its share of the batch's time."""

    output: Any
    seconds: float


@dataclass(slots=True, eq=False)  # arrays have no one equality to find a job by
class _Job:
    network: Network | None
    work: Any
    future: Future[TimedOutput]
    exclusive: bool = False

    @property
    def batch_key(self) -> object:
        """Jobs of one kind fit one batch."""
        fits = self.network is not None and not self.exclusive
        return (id(self.network), self.work.shape) if fits else id(self)


class _SharedClock:
    """Splits the time in which anything runs evenly among what runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._elapsed, self._since = 0, 0.0, 0.0

    def start(self) -> float:
        """Return when a job begins, to be handed to `stop`."""
        return self._tick(1)

    def stop(self, start: float) -> float:
        """Return a job's seconds: what passed, over how many there were, moment by moment."""
        return self._tick(-1) - start

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return self._running

    def _tick(self, more: int) -> float:
        with self._lock:
            now = time.perf_counter()
            if self._running:
                self._elapsed += (now - self._since) / self._running
            self._running, self._since = self._running + more, now
            return self._elapsed


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a back end failed for want of memory; each has a way of its own to say so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text


def lower_priority() -> None:
    """Let the calling thread, and those it starts, give way to the window.

    Niceness, not ``SCHED_IDLE``: that gives the smoother window, but beside any other busy
    process nothing is looked at any more, and an unprivileged thread cannot leave it again.
    """
    if sys.platform == "linux":  # elsewhere niceness is of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class DeviceScheduler:
    """A device's queue and thread.

    Parameters
    ----------
    batch : int
        Inputs per call, until `autotune_batch` finds what a GPU does best with. One is best for
        the tiles of a CPU, and makes results independent of who shared the batch; larger batches
        are filled up with zeros for the same reason.
    low_priority : bool
        Give way to everything else on the machine, for use beside a window (Linux).
    streams : int
        How many batches are run at once, each by a thread and with its part of the cores.

    Attributes
    ----------
    buffers : Spares
        Where inputs may be prepared.
    """

    def __init__(self, batch: int = 1, *, low_priority: bool = False, streams: int = 1) -> None:
        self.batch, self.streams = batch, streams
        self._clock, self._autotuned = _SharedClock(), False
        self.buffers = BufferPool()
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

        One that is waited for `exclusive` has all cores, and no batch.
        """
        return self._enqueue(_Job(network, array, Future(), exclusive), priority)

    def call(
        self, work: Callable[[], Any], priority: Priority = Priority.RUN
    ) -> Future[TimedOutput]:
        """Queue anything else that belongs on these threads; it has all cores."""
        return self._enqueue(_Job(None, work, Future()), priority)

    @property
    def running(self) -> int:
        """How many batches, and other jobs, run now."""
        return self._clock.running

    def close(self) -> None:
        """Finish what runs, drop what waits, end the thread."""
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
        """Find the batch that suits a network's tiles on a GPU, where none was found before.

        On the device's own thread. It is doubled as long as that pays and there is memory.
        """
        if not network.device.startswith("cuda") or self._autotuned:
            return
        self._autotuned = True
        self._start_threads(2)
        it = network.card.input
        side = it.tile if it.fixed else it.tile + 2 * network.halo
        best = 0.0
        for batch in (2**k for k in range(MAX_BATCH.bit_length())):
            if batch > (network.max_batch or MAX_BATCH):
                break
            inputs = np.zeros((batch, it.channel_count, side, side), np.float32)
            try:
                network(inputs)  # warms up
                start = time.perf_counter()
                network(inputs)
                rate = batch / (time.perf_counter() - start)
            except MemoryError:
                break
            if rate < MIN_SPEEDUP * best:
                break
            self.batch, best = batch, rate

    def _start_threads(self, count: int) -> None:
        """Have at least so many threads."""
        while len(self._threads) < count:
            thread = threading.Thread(target=self._run_jobs, name="hrviewer-device", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _enqueue(self, job: _Job, priority: Priority) -> Future[TimedOutput]:
        with self._wake:
            if self._closed:
                raise RuntimeError("the device is closed")
            self._queues[priority].append(job)
            self._wake.notify()
        return job.future

    def _next_batch(self) -> list[_Job]:
        """Wait for work; return a batch of one kind, empty when closed."""
        with self._wake:
            while True:
                for queue in self._queues.values():
                    jobs: list[_Job] = []
                    for job in list(queue):
                        if jobs and job.batch_key != jobs[0].batch_key:
                            continue
                        queue.remove(job)
                        if job.future.set_running_or_notify_cancel():
                            jobs.append(job)
                        if len(jobs) == self.batch:
                            break
                    if jobs:
                        return jobs
                if self._closed:
                    return []
                self._wake.wait()

    def _run_jobs(self) -> None:
        if self._low_priority:
            lower_priority()
        while jobs := self._next_batch():
            self._run_batch(jobs)

    def _run_batch(self, jobs: list[_Job]) -> None:
        if len(jobs) > self.batch:
            self._run_split(jobs, self.batch)
            return
        start = self._clock.start()
        try:
            network, whole = jobs[0].network, jobs[0].network is None or jobs[0].exclusive
            with share_cores(1 if whole else self.streams):
                if network is None:
                    outputs: Any = [jobs[0].work()]
                else:
                    batch = 1 if whole else self.batch
                    outputs = self._infer(network, [job.work for job in jobs], batch)
        except BaseException as error:
            self._clock.stop(start)
            if is_out_of_memory(error) and jobs[0].network is not None and self.batch > 1:
                self.batch //= 2
                self._run_split(jobs, self.batch)
            elif len(jobs) > 1:
                self._run_split(jobs, 1)  # one of them is at fault
            else:
                jobs[0].future.set_exception(error)
            return
        seconds = self._clock.stop(start) / len(jobs)
        for job, output in zip(jobs, outputs, strict=False):
            job.future.set_result(TimedOutput(output, seconds))

    def _run_split(self, jobs: list[_Job], size: int) -> None:
        for i in range(0, len(jobs), size):
            self._run_batch(jobs[i : i + size])

    def _infer(self, network: Network, arrays: list[NDArray[np.float32]], batch: int) -> Any:
        if batch == 1:
            return network(arrays[0][None])  # a tile need not be copied
        full = np.zeros((batch, *arrays[0].shape), np.float32)
        for row, array in zip(full, arrays, strict=False):
            row[:] = array
        return network(full)[: len(arrays)]
