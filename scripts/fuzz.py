"""Random damage to every kind of file that hrviewer opens: ``make fuzz MINUTES=10``.

Inputs are made from those of ``tests/corpus`` and from small valid files, by flipped, removed,
repeated and replaced bytes, and by replaced values of JSON. Opening one must succeed or raise an
`HrviewerError` of one line, within five CPU seconds and two gigabytes, also in native parsers. What
does neither is printed, and written to the folder ``build/fuzz``: add it to
``tests/corpus/KIND``, where `tests/test_corpus.py` opens it from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "tests" / "corpus"
FINDS = ROOT / "build" / "fuzz"

CPU_S, MEMORY_BYTES = 5, 2 << 30
"""Limits of one input, above what the process has when it starts."""

ROUND = 200
"""Inputs in one child process."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 31, 1 << 63, 10**40, 1e308, float("nan"), float("inf"), "", "\x1b[31m",
    "../..", "/dev/zero", "é" * 300, [], [[]], {}, {"a": 1},
)  # fmt: skip


# What is opened: from bytes, in a folder of its own.


def open_image(data: bytes, folder: Path, suffix: str) -> None:
    import hrviewer

    path = folder / f"image{suffix}"
    path.write_bytes(data)
    with hrviewer.open(path) as image:
        level = image.levels[-1]
        level.read(0, min(level.shape[0], 64), 0, min(level.shape[1], 64))


def open_omezarr(data: bytes, folder: Path) -> None:
    import zarr

    import hrviewer

    path = folder / "image.ome.zarr"
    if not path.exists():
        zarr.create_array(path / "0", shape=(3, 40, 50), chunks=(3, 20, 20), dtype="u1")[:] = 7
    (path / "zarr.json").write_bytes(data)
    with hrviewer.open(path) as image:
        image.levels[-1].read(0, 8, 0, 8)


def open_card(data: bytes, folder: Path) -> None:
    from hrviewer.models import ModelCard

    path = folder / "net.json"
    path.write_bytes(data)
    ModelCard.read(path)


def open_onnx(data: bytes, folder: Path) -> None:
    from hrviewer.models.card import ModelCard
    from hrviewer.models.loaders import load
    from hrviewer.models.loaders.onnx_file import read_onnx

    path = folder / "net.onnx"
    path.write_bytes(data)
    read_onnx(path)
    load(path, ModelCard.from_dict(json.loads(CARD), "card"), "cpu", 1)


def open_ground_truth(data: bytes, folder: Path, suffix: str) -> None:
    from hrviewer.io.ground_truth import read_features

    path = folder / f"image{suffix}"
    path.write_bytes(data)
    read_features(path, "image.png", (100, 100))


def open_run(data: bytes, folder: Path, name: str) -> None:
    from hrviewer.io import export
    from hrviewer.runs import Run

    path = make_run(folder)
    kept = (path / name).read_bytes() if (path / name).exists() else None
    target = folder / "out.geojson"
    try:
        (path / name).write_bytes(data)
        run = Run(path)
        _ = repr(run), run.patches, run.output
        export(run, target)
    finally:
        target.unlink(missing_ok=True)
        if kept is None:
            (path / name).unlink(missing_ok=True)
        else:
            (path / name).write_bytes(kept)


def open_text(data: bytes, folder: Path) -> None:
    import typer

    import hrviewer
    from hrviewer.cli.common import parse_channels, parse_plane, parse_range, parse_region
    from hrviewer.engine import Budget
    from hrviewer.errors import HrviewerError

    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_region, parse_range, parse_plane, parse_channels, Budget.parse):
        try:
            parse(text)
        except (typer.BadParameter, HrviewerError) as error:
            require_line(error)
    hrviewer.open(f"sample:{text}").close()


CARD = json.dumps(
    {
        "name": "m",
        "task": "density",
        "input": {"channels": "rgb", "tile": 32},
        "output": {"stride": 1, "classes": ["x"], "halo": 0},
    }
)


def make_onnx() -> bytes:
    import numpy as np
    from onnx import helper, numpy_helper

    def image(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(name, 1, ("n", channels, "h", "w"))

    weights = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [image("x", 3)], [image("y", 1)], [weights])
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


