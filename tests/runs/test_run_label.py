"""Tests of titles and notes of runs, and of their removal."""

from __future__ import annotations

import numpy as np
import pytest
from toys import toy_bundle

import hrviewer
from hrviewer.claims import claim_folder
from hrviewer.errors import HrviewerError
from hrviewer.pyramid import open_pyramid
from hrviewer.runs.run_index import list_runs
from hrviewer.runs.run_label import RunLabel, delete_run, read_label, write_label


@pytest.fixture
def run(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    return hrviewer.run(
        image, toy_bundle(), "patches", out=tmp_path / "a.run.zarr", progress=False, device="cpu"
    )


def test_a_title_stands_in_the_list(run, tmp_path):
    assert read_label(run.path) == RunLabel()
    write_label(run.path, RunLabel(title="before staining", note="see page 3"))
    write_label(run.path, read_label(run.path).model_copy(update={"title": "after staining"}))
    with open_pyramid(np.zeros((64, 64, 3), np.uint8)) as image:
        (entry,) = list_runs(image.image_key, [tmp_path])
    assert (entry.title, entry.label.note) == ("after staining", "see page 3")
    write_label(run.path, RunLabel())
    with open_pyramid(np.zeros((64, 64, 3), np.uint8)) as image:
        (entry,) = list_runs(image.image_key, [tmp_path])
    assert entry.title == "patches"


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"title": 3}', '{"note": "' + "x" * 70_000 + '"}']
)
def test_a_damaged_label_is_empty(run, content):
    (run.path / "label.json").write_text(content)
    assert read_label(run.path) == RunLabel()


def test_only_runs_are_deleted(run, tmp_path):
    other = tmp_path / "b.run.zarr"
    other.mkdir()
    (other / "mine.txt").write_text("not a run")
    with pytest.raises(HrviewerError, match="not a run folder"):
        delete_run(other)
    link = tmp_path / "link.run.zarr"
    link.symlink_to(run.path, target_is_directory=True)
    with pytest.raises(HrviewerError, match="is a link"):
        delete_run(link)
    link.unlink()
    with claim_folder(run.path), pytest.raises(HrviewerError, match="process"):
        delete_run(run.path)
    delete_run(run.path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.run.zarr"]
    assert (other / "mine.txt").is_file()
