"""Requests whose parts are one input or one batch: warps, tokens and feature maps.

One thread reads and prepares a batch while the device runs the one before, and gives it to the
device, so that neither waits for the other. Batches follow from the requests alone, and are read
and run in their order: neither bits nor costs depend on how far reading is ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

from hrviewer.engine.cache import ResultCache
from hrviewer.engine.feature_inference import run_on_features
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.run_control import RunControl, RunStopped
from hrviewer.engine.started_inference import StartedInference
from hrviewer.engine.token_inference import start_tokens
from hrviewer.engine.warp_inference import start_warp
from hrviewer.strategies import FeatureRequest, PatchRequest, WarpRequest

__all__ = ["JointInference", "JointRequest", "TokenBatch"]

JointRequest = PatchRequest | WarpRequest | FeatureRequest
TokenBatch = Sequence[Sequence[int]]
"""Indices of a request's parts by group; ``[[0]]`` for a request of one part."""

_Work = Future[StartedInference] | list[InferenceResult]

STARTED_BATCHES = 2
"""Batches that are read or inferred at once."""


class JointInference:
    """The joint requests of one pipeline.

    Parameters
    ----------
    context : InferenceContext
        Image, networks and device.
    control : RunControl
        Pauses and stops the run.
    cache : ResultCache, optional
        Results of earlier inference.
    key : callable
        Returns the cache key of a batch of a request.
    """

    def __init__(
        self,
        context: InferenceContext,
        control: RunControl,
        cache: ResultCache | None,
        key: Callable[[JointRequest, TokenBatch], str],
    ) -> None:
        self._context, self._control, self._cache, self._key = context, control, cache, key
        self._reader: ThreadPoolExecutor | None = None
        self._expected: dict[str, Future[StartedInference]] = {}

    def run(
        self,
        request: JointRequest,
        batches: Sequence[list[list[int]]],
        following: JointRequest | None = None,
    ) -> Iterator[tuple[int, InferenceResult]]:
        """Yield the index and the result of each part of a request, batch by batch.

        Parameters
        ----------
        request
            The request.
        batches
            Its parts.
        following
            The request of one part that comes next, which is started before this one ends.
        """
        started: deque[tuple[list[list[int]], str, _Work]] = deque()
        coming = iter(batches)
        try:
            while True:
                for groups in islice(coming, STARTED_BATCHES - len(started)):
                    key = self._key(request, groups)
                    started.append((groups, key, self._start(key, request, groups)))
                if not started:
                    return
                if following is not None and len(started) < STARTED_BATCHES:
                    self._expect(following)
                    following = None
                groups, key, work = started.popleft()
                results = self._finish(key, work)
                yield from zip(chain.from_iterable(groups), results, strict=True)
                if not self._control.wait():
                    raise RunStopped
        finally:
            for _, _, work in started:
                _drop(work)

    def close(self) -> None:
        """Drop what was started and not used; end the thread."""
        for work in self._expected.values():
            _drop(work)
        self._expected.clear()
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _expect(self, request: JointRequest) -> None:
        key = self._key(request, [[0]])
        work = self._start(key, request, [[0]])
        if isinstance(work, Future):
            self._expected[key] = work

    def _start(self, key: str, request: JointRequest, groups: list[list[int]]) -> _Work:
        """Return a batch's cached results, or the inference in progress, or that starts now."""
        if key in self._expected:
            return self._expected.pop(key)
        cached = self._cache.get(key) if self._cache is not None else None
        if cached is not None:
            return cached
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="hrviewer-reader")
        return self._reader.submit(self._read, request, groups)

    def _read(self, request: JointRequest, groups: list[list[int]]) -> StartedInference:
        context, network = self._context, self._context.models[request.role]
        if isinstance(request, PatchRequest):
            return start_tokens(context, network, request, groups)
        if isinstance(request, WarpRequest):
            return start_warp(context, network, request)
        return StartedInference(None, lambda: run_on_features(context, network, request))

    def _finish(self, key: str, work: _Work) -> list[InferenceResult]:
        """Return the results of a batch, once they are computed."""
        if not isinstance(work, Future):
            return work
        results = work.result().make_results()
        if self._cache is not None:
            self._cache.put(key, results)
        return results


def _drop(work: _Work) -> None:
    """Cancel what was started, or what its reading starts."""

    def cancel(done: Future[StartedInference]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().cancel()

    if isinstance(work, Future) and not work.cancel():
        work.add_done_callback(cancel)