def make_run(folder: Path) -> Path:
    """Return a small run folder, made once."""
    import numpy as np

    import hrviewer

    path = folder / "made.run.zarr"
    if not path.exists():
        (folder / "m.onnx").write_bytes(make_onnx())
        (folder / "m.json").write_text(CARD)
        image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
        hrviewer.run(image, folder / "m.onnx", "patches", tile=32, out=path, cache="off")
    return path


Opener = Callable[[bytes, Path], None]


def opener(function: Callable[[bytes, Path, str], None], name: str) -> Opener:
    return lambda data, folder: function(data, folder, name)


KINDS: dict[str, Opener] = {
    **{kind: opener(open_image, f".{kind}") for kind in ("png", "jpg", "tif", "bmp", "webp")},
    "omezarr": open_omezarr,
    "card": open_card,
    "onnx": open_onnx,
    **{
        kind: opener(open_ground_truth, f".{kind}")
        for kind in ("csv", "geojson", "json", "mat", "xml")
    },
    "run": opener(open_run, "run.json"),
    "map": opener(open_run, "output/0/zarr.json"),
    "patches": opener(open_run, "patches.parquet"),
    "annotations": opener(open_run, "annotations.geojson"),
    "text": open_text,
}
"""How each kind of input is opened; a folder of the corpus bears its name."""


def make_seeds(folder: Path) -> dict[str, list[bytes]]:
    """Return small valid inputs of every kind, with those of the corpus."""
    import io

    import numpy as np
    import scipy.io
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)

    def picture(form: str) -> bytes:
        Image.fromarray(pixels).save(stream := io.BytesIO(), form)
        return stream.getvalue()

    def tiff(**options: Any) -> bytes:
        tifffile.imwrite(stream := io.BytesIO(), pixels, photometric="rgb", **options)
        return stream.getvalue()

    scipy.io.savemat(mat := io.BytesIO(), {"annPoints": rng.uniform(1, 90, (3, 2))})
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [9, 2], [9, 8], [1, 2]]]},
        "properties": {"classification": {"name": "a"}, "measurements": {"m": 1.5}},
    }
    geojson = json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()
    coco = {
        "images": [{"id": 1, "file_name": "image.png", "height": 100, "width": 100}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}],
        "categories": [{"id": 1, "name": "a"}],
    }
    dsa = {"elements": [{"type": "rectangle", "center": [9, 9, 0], "width": 4, "height": 5}]}
    scale = {"type": "scale", "scale": [1, 0.5, 0.5]}
    multiscale = {
        "axes": [{"name": name} for name in "cyx"],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}},
    }
    run = make_run(folder)
    seeds = {
        **{form: [picture(name)] for form, name in (
            ("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP"), ("webp", "WEBP"))},
        "tif": [
            tiff(),
            tiff(tile=(16, 16), compression="deflate"),
            tiff(tile=(16, 16), compression="jpeg"),
            tiff(tile=(16, 16), compression="lzw", bigtiff=True),
        ],
        "omezarr": [json.dumps(group).encode()],
        "card": [CARD.encode()],
        "onnx": [make_onnx()],
        "csv": [b"y,x,label\n1,2,a\n3,4,b\n"],
        "geojson": [geojson],
        "json": [json.dumps(coco).encode(), json.dumps(dsa).encode(), geojson],
        "mat": [mat.getvalue()],
        "xml": [
            (
                b"<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>2</ymin>"
                b"<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
            )
        ],
        "run": [(run / "run.json").read_bytes()],
        "map": [(run / "output" / "0" / "zarr.json").read_bytes()],
        "patches": [(run / "patches.parquet").read_bytes()],
        "annotations": [geojson],
        "text": [b"crowd?size=512&seed=3", b"0,0,64,64", b"10 GFLOPs", b"z=3,t=0", b"30s"],
    }  # fmt: skip
    for kind in KINDS:
        seeds[kind] += [path.read_bytes() for path in sorted((CORPUS / kind).glob("*"))]
    return seeds


