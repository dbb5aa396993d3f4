"""`view`: the window, from the command line."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from hrviewer.cli import main
from hrviewer.pyramid import Pyramid

from .calling import call, refused


@pytest.fixture
def window(monkeypatch):
    """Put something in the window's place that says what was asked of it."""
    asked: list[object] = []
    layers: list[object] = []

    def view(image, *, model, strategy, live):
        asked.append((image, model, strategy, live))
        return SimpleNamespace(viewer=SimpleNamespace(add_layer=layers.append))

    def image_layer_data(pyramid: Pyramid) -> list[str]:
        with pyramid:
            return [pyramid.name]

    def module(name: str, **members: object) -> None:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)

    create = SimpleNamespace(create=lambda *layer: layer)
    module("napari", run=lambda: asked.append("waited"))
    module("napari.layers", Layer=create)
    module("hrviewer.viewer.view", view=view)
    module("hrviewer.viewer.image.image_layer", image_layer_data=image_layer_data)
    module("qtpy")
    module("qtpy.QtWidgets")
    monkeypatch.setenv("DISPLAY", ":7")
    return asked, layers


def test_without_a_command_the_window_opens(window):
    asked, _ = window
    call()
    assert asked == [(None, None, None, False), "waited"]


def test_view(window, image):
    asked, layers = window
    call("view", image, image, "--model", "toy", "--strategy", "uniform")
    assert asked == [(str(image), "toy", "uniform", False), "waited"]
    assert layers == [("scene.tif",)]
    call("view", image, "--live")
    assert asked[2] == (str(image), None, None, True)


@pytest.mark.parametrize("name", ["photo.png", "run", "sample:crowd?size=1024", "nowhere.svs"])
def test_an_image_instead_of_a_command_is_viewed(window, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    for file in ("photo.png", "run"):
        (tmp_path / file).write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["hrviewer", name, "--live"])
    with pytest.raises(SystemExit) as end:
        main()
    asked, _ = window
    # A command is a command, whatever lies there; and what does not exist is neither.
    viewed = name in ("photo.png", "sample:crowd?size=1024")
    assert asked == ([(name, None, None, True), "waited"] if viewed else [])
    assert end.value.code == (0 if viewed else 2)


def test_no_display_is_said_in_one_line(window, image, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "no display" in refused()
    assert "no display" in refused("view", image)


def test_no_qt_is_said_in_one_line(window, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "qtpy.QtWidgets", None)
    assert "hrviewer[qt]" in refused()
    assert "hrviewer[qt]" in refused("view", image)
