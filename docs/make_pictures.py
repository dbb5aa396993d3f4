"""Pictures of the documentation, made again; each is described in docs/images/README.md.

    scripts/headless.sh python docs/make_pictures.py [--slide FILE] [--geotiff FILE] [NAME...]

Without names all of them. One that fails leaves the earlier picture and does not stop the others.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SQUARE = "sample:tissue?size=4096&seed=10104"
"""Image of the comparison."""

COMPARED = "patches", "scanner", "zoom", "transformer"

NEEDED = {
    "window": ("slide",),
    "strategies": ("slide",),
    "export_figure": ("slide",),
    "job_nuclei": ("slide",),
    "export_elsewhere": ("slide", "geotiff"),
}
"""Files that a picture is made of."""

COPIED = {
    "demo": {"demo/film.webp": "demo.webp"},
    "export_figure": {"export_figure.png": "export_figure.png"},
}
"""Files in the temporary folder that are pictures, and their names in docs/images."""


def commands(slide: str, geotiff: str, folder: str) -> dict[str, list[str]]:
    """Return each picture's commands, arguments of `python`; `folder` is for their output."""
    slide, geotiff, square = (shlex.quote(name) for name in (slide, geotiff, SQUARE))
    images, modules = shlex.quote(str(IMAGES)), "-m hrviewer"
    demo = f"{modules}.viewer.demo"
    compared = f"--strategies {','.join(COMPARED)} --truth auto --out {folder}/compared"
    return {
        "window": [f"{demo}.screenshot {images}/window.png {slide}"],
        "demo": [f"{demo}.demo --out {folder}/demo"],
        "overlays": ["docs/pictures.py overlays"],
        "interval": ["docs/pictures.py interval"],
        "families": ["docs/pictures.py families"],
        "strategies": [f"docs/figures.py {slide}"],
        "compare_window": [
            f"{modules} compare {square} --model nuclei {compared}",
            f"docs/compared.py {square} nuclei {folder}/compared {' '.join(COMPARED)}",
        ],
        "export_figure": [
            f"{modules} run {slide} --model nuclei --strategy patches --out {folder}/a.run.zarr",
            f"{modules} export {folder}/a.run.zarr -o {folder}/export_figure.png --set dpi=130",
        ],
        "batch": ["docs/batch_window.py"],
        "job_nuclei": [f"docs/job_pictures.py nuclei {slide}"],
        "job_people": ["docs/job_pictures.py people"],
        "export_elsewhere": [f"docs/destinations.py {slide} {geotiff}"],
        "samples": [
            f"{modules}_samples.figures {name} {images}/sample_{name}.png"
            for name in ("crowd", "tissue")
        ],
    }


def make(name: str, lines: list[str], folder: Path) -> bool:
    """Make a picture; return whether all commands succeeded."""
    started = time.monotonic()
    for line in lines:
        if subprocess.run([sys.executable, *shlex.split(line)], cwd=ROOT).returncode:
            print(f"{name}: failed: python {line}", flush=True)
            return False
    for made, picture in COPIED.get(name, {}).items():
        shutil.copyfile(folder / made, IMAGES / picture)
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return True


def main() -> int:
    """Make the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slide", default="", help="stained with haematoxylin and eosin")
    parser.add_argument("--geotiff", default="", help="a georeferenced photo")
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = commands(wanted.slide, wanted.geotiff, folder)
        unknown = [name for name in wanted.names if name not in known]
        if unknown:
            parser.error(f"no picture {', '.join(unknown)}: choose from {', '.join(known)}")
        results = {}
        for name in wanted.names or known:
            missing = [one for one in NEEDED.get(name, ()) if not getattr(wanted, one)]
            if missing:
                print(f"{name}: left out: give --{' and --'.join(missing)}", flush=True)
                continue
            results[name] = make(name, known[name], Path(folder))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
