"""Measurements of a model at one input size, in a process that may run out of memory."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrviewer.engine import RunControl
from hrviewer.errors import ModelError, RunError
from hrviewer.models import ModelCard

__all__ = ["SizeTrials", "SquareCost"]


@dataclass(frozen=True)
class SquareCost:
    """Cost of inference on one square."""

    side: int
    flops: float
    seconds: float
    peak_bytes: float


class SizeTrials:
    """Runs squares in another process, which is restarted after it ran out of memory.

    Parameters
    ----------
    weights, card, device
        The model file, its card, and the device.
    limit : int
        Memory limit, bytes.
    control : RunControl
        Stops the measurements.
    trust : bool
        Whether weights that can run code when opened are allowed.
    """

    def __init__(
        self,
        weights: Path,
        card: ModelCard,
        device: str,
        limit: int,
        control: RunControl,
        trust: bool = False,
    ) -> None:
        arguments = [str(weights), device, str(limit), *["trust"] * trust]
        self._command = [sys.executable, "-m", "hrviewer.models.size_trial", *arguments]
        self._card = card.model_dump_json(exclude_none=True)
        self._control = control
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.info: dict[str, Any] = {}

    def __enter__(self) -> SizeTrials:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def stopped(self) -> bool:
        """Whether the user stopped the measurements."""
        return self._control.stopped

    def should_continue(self) -> bool:
        """Return whether to go on."""
        return not self.stopped

    def __call__(self, side: int) -> SquareCost | None:
        """Run a square; None if it did not fit."""
        if self._process is None:
            self._start()
        self._write(str(side))
        reply = self._read_reply()
        if reply is None:
            self._stop()
            return None
        if not reply.pop("fits"):
            return None
        return SquareCost(**reply)

    def _start(self) -> None:
        self._replies = queue.SimpleQueue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(
            target=self._read_lines, args=(self._process, self._replies), daemon=True
        ).start()
        self._write(self._card)
        info = self._read_reply()
        if info is None:
            self._stop()
            if self.stopped:
                raise RunError("stopped before the model was loaded")
            raise ModelError("the model alone does not fit into the memory: allow more")
        if "error" in info:
            self._stop()
            raise ModelError(info["error"])
        self.info = info

    def _write(self, line: str) -> None:
        """Send a line; a process that has ended is noticed when its reply is read."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.write(f"{line}\n")
                process.stdin.flush()

    @staticmethod
    def _read_lines(process: subprocess.Popen[str], replies: queue.SimpleQueue[str | None]) -> None:
        with process.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                replies.put(line)
        replies.put(None)

    def _read_reply(self) -> dict[str, Any] | None:
        """Wait for a reply; None if the process ended or the user stopped it."""
        while not self.stopped:
            try:
                line = self._replies.get(timeout=0.1)
            except queue.Empty:
                continue
            return None if line is None else json.loads(line)
        return None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
