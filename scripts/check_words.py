"""Vocabulary check: words that `scripts/words.toml` replaces, in code, messages and documentation.

    python scripts/check_words.py            # everything in the repository
    python scripts/check_words.py FILE…      # these files only, without the rates

Exit status 1 and a line for each finding: file, line, word, replacement.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ("hrviewer", "plugins", "sample_data", "tests", "benchmarks", "docs", "scripts")
PROSE = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "Makefile",
    "docs/**/*.md", "plugins/**/*.md", "plugins/*/pyproject.toml", "sample_data/*.md",
    "sample_data/pyproject.toml", "hrviewer/**/*.yaml", "examples/*.ipynb",
)  # fmt: skip
SKIPPED = ("scripts/words.toml", "scripts/check_words.py", "tests/test_words.py")
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Rule:
    """Words, their replacement, and the exceptions."""

    pattern: re.Pattern[str]
    instead: str
    where: frozenset[str]
    allow: tuple[re.Pattern[str], ...] = ()
    skip: tuple[str, ...] = ()


@dataclass
class Vocabulary:
    """The rules of `words.toml`."""

    rules: list[Rule] = field(default_factory=list)
    rates: dict[str, tuple[re.Pattern[str], float]] = field(default_factory=dict)


def whole_words(words: list[str]) -> re.Pattern[str]:
    """Return a pattern of any of these as whole words."""
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w])", re.IGNORECASE)


def read_vocabulary(path: Path = ROOT / "scripts" / "words.toml") -> Vocabulary:
    """Read the rules."""
    table = tomllib.loads(path.read_text("utf-8"))
    rules = [
        Rule(
            whole_words(rule["words"]),
            rule["instead"],
            frozenset(rule.get("where", ("identifiers", "text"))),
            tuple(re.compile(pattern) for pattern in rule.get("allow", ())),
            tuple(rule.get("skip", ())),
        )
        for rule in table["rule"]
    ]
    rates = {
        name: (whole_words(rate["words"]), float(rate["per_1000"]))
        for name, rate in table["rate"].items()
    }
    return Vocabulary(rules, rates)


def pieces_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, kind (``identifiers`` or ``text``) and words of a file."""
    source = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(source)["cells"]
        source = "".join("".join(cell["source"]) + "\n" for cell in cells)
    if path.suffix != ".py":
        yield from ((i, "text", line) for i, line in enumerate(source.splitlines(), 1))
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], "identifiers", " ".join(PARTS.findall(token.string))
        elif token.type == tokenize.COMMENT or token.type in STRINGS:
            for i, line in enumerate(token.string.splitlines()):
                yield token.start[0] + i, "text", line


def findings(path: Path, vocabulary: Vocabulary) -> Iterator[tuple[int, str, str]]:
    """Yield line number, word and replacement for every word of a file that has one."""
    lines = path.read_text("utf-8").splitlines()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    rules = [rule for rule in vocabulary.rules if not any(map(partial(fnmatch, name), rule.skip))]
    known: set[tuple[int, str]] = set()
    for number, kind, piece in pieces_of(path):
        line = lines[number - 1] if path.suffix != ".ipynb" and number <= len(lines) else piece
        for rule in rules:
            found = rule.pattern.search(piece) if kind in rule.where else None
            if found is None or any(pattern.search(line) for pattern in rule.allow):
                continue
            if (number, found[0]) not in known:
                known.add((number, found[0]))
                yield number, found[0], rule.instead


def rates(vocabulary: Vocabulary, folder: Path = ROOT / "hrviewer") -> dict[str, float]:
    """Return occurrences per 1,000 lines of the package."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(folder.rglob("*.py")))
    total = max(1, text.count("\n")) / 1000
    return {
        name: len(pattern.findall(text.replace("_", " "))) / total
        for name, (pattern, _) in vocabulary.rates.items()
    }


def repository_files() -> list[Path]:
    """Return every file that is checked."""
    files = {path for folder in PYTHON for path in (ROOT / folder).rglob("*.py")}
    files |= {path for pattern in PROSE for path in ROOT.glob(pattern)}
    skipped = {ROOT / name for name in SKIPPED}
    return sorted(path for path in files - skipped if ".venv" not in path.parts)


def main(names: list[str]) -> int:
    """Check files, or the repository."""
    vocabulary = read_vocabulary()
    failed = 0
    for path in map(Path, names) if names else repository_files():
        for number, word, instead in findings(path.resolve(), vocabulary):
            failed += 1
            shown = path.resolve().relative_to(ROOT)
            print(f"{shown}:{number}: {word!r}; write: {instead}")
    if not names:
        measured = rates(vocabulary)
        for name, (_, limit) in vocabulary.rates.items():
            bad = measured[name] > limit if name == "at_most" else measured[name] < limit
            if bad:
                failed += 1
                print(f"hrviewer/: {name} {limit:g} per 1,000 lines, but {measured[name]:.1f}")
    if failed:
        print(f"{failed} findings; the words and their exceptions: scripts/words.toml")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
