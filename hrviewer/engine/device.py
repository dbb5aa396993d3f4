"""The thread that runs networks; two, on a GPU.

Jobs are taken by priority, oldest first, and jobs of one network and one input shape travel as a
batch. Networks are also loaded on this thread, so that whatever threads they start inherit its
scheduling. On a GPU two batches are in flight: while one computes, the other is copied.
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

from hrviewer.models import Network

__all__ = ["Device", "Inferred", "Priority", "is_out_of_memory"]


NICE = 10
"""How much a polite device gives way."""
LARGEST = 64
"""The most inputs in a batch."""
PAYS = 1.05
"""By how much a GPU must be quicker with twice the batch."""


class Priority(IntEnum):
    """Who goes first."""

    LIVE = 0
    RUN = 1
    PREFETCH = 2


@dataclass(frozen=True, slots=True)
class Inferred:
    """One input's output and its share of the batch's time."""

    output: Any
    seconds: float


@dataclass(slots=True, eq=False)  # arrays have no one equality to find a job by
class _Job:
    network: Network | None
    work: Any
    future: Future[Inferred]

    @property
    def kind(self) -> object:
        """Jobs of one kind fit one batch."""
        return (id(self.network), self.work.shape) if self.network is not None else id(self)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a back end failed for want of memory; each has a way of its own to say so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text


def give_way() -> None:
    """Let the calling thread, and those it starts, give way to the window.

    Niceness, not ``SCHED_IDLE``: that gives the smoother window, but beside any other busy
    process nothing is looked at any more, and an unprivileged thread cannot leave it again.
    """
    if sys.platform == "linux":  # elsewhere niceness is of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Device:
    """A device's queue and thread.

    Parameters
    ----------
    batch : int
        Inputs per call, until `suit` finds what a GPU does best with. One is best for the tiles
        of a CPU, and makes results independent of who shared the batch; larger batches are
        filled up with zeros for the same reason.
    polite : bool
        Give way to everything else on the machine, for use beside a window (Linux).
    """

    def __init__(self, batch: int = 1, *, polite: bool = False) -> None:
        self.batch = batch
        self._polite = polite
        self._queues: dict[Priority, deque[_Job]] = {priority: deque() for priority in Priority}
        self._wake = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._hire()

    def submit(
        self, network: Network, array: NDArray[np.float32], priority: Priority = Priority.RUN
    ) -> Future[Inferred]:
        """Queue one input, ``(C, h, w)``; the future gives its output, ``(k, rows, columns)``."""
        return self._put(_Job(network, array, Future()), priority)

    def call(self, work: Callable[[], Any], priority: Priority = Priority.RUN) -> Future[Inferred]:
        """Queue anything else that belongs on this thread."""
        return self._put(_Job(None, work, Future()), priority)

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

    def suit(self, network: Network) -> None:
        """Find the batch that suits a network's tiles on a GPU, where none was found before.

        On the device's own thread. It is doubled as long as that pays and there is memory.
        """
        if not network.device.startswith("cuda") or len(self._threads) > 1:
            return
        self._hire()
        it = network.card.input
        side = it.tile if it.fixed else it.tile + 2 * network.halo
        best = 0.0
        for batch in (2**k for k in range(LARGEST.bit_length())):
            if batch > (network.batch or LARGEST):
                break
            inputs = np.zeros((batch, it.count, side, side), np.float32)
            try:
                network(inputs)  # warms up
                start = time.perf_counter()
                network(inputs)
                rate = batch / (time.perf_counter() - start)
            except MemoryError:
                break
            if rate < PAYS * best:
                break
            self.batch, best = batch, rate

    def _hire(self) -> None:
        thread = threading.Thread(target=self._serve, name="hrviewer-device", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _put(self, job: _Job, priority: Priority) -> Future[Inferred]:
        with self._wake:
            if self._closed:
                raise RuntimeError("the device is closed")
            self._queues[priority].append(job)
            self._wake.notify()
        return job.future

    def _take(self) -> list[_Job]:
        """Wait for work; return a batch of one kind, empty when closed."""
        with self._wake:
            while True:
                for queue in self._queues.values():
                    jobs: list[_Job] = []
                    for job in list(queue):
                        if jobs and job.kind != jobs[0].kind:
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

    def _serve(self) -> None:
        if self._polite:
            give_way()
        while jobs := self._take():
            self._run(jobs)

    def _run(self, jobs: list[_Job]) -> None:
        if len(jobs) > self.batch:
            self._run_apart(jobs, self.batch)
            return
        start = time.perf_counter()
        try:
            if jobs[0].network is None:
                outputs: Any = [jobs[0].work()]
            else:
                outputs = self._infer(jobs[0].network, [job.work for job in jobs])
        except BaseException as error:
            if is_out_of_memory(error) and jobs[0].network is not None and self.batch > 1:
                self.batch //= 2
                self._run_apart(jobs, self.batch)
            elif len(jobs) > 1:
                self._run_apart(jobs, 1)  # one of them is at fault
            else:
                jobs[0].future.set_exception(error)
            return
        seconds = (time.perf_counter() - start) / len(jobs)
        for job, output in zip(jobs, outputs, strict=False):
            job.future.set_result(Inferred(output, seconds))

    def _run_apart(self, jobs: list[_Job], part: int) -> None:
        for i in range(0, len(jobs), part):
            self._run(jobs[i : i + part])

    def _infer(self, network: Network, arrays: list[NDArray[np.float32]]) -> Any:
        full = np.zeros((self.batch, *arrays[0].shape), np.float32)
        for row, array in zip(full, arrays, strict=False):
            row[:] = array
        return network(full)[: len(arrays)]
