"""Structure check: the length of files and functions, and the names of classes.

    python scripts/check_structure.py

Files have fewer than 500 lines, functions fewer than 115 without their docstring, and no class of
hrviewer/ has the name of another one. Exit status 1 and a line for each finding.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hrviewer", "plugins", "sample_data", "benchmarks", "docs", "scripts")
MAX_FILE_LINES = 499
MAX_FUNCTION_LINES = 114

# Painting is one long list of strokes, and its order decides about every pixel: it is published
# with version numbers, so it is not cut for the sake of its length.
LONG_FUNCTIONS = ("sample_data/*",)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def count_lines(function: Function) -> int:
    """Return a function's lines, from ``def`` on, without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def findings(root: Path = ROOT) -> Iterator[str]:
    """Yield a line for everything that is too long, and for class names that are not unique."""
    classes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py")):
        name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        lines = len(text.splitlines())
        if lines > MAX_FILE_LINES:
            yield f"{name}: {lines} lines, at most {MAX_FILE_LINES}: split the file"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and name.startswith("hrviewer/"):
                classes[node.name].append(f"{name}:{node.lineno}")
            if isinstance(node, Function) and not any(fnmatch(name, p) for p in LONG_FUNCTIONS):
                lines = count_lines(node)
                if lines > MAX_FUNCTION_LINES:
                    yield (
                        f"{name}:{node.lineno}: {node.name} has {lines} lines, at most "
                        f"{MAX_FUNCTION_LINES}: split the function"
                    )
    for name, places in classes.items():
        if len(places) > 1:
            yield f"{', '.join(places)}: class {name} needs a name of its own in each"


def main() -> int:
    """Print the findings; return the exit status."""
    found = list(findings())
    print("\n".join(found), end="\n" * bool(found))
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
