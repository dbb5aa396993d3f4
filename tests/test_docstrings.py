"""Docstrings: examples run as they are written, and parameters have the signature's names."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from toys import toy_bundle, write_thin_model

import hrviewer
from hrviewer.pyramid import Pyramid, open_pyramid

PACKAGE = Path(hrviewer.__file__).parent
MODULES = sorted(
    ".".join(("hrviewer", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" and re.search(r"^ *>>> ", path.read_text("utf-8"), re.MULTILINE)
)
FRONT_DOOR = ("open", "load", "run", "compare", "cost", "export", "view")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the images and the model that examples open."""
    folder = tmp_path_factory.mktemp("docstrings")
    tifffile.imwrite(
        folder / "slide.tif",
        np.full((4096, 3072, 3), 200, np.uint8),
        tile=(256, 256),
        compression="zlib",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    stack = np.zeros((5, 2, 300, 400), np.uint16)
    tifffile.imwrite(folder / "stack.ome.tif", stack, metadata={"axes": "ZCYX"})
    write_thin_model(folder / "model.onnx")
    return folder


@pytest.fixture
def names(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Return what examples take for granted."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")  # none is measured
    image: Pyramid = open_pyramid("slide.tif")
    return {
        "hrviewer": hrviewer,
        "np": np,
        "image": image,
        "model": toy_bundle(),
        "open_pyramid": open_pyramid,
    }


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, names: dict[str, Any]) -> None:
    loaded = import_module(module)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(loaded):
        example.globs.update({**names, **vars(loaded)})
        result = runner.run(example)
        assert not result.failed, f"{example.name} (see the output above)"


@pytest.mark.parametrize("name", FRONT_DOOR)
def test_the_front_door_has_examples(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(hrviewer, name)) or "")


def documented(docstring: str) -> list[str]:
    """Return the names in a docstring's section of parameters."""
    _, _, section = docstring.partition("Parameters\n----------\n")
    section = re.split(r"\n\n\w[^\n]*\n---", section)[0]
    heads = re.findall(r"^(\S[^\n]*)$", section, re.MULTILINE)
    return [name.strip(" *") for head in heads for name in head.split(" :")[0].split(",")]


def test_documented_parameters_are_those_of_the_signature() -> None:
    unknown = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
                for name in documented(ast.get_docstring(node) or ""):
                    if name not in names:
                        unknown.append(f"{path.relative_to(PACKAGE)}: {node.name} has no {name!r}")
    assert not unknown, "\n".join(unknown)
