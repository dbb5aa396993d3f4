"""Properties of every writer: complete files or none, and nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hrviewer.errors import HrviewerError
from hrviewer.io import RunWriter, export, get_writer, writer_names
from hrviewer.io.writers import base


@pytest.mark.parametrize("name", writer_names())
@pytest.mark.parametrize("named", [True, False])
def test_every_format_by_name_and_by_suffix(made, tmp_path, name, named):
    path = tmp_path / ("a.b" if named else f"a{get_writer(name).suffixes[0]}")
    assert export(made(geo=True), str(path), name if named else None) == path
    assert path.exists()
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "geo", "made.run.zarr"])


@pytest.mark.parametrize("name", writer_names())
def test_nothing_is_overwritten(made, tmp_path, name):
    run, taken = made(geo=True), tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(HrviewerError, match="exists"):
        export(run, taken, name)
    assert taken.read_text() == "mine"
    taken.unlink()
    taken.symlink_to(tmp_path / "nowhere")
    with pytest.raises(HrviewerError, match="exists"):
        export(run, taken, name)


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        ("a.docx", None, "known suffix"),
        ("a.geojson", "docx", "no format 'docx'"),
        ("none/a.geojson", None, "no folder"),
    ],
)
def test_errors_are_one_line(made, tmp_path, path, to, message):
    with pytest.raises(HrviewerError, match=message):
        export(made(), tmp_path / path, to)
    assert os.listdir(tmp_path) == ["made.run.zarr"]


@pytest.mark.parametrize("name", writer_names())
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("?")])
def test_no_partial_file_remains(made, tmp_path, monkeypatch, name, error):
    def torn(self, run, target: Path, settings, progress):
        if name == "ome-zarr":
            target.mkdir()
            target /= "0"
        target.write_text("half")
        raise error

    monkeypatch.setattr(type(get_writer(name)), "write", torn)
    with pytest.raises(HrviewerError if isinstance(error, OSError) else type(error)):
        export(made(geo=True), tmp_path / "a", name)
    assert sorted(os.listdir(tmp_path)) == ["geo", "made.run.zarr"]


def test_missing_data_is_reported(made, tmp_path):
    run = made()
    (run.path / "patches.parquet").unlink()
    with pytest.raises(HrviewerError, match="no table of patches"):
        export(run, tmp_path / "a.geojson")
    (run.path / "patches.parquet").write_text("torn")
    with pytest.raises(HrviewerError, match=r"patches\.parquet cannot be read"):
        export(run, tmp_path / "a.geojson")
    for name in ("output", "saliency", "cost"):
        (run.path / name / "zarr.json").unlink()
    for name, message in (("a.ome.zarr", "no maps"), ("a.png", "no output map")):
        with pytest.raises(HrviewerError, match=message):
            export(run, tmp_path / name)


@pytest.mark.parametrize(("to", "key"), [("png", "dpi"), ("geojson", "threshold")])
def test_options_are_checked_in_one_line(made, tmp_path, to, key):
    run = made()
    with pytest.raises(HrviewerError, match=rf"^{to}: {key}: [^\n]+$"):
        export(run, tmp_path / "a", to, **{key: -1})
    with pytest.raises(HrviewerError, match=f"no option 'colour'.*{key}"):
        export(run, tmp_path / "b", to, colour="red")


@pytest.mark.parametrize("name", writer_names())
def test_progress_is_reported(made, tmp_path, name):
    calls: list[tuple[int, int]] = []
    export(made(geo=True), tmp_path / "a", name, lambda *now: calls.append(now))
    assert calls
    assert all(0 <= done <= total for done, total in calls)


class LineWriter(RunWriter):
    """A writer as a plug-in would have it."""

    suffixes = (".line.csv",)
    description = "one line"

    def write(self, run, target, settings, progress):
        target.write_text(run.header["model"])
        progress(1, 1)


@pytest.fixture
def plugins(monkeypatch):
    """Two more entry points: a writer, and one whose package is broken."""
    more = {
        "line": EntryPoint("line", f"{__name__}:LineWriter", base.GROUP),
        "broken": EntryPoint("broken", "no_such_package:Writer", base.GROUP),
    }
    entries = dict(base._installed()) | more
    monkeypatch.setattr(base, "_installed", lambda: entries)
    yield
    base._load.cache_clear()


def test_writers_of_plugins_are_found_by_name_and_suffix(made, tmp_path, plugins):
    assert "line" in writer_names()
    run = made()
    # The longest suffix decides, so .csv does not claim it.
    assert export(run, tmp_path / "a.line.csv").read_text() == "toy"
    assert export(run, tmp_path / "b", "line").read_text() == "toy"
    with pytest.raises(HrviewerError, match="color"):
        export(run, tmp_path / "c", "line", color="red")


def test_broken_writer_affects_no_other(made, tmp_path, plugins):
    run = made()
    assert export(run, tmp_path / "a.geojson").is_file()
    with pytest.raises(HrviewerError, match=r"writer broken .* cannot be imported .*no_such_pack"):
        export(run, tmp_path / "b", "broken")


def test_listing_formats_imports_no_writer():
    code = (
        "import sys, hrviewer.io as io; assert 'geojson' in io.writer_names(); "
        "print([m for m in sys.modules if m.startswith('hrviewer.io.writers.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['hrviewer.io.writers.base']"
