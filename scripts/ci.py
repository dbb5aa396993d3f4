"""Run the tests as continuous integration does.

    python scripts/ci.py [--minutes 45] [--since EPOCH_SECONDS]

First the tests of ``make test``, then, in the time that is left, the slow ones. A test that fails
runs once more, alone, in a fresh process; if it passes then, it is named as flaky, otherwise the
run fails. A worker that dies is reported with the test it died in, which counts as failed. The
last line is pytest's summary; the exit status says whether everything passed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
MOST_RERUNS = 20  # more failures than these are no accident
ALONE = 8 * 60  # seconds for one test in a process of its own
RESERVE = 4 * 60  # seconds kept for running failed tests once more


@dataclass
class Outcome:
    """What became of the tests of one run."""

    collected: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    not_reached: set[str] = field(default_factory=set)
    unfinished: dict[str, str] = field(default_factory=dict)  # test by process

    @property
    def passed(self) -> set[str]:
        return self.finished - self.failed - self.skipped - self.not_reached

    @property
    def never_ran(self) -> set[str]:
        return self.collected - self.finished - set(self.unfinished.values()) - self.not_reached


def read_record(folder: Path) -> Outcome:
    """Read what every process of a run recorded."""
    outcome = Outcome()
    for file in sorted(folder.glob("*.jsonl")):
        running: str | None = None
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a process that was killed
                continue
            event, test = entry["event"], entry.get("test")
            if event == "collected":
                outcome.collected.update(entry["tests"])
            elif event == "started":
                running = test
            elif event == "finished":
                running = None
                outcome.finished.add(test)
            elif event == "failed":
                outcome.failed.add(test)
            elif event == "skipped":
                outcome.skipped.add(test)
            elif event == "not reached":
                outcome.not_reached.add(test)
        if running is not None:
            outcome.unfinished[file.stem] = running
    return outcome


def run_pytest(arguments: list[str], limit: float, deadline: float | None = None) -> Outcome:
    """Run pytest in a process of its own for at most `limit` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"CI_RECORD": folder}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        if deadline is not None:
            environment["CI_DEADLINE"] = str(deadline)
        command = [
            str(HERE / "headless.sh"),
            *(sys.executable, "-X", "faulthandler", "-m", "pytest", "-p", "ci_record"),
            *arguments,
        ]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            status = process.wait(timeout=max(limit, 1))
        except subprocess.TimeoutExpired:
            print(f"ci: no end after {limit:.0f} s: stopped", flush=True)
            os.killpg(process.pid, 9)
            process.wait()
            status = -9
        outcome = read_record(Path(folder))
    for name, test in outcome.unfinished.items():
        print(f"ci: process {name} died in {test}", flush=True)
        outcome.failed.add(test)
    # Neither all passed, nor some failed, nor none selected: pytest itself broke off.
    if status not in (0, 1, 5) and not outcome.failed:
        outcome.failed.update(outcome.never_ran or {"pytest itself"})
    return outcome


def rerun(failed: set[str], until: float) -> set[str]:
    """Run failed tests alone, each in a fresh process; return those that fail again."""
    if len(failed) > MOST_RERUNS:
        print(f"ci: {len(failed)} tests failed: too many to be accidents", flush=True)
        return failed
    again = set()
    for test in sorted(failed):
        print(f"ci: once more, alone: {test}", flush=True)
        limit = min(ALONE, until - time.time())
        if limit <= 0 or test not in run_pytest(["-q", "-m", "", test], limit).passed:
            again.add(test)
    return again


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests as continuous integration does.")
    parser.add_argument("--minutes", type=float, default=45.0, help="the limit of the whole")
    parser.add_argument("--since", type=float, default=time.time(), help="when the whole began")
    options = parser.parse_args()
    start, end = time.time(), options.since + 60 * options.minutes

    workers = ["-n", "2", "--dist", "loadfile"]
    fast = run_pytest(workers, end - RESERVE - time.time())
    unrun = fast.never_ran
    if unrun:
        print(f"ci: {len(unrun)} tests never ran, among them {min(unrun)}", flush=True)
    broken = rerun(fast.failed, end)

    slow = Outcome()
    room = end - RESERVE - time.time()
    if room > 60 and not broken and not unrun:
        print("ci: the slow tests, in the time that is left", flush=True)
        slow = run_pytest([*workers, "-m", "slow"], room + RESERVE / 2, deadline=end - RESERVE)
        broken |= rerun(slow.failed, end)
        left_out = slow.not_reached | slow.never_ran
        for test in sorted(left_out):
            print(f"ci: not reached: {test}", flush=True)
    else:
        print("ci: no slow test was reached", flush=True)

    flaky = (fast.failed | slow.failed) - broken
    for test in sorted(flaky):
        print(f"ci: FLAKY, it passed alone: {test}", flush=True)
    for test in sorted(broken):
        print(f"ci: FAILED twice: {test}", flush=True)
    counts = {
        "failed": len(broken),
        "passed": len((fast.passed | slow.passed | flaky) - broken),
        "skipped": len(fast.skipped | slow.skipped) - len(slow.not_reached),
        "not reached": len(slow.not_reached | slow.never_ran),
        "never ran": len(unrun),
        "flaky": len(flaky),
    }
    words = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    print(f"===== {words or 'no tests ran'} in {time.time() - start:.2f}s =====", flush=True)
    return int(bool(broken or unrun or not fast.passed))


if __name__ == "__main__":
    sys.exit(main())
