"""Scripts that no test runs import what is there: benchmarks, and those of the documentation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    path for folder in ("benchmarks", "docs", "scripts") for path in (ROOT / folder).glob("*.py")
]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules of hrviewer that a file imports, also in functions, with the names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hrviewer"):
            yield from ((str(node.module), each.name) for each in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_names_that_a_script_imports_exist(path):
    for module, name in imports(path):
        assert hasattr(import_module(module), name) or find_spec(f"{module}.{name}"), (module, name)
