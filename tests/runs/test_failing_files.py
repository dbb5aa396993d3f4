"""Every operation on files fails once, or the process ends there: nothing is lost, mixed or left.

A few operations of each command by default; all of them are slow tests, those of a comparison
(some 600) are part of the soak.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from failing_files import FailingFiles, count_operations, failing, killed, some
from PIL import Image
from toys import Bright, Encoder, ToyBundle, picture, toy_bundle

from hrviewer.batch import worker
from hrviewer.batch.image_list import ImageEntry
from hrviewer.batch.results_table import ResultsTable, read_table
from hrviewer.batch.settings import BatchSettings, EngineSettings
from hrviewer.errors import HrviewerError, WriteError, write_error
from hrviewer.ground_truth import GroundTruth
from hrviewer.io import export
from hrviewer.io.annotations import read_annotations, write_annotations
from hrviewer.io.atomic_write import atomic_path
from hrviewer.io.features import Feature
from hrviewer.io.image_writer import write_image
from hrviewer.models.threads import available_cores
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, compare, fit_head, run
from hrviewer.runs.importers import import_run
from hrviewer.runs.provenance import versions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are POSIX's")

IMAGE = picture(96, 128)
LARGE = picture(600, 1200)
"""An image of two levels."""

QUICK = 3
"""Operations of each command that fail in the quick tests."""

POWER_CUTS = ("power", "lost")
ENDINGS = ("kill", *POWER_CUTS)
"""Failures that end the process."""


@dataclass
class Command:
    """A command that writes into a folder, and what it should leave there.

    `act` may be called again after a failure, and then resumes or repeats. `read` returns what was
    written, in a form that can be compared.
    """

    act: Callable[[Path], object]
    read: Callable[[Path], object]


def read_run(folder: Path) -> object:
    found = Run(folder / "a.run.zarr")
    assert found.complete
    patches = found.patches.drop(columns=[c for c in found.patches if c.endswith("_s")])
    journal = found.path / "journal"
    return found.output.tobytes(), found.estimate, patches.to_csv(), journal.exists()


def act_run(folder: Path, image: Path) -> None:
    out = folder / "a.run.zarr"
    with open_pyramid(image) as pyramid:
        resume = (out / "run.json").exists() or (out / "journal").exists()
        run(pyramid, toy_bundle(), tile=32, out=out, cache="off", resume=resume)


def act_export(folder: Path, made: Path, name: str) -> None:
    target = folder / name
    if not target.exists():
        export(Run(made), target)


def read_tree(folder: Path) -> object:
    """Return the names and bytes of all files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_leftover(path)
    }


def act_convert(folder: Path, image: Path) -> None:
    target = folder / "a.ome.zarr"
    if not target.exists():
        with open_pyramid(image) as pyramid:
            write_image(pyramid, target)


def act_compare(folder: Path, image: Path) -> None:
    compare(
        image, toy_bundle(), ["uniform", "patches:tile=32"], out=folder / "c", cache="off",
        progress=False,
    )  # fmt: skip


def read_compare(folder: Path) -> object:
    runs = [Run(path.parent) for path in sorted((folder / "c").rglob("run.json"))]
    assert all(found.complete for found in runs)
    return [(found.header["strategy"], found.estimate, found.output.tobytes()) for found in runs]


def act_import(folder: Path, image: Path) -> None:
    out = folder / "i.run.zarr"
    table = image.with_name("wsinfer.csv")
    table.write_text("minx,miny,width,height,prob_a\n0,0,32,32,0.25\n32,0,32,32,0.75\n")
    if not (out / "run.json").exists():
        import_run(table, image, out)


def read_import(folder: Path) -> object:
    found = Run(folder / "i.run.zarr")
    return found.output.tobytes(), found.patches["value"].tolist()


def act_fit(folder: Path, encoded: Path) -> None:
    if not (folder / "head").exists():
        points = np.random.default_rng(0).uniform(0, 96, (40, 2))
        fit_head(Run(encoded), GroundTruth(points, source="points"), folder / "head")


