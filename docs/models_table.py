"""The table of docs/models.md: kinds of models, how they open, and what each strategy does.

    scripts/headless.sh python docs/models_table.py [KIND,…]

Writes tiny models in every format (tests/models/tiny_models.py), opens and runs each, in Python and
in the window, and replaces the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
START, END = "<!-- table -->", "<!-- end of table -->"
sys.path[:0] = [str(ROOT / "tests" / "models"), str(ROOT / "tests")]

STRATEGIES = "patches", "uniform", "zoom", "nonuniform", "scanner", "compression", "transformer"
COLUMNS = "model", "opens", "task", "equals a direct loop", "window", "exports", *STRATEGIES
SHAPE = 140, 170
IMAGE = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
INSTANCES = "StarDist", "Cellpose", "HoVer-Net"
CLASSES = {"ONNX segmentation": "car,boat", **dict.fromkeys(INSTANCES, "cell")}
BUDGETS = {"uniform": "60%", "zoom": "500%", "nonuniform": "60%"}
"""The built-in saliency costs more than a tiny model on all tiles, of which a tenth is default."""


def main(only: str = "") -> None:
    """Write the table into the page; of some kinds, separated by commas, only print theirs."""
    from tiny_models import KINDS

    from hrviewer.viewer.view import view

    wanted = only.split(",")
    chosen = {name: write for name, write in KINDS.items() if not only or name in wanted}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRVIEWER_CACHE"] = os.environ["HRVIEWER_DATA"] = f"{folder}/data"
        opened = view(IMAGE, strategy="patches")
        opened.controller.resources.run_folder = Path(folder) / "runs"
        rows = [measure(name, write, Path(folder), opened) for name, write in chosen.items()]
        opened.close()
    notes: list[str] = []
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(mark(row[name], notes) for name in COLUMNS) + " |" for row in rows]
    lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    print("\n".join(lines))
    if only:
        return
    before, rest = PAGE.read_text("utf-8").split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n" + "\n".join(lines) + f"\n{END}{after}", "utf-8")


def mark(cell: object, notes: list[str]) -> str:
    """Return a cell; a refusal as the number of its line below the table."""
    if not isinstance(cell, Exception):
        return str(cell)
    if str(cell) not in notes:
        notes.append(str(cell))
    return f"no ({notes.index(str(cell)) + 1})"


def measure(name: str, write: Any, folder: Path, opened: Any) -> dict[str, object]:
    """Open a model of a kind and run it with every strategy."""
    import hrviewer
    from hrviewer.errors import HrviewerError

    path = write(folder / "models")
    opens = open_or_init(name, path)
    model = hrviewer.load(path, trust=True, device="cpu", progress=False)
    row: dict[str, object] = {"model": name, "opens": opens, "task": model.card.task}
    runs = {}
    for strategy in STRATEGIES:
        out = folder / f"{name}-{strategy}.run.zarr".replace(" ", "-")
        settings: dict[str, Any] = {"cache": "off", "progress": False, "out": out}
        try:
            run = model.run(IMAGE, strategy, budget=BUDGETS.get(strategy), **settings)
        except HrviewerError as error:
            line = str(error).replace(model.name, "NAME").replace(model.card.name, "NAME")
            row[strategy] = HrviewerError(line)
            continue
        runs[strategy] = run
        failed = run.header["patches"]["failed"]
        row[strategy] = "yes" if run.estimate and not failed else "no estimate"
    row["equals a direct loop"] = compare(name, path, model, IMAGE, runs["patches"])
    row["window"] = use_window(opened, model.bundle, runs["patches"])
    row["exports"] = ", ".join(exports(runs["patches"], folder))
    print(name, file=sys.stderr)
    return row


def use_window(opened: Any, bundle: Any, expected: Any) -> str:
    """Use Live and run `patches` in the window; return what worked, or what was reported."""
    from hrviewer.errors import HrviewerError
    from hrviewer.viewer.demo.window_driver import wait_until

    controller, state = opened.controller, opened.controller.state
    errors: list[str] = []
    state.error_raised.connect(errors.append)
    state.set_model(bundle)
    live, detects = controller.live, bundle.card.detects
    state.clear_results(state.require_image())
    live.set_enabled(True)
    with suppress(HrviewerError):  # too late: Live is then missing in the table
        wait_until(lambda: any(errors) or has_results(state.maps, detects), 300)
    worked = ["Live"] if has_results(state.maps, detects) else []
    live.set_enabled(False)
    controller.run_service.start()
    wait_until(lambda: state.run_state != "starting", 600)
    wait_until(lambda: state.run_state == "idle", 600)
    wait_until(lambda: not controller.has_pending_work, 600)
    run = state.run
    same = run is not None and run.estimate["per_class"] == expected.estimate["per_class"]
    if same and has_results(state.maps, detects):
        worked.append("run")
    state.error_raised.disconnect(errors.append)
    return ", ".join([*worked, *filter(None, errors)])


def has_results(maps: Any, detects: bool) -> bool:
    """Return whether maps have a displayed output, and objects where the model detects them."""
    if maps is None or not np.isfinite(maps.rasters["output"].values).any():
        return False
    objects = maps.objects
    return not detects or (objects is not None and len(objects.displayed.boxes) > 0)


def open_or_init(name: str, path: Path) -> str:
    """Open a model without a card, or write one; return what was needed."""
    from hrviewer.errors import HrviewerError, UntrustedModelError
    from hrviewer.models import open_bundle

    trust = ""
    try:
        open_bundle(path)
    except UntrustedModelError:
        trust = ", `--trust`"
    except HrviewerError:
        pass
    try:
        open_bundle(path, trust=True)
    except HrviewerError:
        classes = CLASSES.get(name, "car,boat,tree")
        options = ["--scale", "1/255", "--classes", classes, "--tile", "64", "--trust"]
        if name in INSTANCES:
            options += ["--decode", name.lower().replace("-", "")]
        command = [sys.executable, "-m", "hrviewer", "models", "init", str(path), *options]
        subprocess.run(command, check=True, capture_output=True)
        return f"after `init`{trust}"
    return f"without a card{trust}"


def compare(name: str, path: Path, model: Any, image: np.ndarray, run: Any) -> str:
    """Compare a run with a loop over its tiles that uses no part of hrviewer's inference."""
    from direct_loops import first_axes, read_objects, run_module, run_onnx, softmax, suppress
    from tiny_models import MEAN, STD

    from hrviewer.engine.model_infos import model_info
    from hrviewer.geometry import Patch, Rect
    from hrviewer.strategies import input_rect

    if name in INSTANCES:
        return count_discs(name.lower().replace("-", ""), run.path.parent)
    if name == "ultralytics obb":
        return "corners in `tests/models/test_formats.py`"
    network = model.bundle.load("main", "cpu")
    weights, card = model.bundle.weights("main"), network.card
    normal = (MEAN, STD) if name.startswith(("transformers", "WSInfer")) else (0, 1)
    if name.startswith("bioimage"):
        normal = (0.5, 1)
    elif name.startswith("MONAI"):
        normal = (0.5, 0.5)
    letterbox = card.input.letterbox
    fill = {"mode": "reflect"} if letterbox is None else {"constant_values": int(letterbox)}
    around = np.pad(image, ((99, 99), (99, 99), (0, 0)), **fill)

    def infer(rect: Rect) -> list[np.ndarray]:
        y, x = rect.y + 99, rect.x + 99
        batch = first_axes(around[y : y + rect.h, x : x + rect.w], *normal)
        if weights.suffix == ".onnx":
            return run_onnx(weights, batch)
        return [run_module(batch, dense=card.task == "segmentation")]

    whole_image, worst = Rect(0, 0, *SHAPE), 0.0

    def activate(values: np.ndarray) -> np.ndarray:
        return softmax(values) if card.output.activation == "softmax" else values

    if card.task == "segmentation" and card.input.fixed:
        for tile in run.patches.query("role == 'main'").itertuples():
            core = Rect(tile.y, tile.x, tile.h, tile.w)
            rect = input_rect(model_info(network), Patch(core, 1.0, network.halo), whole_image)
            y, x = core.y - rect.y, core.x - rect.x
            part = activate(infer(rect)[0])[0, :, y : y + core.h, x : x + core.w]
            cells = run.maps["output"].values[:, core.y : core.y1, core.x : core.x1]
            worst = max(worst, np.abs(cells - part).max())
        return f"{worst:.0e}"
    if card.task == "segmentation":
        whole = activate(infer(Rect(0, 0, *SHAPE))[0])
        worst = np.abs(run.maps["output"].values - whole[0]).max()
        return f"{worst:.0e}"
    kinds = {"YOLOX": "yolox", "transformers DETR": "detr"}
    kind = kinds.get(name, name.removeprefix("ultralytics "))
    found, total, weight = [], 0.0, 0.0
    for tile in run.patches.query("role == 'main'").itertuples():
        core = Rect(tile.y, tile.x, tile.h, tile.w)
        rect = input_rect(model_info(network), Patch(core, 1.0, network.halo), whole_image)
        outputs = infer(rect)
        if card.task == "classification":
            total, weight = total + activate(outputs[0])[0] * core.area, weight + core.area
            continue
        inside = []
        for score, c, (y0, x0, y1, x1) in read_objects(kind, outputs, with_duplicates=True):
            box = [y0 + rect.y, x0 + rect.x, y1 + rect.y, x1 + rect.x]
            if contains(whole_image, box):
                inside.append((score, c, list(np.clip(box, 0, [*SHAPE, *SHAPE]))))
        found += [one for one in suppress(inside) if contains(core, one[2])]
    if card.task == "classification":
        worst = np.abs(np.array([*run.estimate["per_class"].values()]) - total / weight).max()
        return f"{worst:.0e}"
    wanted, objects = suppress(found), run.objects()
    if len(wanted) != len(objects):
        return f"{len(objects)} of {len(wanted)} objects"
    boxes = np.array([box for *_, box in wanted])
    got = objects[["y", "x", "h", "w"]].to_numpy(copy=True)
    got[:, 2:] += got[:, :2]
    order, mine = (np.lexsort(np.round(b, 2).T) for b in (boxes, got))
    worst = np.abs(boxes[order] - got[mine]).max()
    return f"{len(objects)} objects, {worst:.0e}"


