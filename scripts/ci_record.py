"""A pytest plug-in that records what becomes of every test, as it happens.

`scripts/ci.py` loads it. Each process of a run (the workers of xdist, or pytest itself) appends
JSON lines to a file of its own in the folder ``CI_RECORD``, so that a worker that dies still
names the test it died in. A test that has not begun by ``CI_DEADLINE`` (seconds since the epoch)
is skipped and recorded as not reached.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest


class Record:
    """One process's file of events."""

    def __init__(self, folder: Path, process: str) -> None:
        self._file = (folder / f"{process}.jsonl").open("a", encoding="utf-8", buffering=1)
        self._deadline = float(os.environ.get("CI_DEADLINE", "inf"))

    def write(self, event: str, **what: object) -> None:
        self._file.write(json.dumps({"event": event, **what}) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write("collected", tests=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write("started", test=nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.time() > self._deadline:
            self.write("not reached", test=item.nodeid)
            pytest.skip("the time for tests is over")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.write("failed", test=report.nodeid)
        elif report.skipped:
            self.write("skipped", test=report.nodeid)
        if report.when == "teardown":
            self.write("finished", test=report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write("failed", test=report.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Record where tests run: xdist's controller only passes on what its workers report."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None and config.getoption("numprocesses", None):
        return
    config.pluginmanager.register(Record(Path(os.environ["CI_RECORD"]), worker or "main"))
