"""Memory, CPU seconds and messages of ``hrviewer info`` on every file of some folders.

    python -m benchmarks.info FOLDER...

Each file has a process of its own, forked after the command line was imported; that start is
measured once and added to the seconds of each. A Zarr hierarchy and a folder of DICOM count as one
image. `over` lists what exceeds the limits, ends in a traceback, or reports a problem in more than
one line; `--table` prints every file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["find_images", "main", "measure", "measure_file"]

MAX_BYTES, MAX_SECONDS = 300e6, 2.0


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, and its Zarr hierarchies and folders of DICOM as a whole."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and (entry.suffix == ".zarr" or next(entry.glob("*.dcm"), None)):
            yield entry
        if entry.is_dir() and entry.suffix != ".zarr":
            yield from find_images(entry)
        elif entry.is_file():
            yield entry


def measure_file(path: Path, start: float) -> dict[str, Any]:
    """Run the command on a file in a process of its own.

    Parameters
    ----------
    path : Path
        The file or folder.
    start : float
        CPU seconds until the command line was imported.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = os.fork()
        if process == 0:
            run_command(path, out.fileno(), err.fileno())
        _, status, usage = os.wait4(process, 0)
        err.seek(0)
        messages = err.read()
    return {
        "path": str(path),
        "status": os.waitstatus_to_exitcode(status),
        "seconds": round(start + usage.ru_utime + usage.ru_stime, 2),
        "bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "messages": messages.splitlines(),
    }


def run_command(path: Path, out: int, err: int) -> None:
    """Run the command in this process, which ends with it."""
    from hrviewer.cli import main as command

    status = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = ["hrviewer", "info", str(path)]
        command()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fails(entry: dict[str, Any]) -> bool:
    """Whether an entry exceeds a limit, has a traceback or a problem in several lines."""
    unexpected = any("Traceback" in line or "(unexpected:" in line for line in entry["messages"])
    return (
        entry["bytes"] > MAX_BYTES
        or entry["seconds"] > MAX_SECONDS
        or entry["status"] not in (0, 1)
        or len(entry["messages"]) != entry["status"]
        or unexpected
    )


def measure(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Measure all files of some folders."""
    import hrviewer.cli
    import hrviewer.pyramid  # noqa: F401 - imported once, for all

    own = resource.getrusage(resource.RUSAGE_SELF)
    start = own.ru_utime + own.ru_stime
    return [measure_file(path, start) for folder in folders for path in find_images(folder)]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HRVIEWER_CACHE"] = cache
        table = measure(options.folders)
    print(
        json.dumps(
            {
                "files": len(table),
                "opened": sum(entry["status"] == 0 for entry in table),
                "refused": sum(entry["status"] == 1 for entry in table),
                "max_seconds": max(entry["seconds"] for entry in table),
                "max_bytes": max(entry["bytes"] for entry in table),
                "over": [entry for entry in table if fails(entry)],
                "wall_s": round(time.perf_counter() - begun, 1),
                **({"table": table} if options.table else {}),
            },
            indent=1,
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
