"""`view`: the window, from the command line."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from hrviewer.cli import main
from hrviewer.pyramid import Pyramid

from .calling import call, started


@pytest.fixture
def window(monkeypatch):
    """Replace the window by a record of how it was opened."""
    calls: list[object] = []
    layers: list[object] = []

    def view(image, *, model, strategy, live):
        calls.append((image, model, strategy, live))
        return SimpleNamespace(viewer=SimpleNamespace(add_layer=layers.append))

    def image_layers_data(pyramid: Pyramid) -> list[tuple[str]]:
        with pyramid:
            return [(pyramid.name,)]

    def module(name: str, **members: object) -> None:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)

    create = SimpleNamespace(create=lambda *layer: layer)
    module("napari", run=lambda: calls.append("waited"))
    module("napari.layers", Layer=create)
    module("hrviewer.viewer.view", view=view)
    module("hrviewer.viewer.image.image_layer", image_layers_data=image_layers_data)

    return calls, layers


def test_without_a_command_the_window_opens(window):
    calls, _ = window
    call()
    assert calls == [(None, None, None, False), "waited"]


def test_view(window, image):
    calls, layers = window
    call("view", image, image, "--model", "toy", "--strategy", "uniform")
    assert calls == [(str(image), "toy", "uniform", False), "waited"]
    assert layers == [("image.tif",)]
    call("view", image, "--live")
    assert calls[2] == (str(image), None, None, True)
    call("view", image, "--pixel-size", "0.5")
    pyramid = calls[4][0]
    with pyramid:
        assert pyramid.pixel_size == (0.5, 0.5)


@pytest.mark.parametrize("name", ["photo.png", "run", "sample:crowd?size=1024", "nowhere.svs"])
def test_an_image_instead_of_a_command_is_viewed(window, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    for file in ("photo.png", "run"):
        (tmp_path / file).write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["hrviewer", name, "--live"])
    with pytest.raises(SystemExit) as end:
        main()
    calls, _ = window
    # The name of a command is a command even if such a file exists.
    viewed = name in ("photo.png", "sample:crowd?size=1024")
    assert calls == ([(name, None, None, True), "waited"] if viewed else [])
    assert end.value.code == (0 if viewed else 2)


NO_QT = "import sys; sys.modules['qtpy.QtWidgets'] = None"


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland need a display")
@pytest.mark.parametrize(
    ("display", "setup", "message"),
    [("", "", "no display"), (":4711", "", ":4711"), (":4711", NO_QT, "hrviewer[qt]")],
)
@pytest.mark.parametrize("from_python", [False, True])
def test_window_that_cannot_be_opened_is_one_line(display, setup, message, from_python):
    """In a process of its own, where no Qt runs yet; without the check Qt would abort it."""
    environment = {"DISPLAY": display, "WAYLAND_DISPLAY": "", "QT_QPA_PLATFORM": ""}
    if from_python:
        code = (
            "import hrviewer",
            "try: hrviewer.view()",
            "except hrviewer.HrviewerError as error: sys.exit(str(error))",
        )
    else:
        code = ("from hrviewer.cli import app", "app([])")
    process = started("import sys", setup, *code, **environment)
    output, error = process.communicate()
    assert process.returncode == 1
    assert output == ""
    (line,) = error.splitlines()
    assert message in line
