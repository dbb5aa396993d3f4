"""Progress bars: where they are shown, and what they show."""

from __future__ import annotations

import io
import sys
import types

import pytest
from toys import picture, toy_bundle

import hrviewer
from hrviewer.engine import Progress
from hrviewer.errors import HrviewerError
from hrviewer.phases import MEASURING, Phase, announce
from hrviewer.runs import compare, progress, run
from hrviewer.runs.progress import NotebookBar, progress_messages, with_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Recorder:
    """A bar that records its updates."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int | None]] = []
        self.closed = False

    def update(self, description: str, done: int, total: int | None) -> None:
        self.updates.append((description, done, total))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bar(monkeypatch) -> Recorder:
    bar = Recorder()
    monkeypatch.setattr(progress, "make_bar", lambda: bar)
    return bar


def test_a_terminal_has_a_bar_and_a_log_file_has_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with with_progress(True, None) as on_event:
        on_event(Progress(3, 12, 5e12))
    assert "3 of 12" in sys.stderr.getvalue()
    assert "5 TFLOP" in sys.stderr.getvalue()
    with with_progress(False, None) as on_event:
        assert on_event is None
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with with_progress(True, None) as on_event:
        assert on_event is None


def test_phases_are_named(bar):
    events = []
    with with_progress(True, events.append) as on_event:
        on_event(Phase("loading", "zoom on a.png"))
        announce(MEASURING)
        on_event(Phase("inference"))
        on_event(Progress(3, 12, 5e9))
    assert bar.updates == [
        ("zoom on a.png · loading", 0, None),
        (f"zoom on a.png · {MEASURING}", 0, None),
        ("zoom on a.png · inference", 0, None),
        ("zoom on a.png · inference · 5 GFLOP", 3, 12),
    ]
    assert bar.closed
    assert len(events) == 3  # what is announced belongs to no run
    announce(MEASURING)
    assert len(bar.updates) == 4


def test_loading_has_a_bar(bar):
    bundle = toy_bundle()
    hrviewer.load(bundle, device="cpu")
    assert bar.updates == [(f"{bundle.name} · loading", 0, None)]
    assert bar.closed
    bar.updates.clear()
    hrviewer.load(bundle, device="cpu", progress=False)
    assert bar.updates == []


def test_a_run_announces_its_phases(bar, tmp_path):
    run(picture(300, 400), toy_bundle(), tile=64, out=tmp_path / "a.run.zarr", cache="off")
    names = [description for description, _, _ in bar.updates]
    assert names[:2] == ["loading", "inference"]
    assert names[-1].startswith("inference · ")
    assert bar.updates[-1][1:] == (35, 35)
    assert bar.closed
    bar.updates.clear()
    run(picture(300, 400), toy_bundle(), out=tmp_path / "b.run.zarr", progress=False)
    assert not bar.updates


def test_a_comparison_names_its_runs(bar, tmp_path):
    compare(picture(300, 400), toy_bundle(), "patches:tile=64,uniform", out=tmp_path / "a")
    names = {description.split(" · ")[0] for description, _, _ in bar.updates}
    assert {name.split(" on ")[0] for name in names} == {"patches", "patches:tile=64", "uniform"}


def test_messages(bar):
    messages = []
    with progress_messages(True, messages.append) as report:
        report("128 × 128 pixels")
    assert [description for description, _, _ in bar.updates] == messages == ["128 × 128 pixels"]
    assert bar.closed


def test_a_notebook_has_a_bar_without_widgets(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []
    handle = types.SimpleNamespace(update=lambda found: shown.append(found.data))
    monkeypatch.setattr(display, "display", lambda *args, **kwargs: handle)
    bar = NotebookBar()
    bar.update("<loading>", 0, None)
    bar.update("inference", 3, 12)
    bar.update("inference", 4, 12)  # too soon
    bar.close()
    assert "&lt;loading&gt; <progress></progress>" in shown[0]
    assert 'value="3" max="12"' in shown[1]
    assert "3 of 12" in shown[1]
    assert shown[2:] == [""]


def test_parameters_as_a_mapping_and_as_keywords(tmp_path):
    image = picture(300, 400)
    for name, given in {"a": {"params": {"tile": 64}}, "b": {"tile": 64}}.items():
        made = hrviewer.run(image, toy_bundle(), out=tmp_path / f"{name}.run.zarr", **given)
        assert made.header["params"] == {"tile": 64}
    with pytest.raises(HrviewerError, match="tile: give a parameter once"):
        hrviewer.run(image, toy_bundle(), params={"tile": 64}, tile=32)
    with pytest.raises(HrviewerError, match="no parameter 'device'"):
        hrviewer.run(image, toy_bundle(), params={"device": "cpu"})
