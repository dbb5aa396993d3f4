"""Extensions of a broken package: one line each, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hrviewer
from hrviewer.errors import HrviewerError
from hrviewer.io import writers
from hrviewer.models import formats, open_bundle
from hrviewer.models.registry import get_architecture
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.synthetic import make_synthetic_image
from hrviewer.strategies import base as strategies
from hrviewer.training.task import installed_task_sets

USES: dict[str, Callable[[Path], Any]] = {
    "strategies": lambda _: strategies.get_strategy("torn"),
    "writers": lambda _: writers.base.get_writer("torn"),
    "formats": lambda folder: open_bundle(folder),
    "readers": lambda folder: open_pyramid(folder / "image.png"),
    "samples": lambda _: make_synthetic_image("torn", 1024),
    "models": lambda _: hrviewer.load("torn"),
    "architectures": lambda _: get_architecture("torn"),
    "training_tasks": lambda _: installed_task_sets()["torn"](),
}


@pytest.mark.parametrize("group", USES)
def test_a_broken_package(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "torn-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hrviewer.{group}]\ntorn = torn_package:Torn\n")
    (tmp_path / "torn_package.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    caches = strategies._installed, writers.base._installed, formats.installed_formats
    for one in caches:
        one.cache_clear()
    try:
        with pytest.raises(HrviewerError, match=r"torn .*cannot be imported .*no_such") as raised:
            USES[group](tmp_path)
    finally:
        for one in caches:
            one.cache_clear()
    assert "\n" not in str(raised.value)
