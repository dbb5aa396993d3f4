"""`doctor`: a report that never fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hrviewer.cli import doctor

from .calling import call

TITLES = ["versions", "hardware", "display", "folders", "models", "plug-ins", "environment"]


@pytest.fixture
def quick(monkeypatch):
    """Replace the probes of drivers, which take seconds."""
    monkeypatch.setattr(doctor, "probe", lambda name, code: [(name, "probed")])


def test_report_has_every_section(quick, monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "big.bin").write_bytes(b"0" * 3000)
    report = json.loads(call("doctor", "--json").stdout)
    assert list(report) == TITLES
    assert "numpy" in report["versions"]["packages"]
    assert report["hardware"]["torch"] == "probed"
    assert report["folders"]["  big.bin"] == "3 kB"
    assert "patches" in report["plug-ins"]["strategies"]
    assert "geojson" in report["plug-ins"]["writers"]
    assert report["environment"]["HRVIEWER_CACHE"].endswith("cache")
    text = call("doctor").stdout
    assert [line for line in text.splitlines() if line.startswith("[")] == [
        f"[{t}]" for t in TITLES
    ]


def test_errors_are_part_of_the_report(quick, monkeypatch):
    def broken(*_, **__):
        raise OSError("disk on fire")

    for name in ("version", "entry_points"):
        monkeypatch.setattr(doctor, name, broken)
    monkeypatch.setattr("hrviewer.models.installed_bundles", broken)
    report = json.loads(call("doctor", "--json").stdout)
    for title in ("versions", "plug-ins", "models"):
        assert report[title] == {"error": "OSError: disk on fire"}


def test_broken_model_is_listed(quick, monkeypatch):
    class Broken:
        def load(self):
            raise ImportError("no such\nmodule")

    monkeypatch.setattr("hrviewer.models.installed_bundles", lambda: {"bad": Broken()})
    report = json.loads(call("doctor", "--json").stdout)
    assert report["models"] == {"bad": "cannot be loaded: no such module"}


def test_crashing_and_failing_probes_are_errors():
    assert doctor.probe("gl", 'print(\'[["a", "b"]]\')') == [("a", "b")]
    assert doctor.probe("gl", "import os; os.abort()") == [("gl", "error: exit status -6")]
    ((_, text),) = doctor.probe("gl", "1 / 0")
    assert "ZeroDivisionError" in text
    ((_, text),) = doctor.probe("gl", "print('no JSON')")
    assert text.startswith("error")


def test_home_folder_is_hidden():
    home = Path.home()
    assert doctor.collect(lambda: [("a", f"{home}/x")]) == [("a", "~/x")]
