"""What commands share: stopping, progress, quantities, regions."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from hrviewer.cli import plumbing
from hrviewer.geometry import Rect


@pytest.fixture
def _heard():
    """Ctrl-C is heard, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with plumbing.stoppable() as control:
        signal.raise_signal(signal.SIGINT)
        assert control.stopped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_for_terminals_only(monkeypatch):
    from hrviewer.engine import Progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with plumbing.progress() as watch:
        watch(Progress(3, 12, 5e12))
    assert "3/12" in sys.stderr.getvalue()
    assert "5 TFLOP" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with plumbing.progress() as watch:
        assert watch is None


def test_regions():
    assert plumbing.region_of("1,2,3,4") == Rect(1, 2, 3, 4)
    assert plumbing.region_of("-5, 0, 10, 10") == Rect(-5, 0, 10, 10)
