"""How hrviewer ends on damaged and malicious files: ``python -m benchmarks.hostile_inputs FOLDER``.

    python -m benchmarks.hostile_inputs ../shared/cases/faults
    python -m benchmarks.hostile_inputs ../shared/cases/faults --write docs/reliability.md

The folder holds images, and in ``models``, ``truth`` and ``runs`` model cards with weights, ground
truth and run folders. Every one is given to the command that opens it, in a process of its own with
limits of CPU time and memory. One JSON object is printed: for each file how the command ended, its
CPU seconds and peak memory above that of an empty process; and for each kind how many ended well.
``--write`` replaces the table in a page. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Ending", "main", "run_command"]

CPU_LIMIT_S, MEMORY_LIMIT = 30, 8 << 30
SLOW_S, LARGE = 5.0, 1e9
"""CPU seconds and bytes from which on an ending is not a good one."""

GOOD = ("done", "one line")
BEGIN, END = "<!-- hostile inputs: begin -->", "<!-- hostile inputs: end -->"


@dataclass(frozen=True)
class Ending:
    """How a command ended on a file."""

    kind: str
    name: str
    ending: str
    cpu_s: float
    peak_bytes: float
    message: str

    @property
    def is_good(self) -> bool:
        """Whether it is done or refused in one line, soon and in little memory."""
        return self.ending in GOOD and self.cpu_s <= SLOW_S and self.peak_bytes <= LARGE


def run_command(arguments: list[str]) -> tuple[str, float, float, str]:
    """Run a command of hrviewer in a child process; return its ending, CPU seconds, bytes, errors.

    The ending is ``done``, ``one line``, ``several lines``, ``unexpected``, ``signal N`` or
    ``exit N``.
    """
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                os.dup2(errors.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
                code = call(arguments)
                sys.stderr.flush()
                os._exit(code)
            os._exit(125)
        _, status, usage = os.wait4(child, 0)
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace").strip()
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0
    lines = [line for line in text.splitlines() if line.strip()]
    if os.WIFSIGNALED(status):
        ending = f"signal {os.WTERMSIG(status)}"
    elif "(unexpected:" in text or "Traceback" in text:
        ending = "unexpected"
    elif (code := os.WEXITSTATUS(status)) == 0:
        ending = "done"
    elif code in (1, 2, 3) and (len(lines) == 1 or code == 2):
        ending = "one line"
    else:
        ending = "several lines" if code in (1, 3) else f"exit {code}"
    return ending, seconds, peak, text


def call(arguments: list[str]) -> int:
    """Call the command line in this process; return its exit status."""
    from hrviewer.cli import main as cli

    sys.argv = ["hrviewer", *arguments]
    try:
        cli()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def list_commands(folder: Path, out: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the kind, the name and the command of every file."""
    parts = ("models", "truth", "runs")
    for path in sorted(folder.iterdir()):
        if path.name not in (*parts, "cases.json", "README.md", "MANIFEST"):
            yield "images", path.name, ["info", str(path)]
    for path in sorted((folder / "models").iterdir()):
        if path.suffix in (".onnx", ".safetensors"):
            yield "models", path.name, ["models", "check", str(path)]
    run = ["run", str(folder / "pic.png"), "--model", str(folder / "models" / "good.onnx")]
    for i, path in enumerate(sorted((folder / "truth").iterdir())):
        options = ["--strategy", "uniform", "--cache", "off", "--out", str(out / f"{i}.run.zarr")]
        yield "ground truth", path.name, [*run, *options, "--truth", str(path)]
    for i, path in enumerate(sorted((folder / "runs").iterdir())):
        for suffix in ("geojson", "html"):
            target = str(out / f"{i}.{suffix}")
            yield "run folders", f"{path.name}: {suffix}", ["export", str(path), "-o", target]


def format_table(endings: list[Ending]) -> str:
    """Return the endings as Markdown."""
    kinds = dict.fromkeys(ending.kind for ending in endings)
    lines = [
        "| files | number | opened | refused in one line | others | most CPU s | most memory, MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in kinds:
        of_kind = [ending for ending in endings if ending.kind == kind]
        found = Counter(ending.ending for ending in of_kind)
        rest = len(of_kind) - found["done"] - found["one line"]
        seconds = max(ending.cpu_s for ending in of_kind)
        peak = max(ending.peak_bytes for ending in of_kind) / 1e6
        lines.append(
            f"| {kind} | {len(of_kind)} | {found['done']} | {found['one line']} | {rest} "
            f"| {seconds:.1f} | {peak:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    chosen = parser.parse_args()
    # Loaded once, before the processes divide.
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import hrviewer.cli
    import hrviewer.pyramid.opening
    import hrviewer.runs  # noqa: F401

    endings = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HRVIEWER_CACHE"] = os.environ["HRVIEWER_DATA"] = f"{scratch}/hrviewer"
        base = run_command(["--version"])
        for kind, name, command in list_commands(chosen.folder, Path(scratch)):
            if chosen.only in name:
                ending, seconds, peak, text = run_command(command)
                above = max(0.0, peak - base[2])
                endings.append(Ending(kind, name, ending, round(seconds, 2), above, text[-300:]))
    bad = [asdict(ending) for ending in endings if not ending.is_good]
    report = {"files": len(endings), "not_good": bad, "all": [asdict(e) for e in endings]}
    print(json.dumps(report, indent=1))
    if chosen.write is not None:
        page = chosen.write.read_text("utf-8")
        pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        table = f"{BEGIN}\n{format_table(endings)}\n{END}"
        chosen.write.write_text(pattern.sub(lambda _: table, page), "utf-8")


if __name__ == "__main__":
    main()