def act_batch(folder: Path, images: Sequence[Path]) -> None:
    """Do what a batch does on its only worker, which is this process."""
    settings = BatchSettings(
        model="toy", strategy="patches", params={"tile": 32}, cache="off", exports=("csv",)
    )
    engine = EngineSettings(
        version=versions()["hrviewer"], device="cpu", backend="toy", cores=available_cores(),
        streams=1, batch=1,
    )  # fmt: skip
    out = folder / "batch"
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from None
    entries = [ImageEntry(image=str(image)) for image in images]
    table = ResultsTable(out, entries)
    with ExitStack() as stack:
        stack.callback(worker.close_runner)
        stack.enter_context(patch.object(worker, "opened_bundle", lambda *_: toy_bundle()))
        for entry in entries:
            row = worker.run_image(str(out), settings, engine, entry)
            if row["status"] == "failed":
                raise WriteError(row["error"])
            table.update(entry, row)


def read_batch(folder: Path) -> object:
    table = read_table(folder / "batch")
    maps = [Run(path).output.tobytes() for path in table["run"]]
    exported = sorted((folder / "batch" / "exports").iterdir())
    exports = [(path.name, pd.read_csv(path)["value"].tolist()) for path in exported]
    return table[["image", "status", "estimate"]].to_csv(), maps, exports


def annotation(number: int) -> Feature:
    return Feature("annotation", "a", point=(float(number), 1.0), number=0)


def act_annotate(folder: Path) -> None:
    write_annotations(folder, [annotation(2)])


