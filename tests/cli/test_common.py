"""What commands share: stopping, progress, quantities, regions."""

from __future__ import annotations

from hrviewer.cli import common
from hrviewer.geometry import Rect

from .calling import started


def test_a_second_ctrl_c_ends_at_once():
    """In a process of its own: a signal is no guest in the one that tests."""
    process = started(
        "import signal",
        "from hrviewer.cli import common",
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be born deaf",
        "with common.interruptible() as control:",
        "    signal.raise_signal(signal.SIGINT)",
        "    print(control.stopped, flush=True)",
        "    signal.raise_signal(signal.SIGINT)",
        "    print('still here')",
    )
    output, error = process.communicate()
    assert output == "True\n"
    assert error.rstrip().endswith("KeyboardInterrupt")


def test_regions():
    assert common.parse_region("1,2,3,4") == Rect(1, 2, 3, 4)
    assert common.parse_region("-5, 0, 10, 10") == Rect(-5, 0, 10, 10)


def test_models_are_separated_by_commas(tmp_path):
    from hrviewer.cli.compare import split_models

    comma = tmp_path / "a,b.onnx"
    comma.touch()
    given = ["one.onnx,two.onnx", "main=a.onnx,scout=b.onnx", str(comma)]
    assert split_models(given) == ["one.onnx", "two.onnx", *given[1:]]
