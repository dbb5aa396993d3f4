"""Seeds of synthetic images: which are chosen by, which are reported, and which nothing uses.

Prose may name the seeds of tables that were published before.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hrviewer.pyramid import open_pyramid

ROOT = Path(__file__).parents[1]
FOLDERS = "hrviewer", "benchmarks", "docs", "scripts", "plugins", "sample_data", "tests", "examples"
CHOOSE, REPORT = range(10_000, 11_000), range(11_100, 11_900)
NEVER = range(11_900, 12_000)
RULES = {"hrviewer/pyramid/synthetic.py", "tests/test_seeds.py", "tests/pyramid/test_synthetic.py"}
"""The files that state which seeds there are."""
REPORTING = {"docs/families.py", "benchmarks/coverage.py", "benchmarks/scale_curve.py"}
"""The scripts of published figures."""

NUMBER = re.compile(r"(?<![\w.#])1[01]_?\d{3}(?![\w.])")


def source(path: Path) -> str:
    """The code of a file: of a notebook, that of its cells."""
    text = path.read_text("utf-8")
    if path.suffix != ".ipynb":
        return text
    return "".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def seeds_in_code() -> list[tuple[str, int]]:
    """Numbers that may be seeds: 10000 to 11999, in every file of code."""
    files = [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".ipynb", ".sh", ".toml") and ".venv" not in path.parts
    ]
    return [
        (path.relative_to(ROOT).as_posix(), int(number.replace("_", "")))
        for path in files
        if path.relative_to(ROOT).as_posix() not in RULES
        for number in NUMBER.findall(source(path))
    ]


def test_code_uses_the_seeds_to_choose_by_or_scripts_of_tables_those_to_report() -> None:
    found = seeds_in_code()
    assert len(found) > 10
    bounds = {10_000, 11_000, 11_100, 11_900}  # of ranges
    for path, seed in found:
        assert seed not in NEVER or seed in bounds, path
        allowed = seed in CHOOSE or seed in bounds or (path in REPORTING and seed in REPORT)
        assert allowed, f"{path} uses the seed {seed}: 10000 to 10999 are to choose by"


def test_cards_were_measured_on_seeds_to_choose_by() -> None:
    for file in sorted((ROOT / "plugins").rglob("bundle.json")):
        for role in json.loads(file.read_text("utf-8"))["roles"].values():
            for figures in role["card"].get("accuracy", {}).values():
                for one in figures if isinstance(figures, list) else [figures]:
                    seeds = [int(seed) for seed in NUMBER.findall(one["data"])]
                    assert all(seed in CHOOSE for seed in seeds), f"{file}: {one['data']}"


def test_training_stays_out_of_the_seeds_that_nothing_uses() -> None:
    training = pytest.importorskip("hrviewer.training")
    used = {*training.TRAIN, *training.VALIDATION, *training.TEST}
    assert used.isdisjoint(NEVER)
    assert ({*training.VALIDATION}, {*training.TEST}) == ({*CHOOSE}, {*REPORT})


def test_every_seed_can_be_opened() -> None:
    with open_pyramid(f"sample:crowd?size=1024&seed={NEVER[-1]}") as pyramid:
        assert pyramid.plane_shape == (1024, 1024)
