"""Error of ``nuclei`` on each source of real images when it is left out of the training.

    python -m benchmarks.leave_one_out --data DATA_FOLDER --steps 4000 --out FOLDER [SOURCE…]

Trains ``main`` once for each source, one after another, from the weights that ship
(``hrviewer-train nuclei main --by without-SOURCE --further``), and prints the errors that the cards
give. Interrupted, the same command goes on; trainings that are finished are not repeated. Weights
that ship may have learned from a source: its figure then is of a network that has seen it before,
unless ``--fresh`` starts from random weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hrviewer.models import installed_bundles


def train_without(source: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train without a source, unless that is done; return the figures of the left-out images."""
    done = folder / "metrics.json"
    if not done.exists():
        if not folder.exists():
            shutil.copytree(installed_bundles()["nuclei"].folder, folder)
        command = [sys.executable, "-c", "from hrviewer.training.cli import main; main()"]
        command += ["nuclei", "main", "--by", f"without-{source}", "--data", str(given.data)]
        command += ["--steps", str(given.steps), "--seed", str(given.seed), "--out", str(folder)]
        command += [] if given.fresh else ["--further"]
        printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        done.write_text(printed, encoding="utf-8")
    metrics: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    named = {key: value for key, value in metrics.items() if key.startswith(source)}
    return named or {key: value for key, value in metrics.items() if key.startswith("val")}


def main() -> None:
    """Train and print."""
    from hrviewer_histology.training_tasks import SOURCES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=", ".join(SOURCES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=28)
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_intermixed_args()
    found = {
        source: train_without(source, given.out / source, given)
        for source in given.sources or SOURCES
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
