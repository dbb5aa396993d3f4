"""The vocabulary check: identifiers, comments, strings and pages; exceptions; rates."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_words.py"


@pytest.fixture(scope="module")
def check_words():
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_words"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_words"]


def words_of(check_words, path, text):
    path.write_text(text, "utf-8")
    vocabulary = check_words.read_vocabulary()
    return [(line, word) for line, word, _ in check_words.findings(path, vocabulary)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\ndef what_it_told():\n    pass\n", [(2, "told")]),
        ("class LessonPlan: ...\n", [(1, "Lesson")]),
        ("# drawn anew\n", [(1, "anew")]),
        ('"""Fine.\n\nFrom afar it is small.\n"""\n', [(3, "From afar")]),
        ('message = f"the run is at work: {1}"\n', [(1, "at work")]),
        ("retold = storyteller = lookup = codec = coded = 1\n", []),
        ("def sizeHint(self): ...\n", []),
        ("# of course\n", []),
    ],
)
def test_words_in_python(check_words, tmp_path, text, found):
    assert words_of(check_words, tmp_path / "a.py", text) == found


def test_words_in_pages_and_notebooks(check_words, tmp_path):
    assert words_of(check_words, tmp_path / "a.md", "fine\nthe codes\n") == [(2, "codes")]
    cell = '{"cells": [{"source": ["fine\\n", "the ledger"]}]}'
    assert words_of(check_words, tmp_path / "a.ipynb", cell) == [(2, "ledger")]


def test_rates_are_per_thousand_lines(check_words, tmp_path):
    (tmp_path / "a.py").write_text("# inference\n# looks\n" + "x = 1\n" * 998, "utf-8")
    measured = check_words.rates(check_words.read_vocabulary(), tmp_path)
    assert measured == {"at_most": pytest.approx(1.0), "at_least": pytest.approx(1.0)}
