"""The kind of images that a bundle's ``main`` learned from, and how far others are from it.

    python -m benchmarks.learned_domain nuclei --by both --data DATA_FOLDER [--write] [IMAGE…]

Prints the distance of each image over that of 99 % of the squares learned from, and writes the
distribution into the card with ``--write``.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from hrviewer.engine.domain_check import domain_distance
from hrviewer.models import installed_bundles, open_bundle
from hrviewer.pyramid import using_pyramid
from hrviewer.training.domain import measure_domain
from hrviewer.training.task import installed_task_sets

SEED, STEPS = 28, 64


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--by")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_intermixed_args()
    folder = installed_bundles()[given.bundle].folder
    card = open_bundle(given.bundle).roles["main"]
    domain = card.accuracy.learned_domain
    if domain is None or given.write:
        name = f"main/{given.by}" if given.by else "main"
        task: Any = installed_task_sets()[given.bundle]().tasks[name](given.data, folder)
        options = f" --by {given.by}" * bool(given.by) + " --data DATA_FOLDER" * bool(given.data)
        domain = measure_domain(
            task.stream(STEPS, SEED),
            "; ".join(f"{key}: {value}" for key, value in task.sources.items()),
            shlex.join(["python", "-m", "benchmarks.learned_domain", given.bundle])
            + f"{options} --write",
        )
    if given.write:
        file = folder / "bundle.json"
        bundle = json.loads(file.read_text(encoding="utf-8"))
        accuracy = bundle["roles"]["main"]["card"].setdefault("accuracy", {})
        accuracy["learned_domain"] = domain.model_dump(mode="json")
        file.write_text(json.dumps(bundle, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    distances = {}
    for image in given.images:
        with using_pyramid(image) as pyramid:
            distances[Path(str(image)).name] = round(domain_distance(domain, card, pyramid), 2)
    print(json.dumps({"limit": domain.limit, "squares": domain.squares, "distances": distances}))


if __name__ == "__main__":
    main()
