"""The structure check: lengths of files and functions, names of classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_structure.py"


@pytest.fixture
def findings(tmp_path):
    """Check files of a repository, given by their text."""
    spec = importlib.util.spec_from_file_location("check_structure", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def check(files: dict[str, str]) -> list[str]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return list(module.findings(tmp_path))

    return check


def function(lines: int) -> str:
    return "def f():\n    '''A title.\n\n    More.\n    '''\n" + "    x = 1\n" * (lines - 1)


def test_files_and_functions_have_a_limit(findings):
    assert findings({"hrviewer/a.py": function(114), "docs/b.py": "x = 1\n" * 499}) == []
    longer, long = findings({"hrviewer/a.py": function(115), "docs/b.py": "x = 1\n" * 500})
    assert long.startswith("hrviewer/a.py:1: f has 115 lines")
    assert longer.startswith("docs/b.py: 500 lines")


def test_painting_may_be_long(findings):
    assert findings({"sample_data/a.py": function(115)}) == []


def test_class_names_are_unique(findings):
    one = "class A: ...\n"
    assert findings({"hrviewer/a.py": one, "plugins/b.py": one}) == []
    assert findings({"hrviewer/x/c.py": one}) == [
        "hrviewer/a.py:1, hrviewer/x/c.py:1: class A needs a name of its own in each"
    ]
