"""Failures in `.ci/run`: run once more alone, flaky ones named, dead workers reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / "scripts" / "ci.py"

CONFTEST = """
def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes")
"""

PASSING = """
import pytest

def test_passes():
    assert True

@pytest.mark.slow
def test_slow():
    assert True
"""

FLAKY = """
from pathlib import Path

def test_flaky():
    first = Path("first")
    if not first.exists():
        first.touch()
        assert False
"""

DEADLY = """
import os

def test_deadly():
    os._exit(1)
"""

FAILING = """
def test_fails():
    assert False
"""


def ci(folder: Path, minutes: float = 10, **files: str) -> tuple[int, list[str]]:
    """Run scripts/ci.py over test files; return its status and the lines that are its own."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -m 'not slow'\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, str(CI), "--minutes", str(minutes)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done.returncode, [line for line in lines if line.startswith("ci:")] + lines[-1:]


@pytest.mark.slow
def test_a_flaky_test_is_named_and_passes(tmp_path):
    status, lines = ci(tmp_path, passing=PASSING, flaky=FLAKY)
    assert status == 0
    assert "ci: FLAKY, it passed alone: test_flaky.py::test_flaky" in lines
    assert lines[-1].startswith("===== 3 passed, 1 flaky in ")


@pytest.mark.slow
def test_a_dead_worker_is_reported_with_its_last_test(tmp_path):
    status, lines = ci(tmp_path, passing=PASSING, deadly=DEADLY)
    assert status == 1
    assert any(line.endswith("died in test_deadly.py::test_deadly") for line in lines)
    assert "ci: FAILED twice: test_deadly.py::test_deadly" in lines


@pytest.mark.slow
def test_a_failure_fails_the_run(tmp_path):
    status, lines = ci(tmp_path, passing=PASSING, failing=FAILING)
    assert status == 1
    assert "ci: no slow test was reached" in lines
    assert lines[-1].startswith("===== 1 failed, 1 passed in ")
