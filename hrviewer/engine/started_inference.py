"""Inference in progress: an output to come, and what makes results of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from hrviewer.engine.device_scheduler import TimedOutput
from hrviewer.engine.inference_result import InferenceResult

__all__ = ["StartedInference"]


@dataclass(frozen=True, eq=False)
class StartedInference:
    """One batch that was read and given to the device.

    Attributes
    ----------
    output : Future or None
        The device's job; None if there is nothing to infer, for example after an error of reading.
    make_results : callable
        Waits for the output and returns the results, one for each part of the batch.
    """

    output: Future[TimedOutput] | None
    make_results: Callable[[], list[InferenceResult]]

    def cancel(self) -> None:
        """Drop the job, unless it runs already."""
        if self.output is not None:
            self.output.cancel()

    @staticmethod
    def failed(results: list[InferenceResult]) -> StartedInference:
        """Return inference that ended before it began, with its failed results."""
        return StartedInference(None, lambda: results)
