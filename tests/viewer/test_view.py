"""A window from Python, from the palette, and the scripts that drive one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from qtpy.QtCore import QCoreApplication, QEvent, QRect
from qtpy.QtGui import QGuiApplication

from hrviewer.app.services.loading import view_of
from hrviewer.errors import UserError
from hrviewer.viewer.contributions import commands
from hrviewer.viewer.demo import window_driver
from hrviewer.viewer.view import make_room, view
from hrviewer.viewer.widgets.run_settings import first_steps, listed


@pytest.fixture
def window(make_napari_viewer):
    viewer = make_napari_viewer()
    yield viewer
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def test_a_view_of_an_array(window, photo, toys):
    opened = view(photo, toys, "uniform", viewer=window)
    assert opened.viewer is window
    assert opened.controller.base == window.layers[0]
    assert opened.controller.pack is toys
    assert opened.controller.strategy.id == "uniform"
    opened.panel.close_all()


def test_live_from_the_beginning(window, photo, toys):
    opened = view(photo, toys, live=True, viewer=window)
    assert opened.controller.live.on
    assert opened.session is None  # nothing is loaded before the window shows
    opened.panel.close_all()


def test_what_is_no_image(window):
    with pytest.raises(UserError):
        view("/nowhere.svs", viewer=window)


@pytest.mark.parametrize("size", [None, (640, 480)])
def test_a_window_that_was_never_sized_has_room(window, monkeypatch, size):
    from napari.settings import get_settings

    screen = QGuiApplication.primaryScreen().availableGeometry()
    monkeypatch.setattr(get_settings().application, "window_size", size)
    set_to = []
    monkeypatch.setattr(window.window, "set_geometry", lambda *rect: set_to.append(QRect(*rect)))
    make_room(window)
    if size is not None:
        assert not set_to
        return
    assert screen.contains(set_to[0])
    assert set_to[0].width() == min(1600, screen.width() * 9 // 10)
    assert abs(set_to[0].center().x() - screen.center().x()) <= 1


def test_an_empty_window_tells_what_to_do_and_offers_a_scene(window, toys):
    panel = commands.panel_of(window)
    choice = panel.choice
    assert "drop one on the window, or try" in choice.about.text()
    choice.about.linkActivated.emit("a slide")
    window_driver.wait(lambda: panel.controller.base is not None)
    assert panel.controller.base.name == "tissue-8192-0"
    assert panel.controller.pack.name == "nuclei"
    assert panel.controller.live.on
    assert choice.about.text().startswith("8,192 × 8,192 px")
    panel.close_all()
    assert listed(list("abcd")) == "a, b, c, d"
    assert listed(list("abcdef")) == "a, b, c, d, 2 more"
    assert first_steps([]) == "drop one on the window, or open one"


@pytest.mark.parametrize("moved", [False, True])
def test_an_image_is_seen_whole_once_the_window_has_its_size(window, photo, toys, moved):
    opened = view(photo, toys, viewer=window)
    whole = view_of(window)
    opened.controller.opener.fit()
    if moved:
        window.scene.camera.zoom *= 3
    before = view_of(window)
    window.window.resize(1100, 500)
    resets = []
    window.events.reset_view.connect(lambda event: resets.append(event))
    window_driver.rest(0.6)
    assert len(resets) == (0 if moved else 1)
    if moved:
        assert view_of(window) == before != whole
    opened.panel.close_all()


def test_the_palette_docks_the_panel(window, monkeypatch):
    commands.show_panel(window)
    panel = commands.panel_of(window)
    asked = []
    monkeypatch.setattr(type(panel.files), "ask_run", lambda self: asked.append(self))
    commands.open_run(window)
    assert asked == [panel.files]


def test_the_stage(window, photo, toys, tmp_path, monkeypatch):
    monkeypatch.setenv("HRVIEWER_SHARED", str(tmp_path))
    assert window_driver.best_image().name == "ihc.png"
    monkeypatch.setenv("HRVIEWER_HEADLESS", "1")
    assert window_driver.unattended()
    opened = view(photo, toys, viewer=window)
    window_driver.set_up(opened, 1280, 800)
    window_driver.picture(opened, tmp_path / "pictures" / "x.png")
    assert (tmp_path / "pictures" / "x.png").stat().st_size > 1000
    with pytest.raises(UserError, match="did not get there"):
        window_driver.wait(lambda: False, 0.05)
    opened.panel.close_all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "left"),
    [
        ("demo", [], ["demo/patches-window.png", "demo/patches.png", "demo/uniform.run.zarr"]),
        ("screenshot", ["window.png"], ["window.png"]),
    ],
)
def test_the_scripts(tmp_path, module, arguments, left):
    done = subprocess.run(
        [sys.executable, "-m", f"hrviewer.viewer.{module}", *arguments],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "HRVIEWER_HEADLESS": "1"},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert "ERROR" not in done.stdout + done.stderr
    for name in left:
        assert (tmp_path / name).exists()
