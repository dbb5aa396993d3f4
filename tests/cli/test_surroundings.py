"""Commands without caches, home folder, output streams or space: they work, or end in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from failing_files import FailingFiles, failing
from toys import toy_bundle

import hrviewer
from hrviewer.runs import Run

from .calling import IMAGE, RUN, call, error_of, started

CACHED = ("--model", "toy", "--strategy", "patches", "--set", "tile=64")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder that is a file, and no other place for caches and runs."""
    for name in ("HRVIEWER_CACHE", "HRVIEWER_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.write_text("")
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    return home


@pytest.mark.skipif("sys.platform == 'win32'", reason="its folders are not in variables")
def test_without_a_home_folder(no_home: Path, image: Path, toys: None, tmp_path: Path) -> None:
    out = tmp_path / "a.run.zarr"
    call("run", image, *CACHED, "--out", out)
    assert Run(out).complete
    call("info", image)
    assert "cannot be written" in error_of("run", image, *CACHED)


@pytest.mark.parametrize("place", ["a file", "read-only"])
def test_caches_that_cannot_be_written(
    place: str, monkeypatch: pytest.MonkeyPatch, image: Path, toys: None, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    if place == "a file":
        cache.write_text("")
    else:
        cache.mkdir()
        (cache / "results.sqlite").mkdir()  # as root, permissions do not hold
    monkeypatch.setenv("HRVIEWER_CACHE", str(cache))
    out = tmp_path / "a.run.zarr"
    with failing(FailingFiles(cache, 0, "full")):
        call("run", image, *CACHED, "--out", out)
    assert Run(out).complete


def test_a_cache_that_is_deleted_during_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))

    def delete(event: object) -> None:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    runs = [
        hrviewer.run(
            IMAGE, toy_bundle(), "patches", tile=64, out=tmp_path / f"{i}.run.zarr", on_event=act
        )
        for i, act in enumerate((None, delete, None))
    ]
    assert len({run.output.tobytes() for run in runs}) == 1
    assert all(run.complete for run in runs)


def test_a_full_disk_is_one_line_and_the_run_resumes(
    image: Path, toys: None, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "a.run.zarr"
    out.parent.mkdir()
    with failing(FailingFiles(out.parent, 60, "full")):
        line = error_of("run", image, *RUN, "--out", out)
    assert "the disk is full" in line
    assert "resume" in line
    call("run", image, *RUN, "--out", out, "--resume")
    call("run", image, *RUN, "--out", tmp_path / "whole.run.zarr")
    assert Run(out).output.tobytes() == Run(tmp_path / "whole.run.zarr").output.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_closed_output_streams(closed: tuple[int, ...], image: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.run.zarr"
    arguments = ["run", str(image), *RUN, "--out", str(out)]
    process = started(
        "import os, subprocess, sys",
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})",
        "import hrviewer.cli, hrviewer.runs.model",
        "from toys import toy_bundle",
        "hrviewer.runs.model.open_bundle = lambda *_: toy_bundle()",
        f"for i in {closed}: os.close(i)",
        *(f"sys.{'stdout' if i == 1 else 'stderr'} = None" for i in closed),
        f"hrviewer.cli.app({arguments!r})",
    )
    process.communicate()
    assert process.returncode == 0
    assert Run(out).complete
