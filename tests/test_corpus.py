"""Every input that fuzzing or a review once found opens, or is refused in one line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of CPU time are POSIX's")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "scripts" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load_script()
FILES = sorted(path for path in fuzz.CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus_ends_well(path: Path, folder: Path) -> None:
    assert fuzz.problem_with(path.parent.name, path.read_bytes(), folder) is None


def test_problems_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes, folder: Path) -> None:
        if data == b"loop":
            while True:
                pass
        raise KeyError("a")

    monkeypatch.setitem(fuzz.KINDS, "text", fail)
    monkeypatch.setattr(fuzz, "CPU_S", 0.1)
    assert fuzz.problem_with("text", b"", folder).startswith("KeyError at test_corpus.py")
    assert fuzz.problem_with("text", b"loop", folder).startswith("TimeoutError")


def test_mutations_are_repeatable_and_differ() -> None:
    def mutated(seed: int) -> list[bytes]:
        rng = fuzz.random.Random(seed)
        return [fuzz.mutate(data, b"other", rng) for data in (b"\x89PNG" * 9, b'{"a": [1, 2]}')]

    assert mutated(1) == mutated(1)
    assert len({tuple(mutated(seed)) for seed in range(20)}) > 10
