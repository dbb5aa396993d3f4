"""Names from files reach no terminal, no HTML and no widget with control characters or tags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import picture, toy_bundle

import hrviewer
from hrviewer.escaping import escape_html, plain_text, printable
from hrviewer.ground_truth import ground_truth_from_labels
from hrviewer.io.features import Feature
from hrviewer.models import ModelCard
from hrviewer.runs import Run, run
from hrviewer.runs.run_label import RunLabel, read_label, write_label

EVIL = "a\x1b]0;x\x07\u202e<img src=x>"
SHOWN = r"a\x1b]0;x\x07\u202e<img src=x>"


def test_control_characters_are_escaped() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("Zellkern ×\u00a0µm 細胞") == "Zellkern ×\u00a0µm 細胞"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert printable("\ud800") == r"\ud800"


def test_text_that_holds_tags_is_shown_as_it_is() -> None:
    assert escape_html(EVIL) == SHOWN.replace("<", "&lt;").replace(">", "&gt;")
    assert plain_text("one\n<b>two") == "one<br>&lt;b&gt;two"
    assert plain_text("one\ntwo & three\x07") == "one\ntwo & three\\x07"


def test_names_are_escaped_where_they_are_read(tmp_path: Path) -> None:
    card = {
        "name": EVIL, "task": "density", "input": {"channels": "rgb", "tile": 32},
        "output": {"stride": 1, "classes": [EVIL], "halo": 0},
    }  # fmt: skip
    model = ModelCard.from_dict(card, "card")
    assert (model.name, model.classes) == (SHOWN, (SHOWN,))
    assert Feature("annotation", EVIL, point=(1.0, 1.0), name=EVIL).label == SHOWN
    assert ground_truth_from_labels([EVIL], points=np.ones((1, 2))).classes == (SHOWN,)


@pytest.mark.skipif("sys.platform == 'win32'", reason="its names hold no such characters")
def test_a_run_of_a_file_with_such_a_name(tmp_path: Path) -> None:
    """The image opens under its own name, and is shown under the escaped one."""
    path = tmp_path / f"{EVIL}.png"
    Image.fromarray(picture(40, 40)).save(path)
    with hrviewer.open(path) as image:
        assert image.name == f"{SHOWN}.png"
        found = run(image, toy_bundle(), "patches", tile=32, out=tmp_path / "a.run.zarr")
        shown = image._repr_html_()
    header = json.loads((found.path / "run.json").read_text())
    header["notes"], header["model"] = [EVIL], EVIL
    (found.path / "run.json").write_text(json.dumps(header))
    write_label(found.path, RunLabel(title=EVIL, note=f"one\n{EVIL}"))
    found = Run(found.path)
    assert found.header["image"]["path"] == str(path)
    assert (found.header["notes"], found.header["model"]) == ([SHOWN], SHOWN)
    assert read_label(found.path) == RunLabel(title=SHOWN, note=f"one\n{SHOWN}")
    hrviewer.export(found, tmp_path / "a.html")
    for text in (shown, found._repr_html_(), (tmp_path / "a.html").read_text("utf-8")):
        assert "<img src=x>" not in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "&lt;img src=x&gt;" in text
