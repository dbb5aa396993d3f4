"""List of slides: every image with its runs, thumbnails of what is asked for, none of the rest."""

import numpy as np
import pytest
from PIL import Image

from app.headless import run, wait
from hrviewer.app.services import slide_list
from hrviewer.app.services.slide_list import MAX_WAITING

COUNT = 2000


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "slides"
    made.mkdir()
    for name, colour in (("red.png", (255, 0, 0)), ("grey.png", None), ("wide.png", (0, 0, 255))):
        size = (400, 100) if name == "wide.png" else (120, 120)
        image = Image.new("L", size, 70) if colour is None else Image.new("RGB", size, colour)
        image.save(made / name)
    (made / "broken.png").write_bytes(b"no image")
    (made / "notes.txt").write_text("no image either")
    return made


def is_listed(app):
    return lambda: app.slide_list.slides and not app.slide_list.is_running


def test_a_folder_is_listed_with_thumbnails(app, folder):
    slides = app.slide_list
    slides.open(folder)
    wait(app, is_listed(app))
    assert [slide.name for slide in slides.slides] == [
        "broken.png",
        "grey.png",
        "red.png",
        "wide.png",
    ]
    assert [slide.runs for slide in slides.slides] == [0] * 4
    for slide in slides.slides:
        assert slides.thumbnail(slide.path) is None
    wait(app, lambda: not slides.is_running)
    broken, grey, red, wide = (slides.thumbnail(slide.path) for slide in slides.slides)
    assert broken.pixels is None
    assert "broken.png" in broken.summary
    assert grey.pixels.shape == (96, 96, 3)
    assert np.unique(grey.pixels).tolist() == [70]
    assert np.unique(red.pixels.reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
    assert wide.pixels.shape == (24, 96, 3)
    assert wide.summary == "100 × 400 px"


def test_a_table_is_listed_in_its_order(app, folder):
    table = folder / "slides.csv"
    table.write_text("image,patient\nwide.png,1\nred.png,2\nsample:crowd?size=64&seed=0,3\n")
    app.slide_list.open(table)
    wait(app, is_listed(app))
    paths = [slide.path for slide in app.slide_list.slides]
    assert paths == [
        str(folder / "wide.png"),
        str(folder / "red.png"),
        "sample:crowd?size=64&seed=0",
    ]


def test_finished_runs_are_counted(app, folder):
    app.slide_list.open(folder)
    wait(app, is_listed(app))
    app.image_loader.open(folder / "red.png")
    wait(app, lambda: app.state.image is not None)
    run(app)
    wait(app, lambda: not app.slide_list.is_running)
    assert {slide.name: slide.runs for slide in app.slide_list.slides}["red.png"] == 1


def test_of_thousands_only_what_is_asked_for_is_read(app, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i:04}.png").touch()
    read = []

    def open_pyramid(path):
        read.append(path)
        raise slide_list.HrviewerError("not now")

    monkeypatch.setattr(slide_list, "open_pyramid", open_pyramid)
    slides = app.slide_list
    slides.open(folder)
    wait(app, is_listed(app))
    assert len(slides.slides) == COUNT
    assert read == []
    paths = [slide.path for slide in slides.slides]
    for path in paths[:300]:  # scrolled past
        slides.thumbnail(path)
    wait(app, lambda: not slides.is_running)
    # The first was being read; of the others the last ones, the very last first.
    assert len(read) <= MAX_WAITING + 1
    assert read[1] == paths[299]
    assert slides.thumbnail(paths[0]).summary == "not now"


def test_a_folder_without_images_is_one_line(app, tmp_path):
    app.slide_list.open(tmp_path)
    wait(app, lambda: bool(app.errors and app.errors[-1]))
    assert "no image" in app.errors[-1]
