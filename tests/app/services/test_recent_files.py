"""Tests of the list of recent images and runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from hrviewer.app.image_session import PyramidImage
from hrviewer.app.services.background import Background
from hrviewer.app.services.recent_files import MAX_RECENT, RecentFiles
from hrviewer.app.state import AppState
from hrviewer.pyramid import open_pyramid


def show(state, image):
    state.select_image(state.add_image(PyramidImage(open_pyramid(image))))


@pytest.fixture
def opened(tmp_path):
    """A state, and a function that makes the list as the next session would read it."""
    state = AppState()
    backgrounds = []

    def begin():
        backgrounds.append(Background(state))
        return RecentFiles(state, backgrounds[-1], tmp_path / "data" / "recent.json")

    yield state, begin
    for background in backgrounds:
        background.close()


def written(tmp_path):
    return json.loads((tmp_path / "data" / "recent.json").read_text())


def test_the_latest_comes_first_and_each_once(opened, tmp_path):
    state, begin = opened
    recent = begin()
    paths = [tmp_path / f"{i}.tif" for i in range(MAX_RECENT + 2)]
    for path in paths:
        tifffile.imwrite(path, np.zeros((32, 32), np.uint8))
        show(state, path)
    show(state, paths[-3])
    show(state, np.zeros((32, 32), np.uint8))  # an array has no path
    expected = [paths[-3], paths[-1], paths[-2], *paths[-4:1:-1]]
    assert recent.images == [str(path) for path in expected][:MAX_RECENT]
    recent._background._lanes["files"].shutdown(wait=True)
    assert written(tmp_path)["images"] == recent.images
    assert begin().images == recent.images


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [3]}', '{"images": "x"}', ""])
def test_a_damaged_list_is_empty(opened, tmp_path, content):
    _, begin = opened
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recent.json").write_text(content)
    assert begin().images == []


def test_recent_files_are_forgotten(opened, tmp_path):
    state, begin = opened
    recent = begin()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8))
    show(state, path)
    recent.clear()
    recent._background._lanes["files"].shutdown(wait=True)
    assert recent.images == written(tmp_path)["images"] == []