# Mutations.


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return damaged bytes."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict | list) and rng.random() < 0.8:
        for _ in range(rng.choice((1, 1, 2, 4))):
            found = mutate_json(found, rng)
        return json.dumps(found).encode("utf-8", "surrogatepass")
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64)), len(changed) - at)
        match rng.randrange(6):
            case 0:
                for i in range(at, at + length):
                    changed[i] ^= 1 << rng.randrange(8)
            case 1:
                number = rng.choice((0, 1, -1, 255, 1 << 15, (1 << 31) - 1, 1 << 31, -(1 << 31)))
                size = rng.choice((1, 2, 4, 8))
                order: Any = rng.choice(("little", "big"))
                wrapped = number % (1 << 8 * size)
                changed[at : at + size] = wrapped.to_bytes(size, order)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 100))
            case 4:
                del changed[at:]
            case 5:
                start = rng.randrange(len(other) + 1)
                changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Return JSON with one value replaced, removed or repeated."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.15:
        del copy[key]
    elif isinstance(copy, list) and rng.random() < 0.1:
        copy *= rng.choice((2, 50))
    else:
        copy[key] = mutate_json(value[key], rng)
    return copy


# Execution.


def require_line(error: BaseException) -> None:
    if "\n" in str(error) or not str(error):
        raise AssertionError(f"not one line: {error!s:.200}")


def problem_with(kind: str, data: bytes, folder: Path) -> str | None:
    """Return what is wrong with how an input ends; None if nothing is."""
    from hrviewer.errors import HrviewerError

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {CPU_S} CPU seconds")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind](data, folder)
    except HrviewerError as error:
        try:
            require_line(error)
        except AssertionError as problem:
            return str(problem)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error!s:.200}"
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def run_round(
    seeds: dict[str, list[bytes]], kinds: list[str], folder: Path, seed: int
) -> tuple[int, list[dict[str, Any]]]:
    """Open some inputs in a child process; return how many it opened, and the finds."""
    report, current = folder / "finds.jsonl", folder / "current"
    report.write_text("")
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            most = resource.getrlimit(resource.RLIMIT_CPU)[1]  # which cannot be raised again
            rng = random.Random(seed)
            with report.open("a") as finds, open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
                for _ in range(ROUND):
                    kind = rng.choice(kinds)
                    data = mutate(rng.choice(seeds[kind]), rng.choice(seeds[kind]), rng)
                    current.write_bytes(kind.encode() + b"\n" + data)
                    before = time.process_time()
                    resource.setrlimit(resource.RLIMIT_CPU, (int(before) + 3 * CPU_S, most))
                    line = {"kind": kind, "problem": problem_with(kind, data, folder)}
                    if line["problem"]:
                        line["data"] = data.hex()
                    print(json.dumps(line), file=finds, flush=True)
            failed = 0
        finally:
            os._exit(failed)
    _, status = os.waitpid(child, 0)
    opened = [json.loads(line) for line in report.read_text().splitlines()]
    if status:
        kind, _, data = current.read_bytes().partition(b"\n")
        code = os.waitstatus_to_exitcode(status)
        problem = f"the process ended by signal {-code}" if code < 0 else "the process failed"
        opened.append({"kind": kind.decode(), "problem": problem, "data": data.hex()})
    return len(opened), [line for line in opened if line["problem"]]


def main() -> int:
    """Fuzz for some minutes; return 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kinds", default=[*KINDS], nargs="+", choices=KINDS)
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else int(time.time())
    end, rounds, problems = time.monotonic() + 60 * chosen.minutes, 0, dict[str, str]()
    inputs = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HRVIEWER_CACHE"] = os.environ["HRVIEWER_DATA"] = f"{name}/hrviewer"
        seeds = make_seeds(folder)
        while rounds == 0 or time.monotonic() < end:
            opened, finds = run_round(seeds, chosen.kinds, folder, seed + rounds)
            inputs += opened
            for find in finds:
                key = f"{find['kind']}: {find['problem'].partition(': ')[0]}"
                if key in problems:
                    continue
                problems[key] = find["problem"]
                data = bytes.fromhex(find["data"])
                file = FINDS / find["kind"] / sha256(data).hexdigest()[:12]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                print(f"{key}: {find['problem']}\n    {file}", flush=True)
            rounds += 1
    print(
        json.dumps({"inputs": inputs, "seed": seed, "problems": len(problems)}),
        file=sys.stdout,
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