def count_discs(decode: str, folder: Path) -> str:
    """Return how many of the discs whose maps are known a decoder finds, in tiles, once each."""
    import shapely
    import xarray
    from instance_maps import Maps, discs, maps
    from toys import ToyBundle

    from hrviewer.runs import run

    size = 210, 260
    known = discs(*size, 300, seed=3)
    made = maps(decode, *size, known)
    settings: dict[str, Any] = {"tile": 96, "cache": "off", "out": folder / f"{decode}.run.zarr"}
    image = xarray.DataArray(made, dims=("c", "y", "x"))
    found = run(image, ToyBundle(main=Maps(decode, len(made))), "patches", **settings).objects()
    own = shapely.from_wkb(found["outline"].to_numpy())
    circles = shapely.buffer(shapely.points(known[:, 1], known[:, 0]), known[:, 2])
    common = shapely.area(shapely.intersection(circles[:, None], own[None]))
    union = shapely.area(circles)[:, None] + shapely.area(own)[None] - common
    held = int(((common / union).max(axis=1) > 0.8).sum())
    return f"{held} of {len(known)} known discs, {len(found)} found"


def contains(rect: Any, box: list[float]) -> bool:
    """Return whether the centre of a box lies in a rectangle."""
    y, x = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(rect.y <= y < rect.y1 and rect.x <= x < rect.x1)


def exports(run: Any, folder: Path) -> Iterator[str]:
    """Yield the names of the formats that the run is exported in."""
    import hrviewer
    from hrviewer.errors import HrviewerError
    from hrviewer.io import writer_names

    for name in writer_names():
        try:
            hrviewer.export(run, folder / f"{run.path.stem}.{name}", to=name)
        except HrviewerError:
            continue
        yield name


if __name__ == "__main__":
    main(*sys.argv[1:])
