"""A window from Python, from the palette, and the scripts that drive one."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from npe2 import PluginManifest
from qtpy.QtCore import QCoreApplication, QEvent, QRect
from qtpy.QtGui import QGuiApplication

import hrviewer
from hrviewer import viewer as viewer_package
from hrviewer.errors import HrviewerError
from hrviewer.viewer.contributions import commands
from hrviewer.viewer.demo import window_driver
from hrviewer.viewer.image.view_fit import camera_state
from hrviewer.viewer.view import view
from hrviewer.viewer.widgets.actions import KEY_BINDINGS, Actions
from hrviewer.viewer.widgets.run_settings import getting_started, join_names
from hrviewer.viewer.widgets.window import set_window_size


@pytest.fixture
def window(make_napari_viewer):
    viewer = make_napari_viewer()
    yield viewer
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def test_a_view_of_an_array(window, photo, toys):
    opened = view(photo, toys, "uniform", viewer=window)
    assert opened.viewer is window
    assert opened.controller.image_layer == window.layers[0]
    assert opened.controller.state.settings.model is toys
    assert opened.controller.state.settings.strategy.id == "uniform"
    opened.panel.shut_down()


def test_live_from_the_beginning(window, photo, toys):
    opened = view(photo, toys, live=True, viewer=window)
    assert opened.controller.live.enabled
    assert opened.session is None  # nothing is loaded before the window shows
    opened.panel.shut_down()


def test_the_example_of_the_docstring(window, photo, toys, monkeypatch):
    monkeypatch.setattr("napari.Viewer", lambda **options: window)
    (test,) = doctest.DocTestFinder().find(view)
    test.globs = {"hrviewer": hrviewer, "image": photo, "model": toys}
    for example in test.examples:
        example.options.clear()  # skipped where there is no window
    assert doctest.DocTestRunner().run(test, clear_globs=False) == (0, 2)
    assert test.globs["view"].viewer is window


def test_what_is_no_image(window):
    with pytest.raises(HrviewerError):
        view("/nowhere.svs", viewer=window)


@pytest.mark.parametrize("size", [None, (640, 480)])
def test_a_window_that_was_never_sized_has_room(window, monkeypatch, size):
    from napari.settings import get_settings

    screen = QGuiApplication.primaryScreen().availableGeometry()
    monkeypatch.setattr(get_settings().application, "window_size", size)
    set_to = []
    monkeypatch.setattr(window.window, "set_geometry", lambda *rect: set_to.append(QRect(*rect)))
    set_window_size(window)
    if size is not None:
        assert not set_to
        return
    assert screen.contains(set_to[0])
    assert set_to[0].width() == min(1600, screen.width() * 9 // 10)
    assert abs(set_to[0].center().x() - screen.center().x()) <= 1


def test_an_empty_window_says_what_to_do_and_offers_a_sample(window, toys):
    panel = commands.panel_of(window)
    choice = panel.run_settings
    assert "drop one on the window, or try" in choice.image_summary.text()
    choice.image_summary.linkActivated.emit("a slide")
    window_driver.wait_until(lambda: panel.controller.image_layer is not None)
    assert panel.controller.image_layer.name == "tissue-8192-0"
    assert panel.controller.state.settings.model.name == "nuclei"
    assert panel.controller.live.enabled
    assert choice.image_summary.text().startswith("8,192 × 8,192 px")
    panel.shut_down()
    assert join_names(list("abcd")) == "a, b, c, d"
    assert join_names(list("abcdef")) == "a, b, c, d, 2 more"
    assert getting_started([]) == "drop one on the window, or open one"


@pytest.mark.parametrize("moved", [False, True])
def test_an_image_is_seen_whole_once_the_window_has_its_size(window, photo, toys, moved):
    opened = view(photo, toys, viewer=window)
    whole = camera_state(window)
    opened.controller.view_fit.request()
    if moved:
        window.scene.camera.zoom *= 3
    before = camera_state(window)
    window.window.resize(1100, 500)
    resets = []
    window.events.reset_view.connect(lambda event: resets.append(event))
    window_driver.process_events_for(0.6)
    assert len(resets) == (0 if moved else 1)
    if moved:
        assert camera_state(window) == before != whole
    opened.panel.shut_down()


def test_the_palette_docks_the_panel(window, monkeypatch):
    commands.show_panel(window)
    panel = commands.panel_of(window)
    asked = []
    monkeypatch.setattr(type(panel.open_run_button), "choose_run", lambda self: asked.append(self))
    commands.open_run(window)
    assert asked == [panel.open_run_button]


def test_every_action_is_a_command_of_the_palette(window, monkeypatch):
    manifest = PluginManifest.from_file(Path(viewer_package.__file__).with_name("napari.yaml"))
    listed = {item.id: item for item in manifest.contributions.commands}
    in_menu = {item.command for item in manifest.contributions.menus["hrviewer.actions"]}
    panel = commands.panel_of(window)
    done = []
    monkeypatch.setattr(Actions, "__call__", lambda self, name: done.append(name))
    for name in panel.user_actions.names:
        command = listed[f"hrviewer.{name}"]
        assert command.id in in_menu
        assert (KEY_BINDINGS.get(name) is None) or f"({KEY_BINDINGS[name]})" in command.title
        assert command.python_name == f"hrviewer.viewer.contributions.commands:{name}"
        getattr(commands, name)(window)
    assert done == panel.user_actions.names
    # What napari calls with a path is greyed out there.
    for name, command in listed.items():
        if ".readers:" in command.python_name or ".writers:" in command.python_name:
            assert str(command.enablement) == "False", name


def test_the_window_driver(window, photo, toys, tmp_path, monkeypatch):
    monkeypatch.setenv("HRVIEWER_HEADLESS", "1")
    assert window_driver.is_headless()
    opened = view(photo, toys, viewer=window)
    window_driver.set_up_window(opened, 1280, 800)
    window_driver.screenshot(opened, tmp_path / "pictures" / "x.png")
    assert (tmp_path / "pictures" / "x.png").stat().st_size > 1000
    with pytest.raises(HrviewerError, match="was not ready"):
        window_driver.wait_until(lambda: False, 0.05)
    opened.panel.shut_down()