def read_annotated(folder: Path) -> object:
    return [feature.point for feature in read_annotations(folder)], os.listdir(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a run of it and one with embeddings."""
    return make_folder(tmp_path_factory.mktemp("made"))


def make_folder(folder: Path) -> Path:
    Image.fromarray(IMAGE).save(folder / "image.png")
    Image.fromarray(IMAGE[:64, :64]).save(folder / "second.png")
    Image.fromarray(LARGE).save(folder / "large.png")
    act_run(folder, folder / "image.png")
    bundle = ToyBundle(main=Bright(), encoder=Encoder())
    run(IMAGE, bundle, "compression", out=folder / "encoded.run.zarr", cache="off")
    return folder


SHORT = ("run", "convert", "import", "fit", "annotate",
         "export geojson", "export ome-zarr", "export csv")  # fmt: skip
NAMES = (*SHORT, "batch", "compare")
"""Commands; those that are not short have hundreds of operations."""


def command_of(name: str, made: Path) -> Command:
    image, done = made / "image.png", made / "a.run.zarr"
    commands = {
        "run": Command(partial(act_run, image=image), read_run),
        "compare": Command(partial(act_compare, image=image), read_compare),
        "convert": Command(partial(act_convert, image=made / "large.png"), read_tree),
        "batch": Command(partial(act_batch, images=(image, made / "second.png")), read_batch),
        "import": Command(partial(act_import, image=image), read_import),
        "fit": Command(partial(act_fit, encoded=made / "encoded.run.zarr"), read_tree),
        "annotate": Command(act_annotate, read_annotated),
        **{
            f"export {kind}": Command(partial(act_export, made=done, name=f"x.{suffix}"), read_tree)
            for kind, suffix in (
                ("geojson", "geojson"), ("ome-zarr", "ome.zarr"), ("csv", "csv"))
        },
    }  # fmt: skip
    return commands[name]


def error_of(act: Callable[[], object], files: FailingFiles) -> str:
    """Return the message of an action that fails; an empty one if it does not."""
    with failing(files):
        try:
            act()
        except HrviewerError as error:
            return str(error)
    return ""


def check_failure(command: Command, folder: Path, expected: object, how: str, at: int) -> None:
    """Let an operation fail, repeat the command, and compare what it left."""
    folder.mkdir()
    if how in ENDINGS:
        killed(partial(command.act, folder), folder, at, how)
    else:
        assert "\n" not in error_of(partial(command.act, folder), FailingFiles(folder, at, how))
    command.act(folder)
    assert command.read(folder) == expected
    if how in ENDINGS and find_leftovers(folder):
        # It was killed at its very end and is complete: the next writer into the folder comes by.
        with atomic_path(folder / "next") as path:
            path.touch()
    # Nobody claims the folder of an import again.
    is_import = getattr(command.act, "func", None) is act_import
    assert not find_leftovers(folder) or (is_import and how in ENDINGS)
    shutil.rmtree(folder)


def find_leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_leftover(path)]


def is_leftover(path: Path) -> bool:
    return path.name.endswith((".new", ".part", ".partial")) or "claim" in path.name


FAILURES = [*product(NAMES, ("full", "broken", "kill", *POWER_CUTS))]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *product(NAMES, ("full", "kill")),
        ("run", "broken"),
        *product((name for name in NAMES if name not in ("compare", "batch")), ["lost"]),
    ],
)
def test_a_few_failures(name: str, how: str, made: Path, tmp_path: Path) -> None:
    check_failures(command_of(name, made), how, tmp_path, QUICK)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(*failure, marks=pytest.mark.slow if failure[0] in SHORT else pytest.mark.soak)
        for failure in FAILURES
    ],
)
def test_every_failure(name: str, how: str, made: Path, tmp_path: Path) -> None:
    check_failures(command_of(name, made), how, tmp_path, 1000)


def check_failures(command: Command, how: str, tmp_path: Path, most: int) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    count = count_operations(partial(command.act, reference), reference)
    assert count > 2
    expected = command.read(reference)
    for at in some(count, most):
        check_failure(command, tmp_path / f"at{at}", expected, how, at)


@pytest.mark.parametrize("how", ["full", "broken", *ENDINGS])
def test_annotations_are_the_old_or_the_new_ones(how: str, tmp_path: Path) -> None:
    count = count_operations(partial(act_annotate, tmp_path), tmp_path)
    write_annotations(tmp_path, [annotation(1)])
    for at in range(count):
        if how in ENDINGS:
            killed(partial(act_annotate, tmp_path), tmp_path, at, how)
        else:
            with failing(FailingFiles(tmp_path, at, how)), suppress(HrviewerError):
                act_annotate(tmp_path)
        (found,) = read_annotations(tmp_path)
        assert found.point in ((1.0, 1.0), (2.0, 1.0))
        assert how in ENDINGS or os.listdir(tmp_path) == ["annotations.geojson"]
        write_annotations(tmp_path, [annotation(1)])
        assert os.listdir(tmp_path) == ["annotations.geojson"]


def test_a_full_disk_before_the_first_result_is_reported_as_it_is(
    made: Path, tmp_path: Path
) -> None:
    """The message promised results in a folder that was removed."""
    image = made / "image.png"
    count = count_operations(partial(act_run, tmp_path, image), tmp_path)
    shutil.rmtree(tmp_path / "a.run.zarr")
    lines = set()
    for at in some(count, 12):
        line = error_of(partial(act_run, tmp_path, image), FailingFiles(tmp_path, at))
        kept = [*(tmp_path / "a.run.zarr").glob("journal/*.results")]
        assert ("its results are saved" in line) == bool(kept), (at, line)
        lines.add(line.partition(":")[0])
        shutil.rmtree(tmp_path / "a.run.zarr", ignore_errors=True)
    assert len(lines) > 1


def test_the_layer_counts_and_fails(tmp_path: Path) -> None:
    def act() -> None:
        (tmp_path / "a.txt").write_text("abc" * 1000)
        os.replace(tmp_path / "a.txt", tmp_path / "b.txt")

    assert count_operations(act, tmp_path) == 3
    with failing(FailingFiles(tmp_path, 1)), pytest.raises(OSError, match="space"):
        act()
    assert len((tmp_path / "a.txt").read_bytes()) == 1500
    with failing(FailingFiles(tmp_path, 0, "broken")), pytest.raises(OSError, match="Input/output"):
        act()
    np.testing.assert_equal(killed(act, tmp_path, 2), True)
    assert (tmp_path / "a.txt").stat().st_size == 3000


def test_a_power_cut_takes_what_was_not_brought_to_the_disk(tmp_path: Path) -> None:
    def act() -> None:
        for name in ("synced", "lost"):
            with (tmp_path / "new").open("w") as file:
                file.write("abc")
                file.flush()
                if name == "synced":
                    os.fsync(file.fileno())
            os.replace(tmp_path / "new", tmp_path / name)
        os.mkdir(tmp_path / "folder")

    count = count_operations(act, tmp_path)
    shutil.rmtree(tmp_path / "folder")
    assert killed(act, tmp_path, count - 1, "power")
    assert [(tmp_path / name).read_text() for name in ("synced", "lost")] == ["abc", ""]
