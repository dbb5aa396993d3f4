"""Runs beside other writers, after kills, and from damaged or foreign files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numcodecs import Zstd
from PIL import Image
from pyarrow import parquet
from toy_detectors import Finder, rectangles
from toys import ToyBundle, picture, toy_bundle

from hrviewer.engine import RunControl
from hrviewer.errors import ClaimedError, RunError
from hrviewer.phases import Phase
from hrviewer.runs import Run, export, run
from hrviewer.runs.runner import result_cache

IMAGE = picture(100, 120)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "x.run.zarr"


def test_a_second_run_into_a_folder_is_refused_and_changes_nothing(out):
    refused = []

    def start_another(event):
        if event == Phase("inference"):
            for resume in (False, True):
                with pytest.raises(ClaimedError, match="being written by process") as caught:
                    run(IMAGE, toy_bundle(), tile=32, out=out, cache="off", resume=resume)
                refused.append(str(caught.value))

    first = run(IMAGE, toy_bundle(), tile=32, out=out, cache="off", on_event=start_another)
    assert len(refused) == 2
    assert first.complete
    assert np.nansum(first.output) == pytest.approx(first.estimate["value"], rel=1e-5)
    assert not [*out.glob(".hrviewer-*")]


def test_runs_of_many_threads_get_folders_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path))
    bundle = toy_bundle()

    def one(_):
        return run(IMAGE, bundle, tile=64, cache="off")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert len({result.path for result in found}) == 4
    assert all(result.estimate == found[0].estimate for result in found)


def test_a_run_that_was_killed_before_its_header_starts_again(out):
    (out / "journal").mkdir(parents=True)
    (out / "output").mkdir()
    (out / ".hrviewer-claim-folder-0").write_text(
        '{"host": "gone", "pid": 1, "started": 0, "token": ""}'
    )
    os.utime(out / ".hrviewer-claim-folder-0", (0, 0))
    assert run(IMAGE, toy_bundle(), tile=64, out=out, cache="off", resume=True).complete
    assert Run(out).complete


def stop_after_two_rounds(out, image, bundle):
    """Leave an incomplete run with two requests in its journal."""
    control = RunControl()

    def stop(event):
        if len([*(out / "journal").glob("*.results")]) >= 2:
            control.stop()

    partial = run(image, bundle, tile=16, out=out, cache="off", on_event=stop, control=control)
    assert not partial.complete
    return sorted((out / "journal").glob("*.results"))


@pytest.mark.parametrize("kind", ["truncated", "empty", "flipped", "old", "stray", "gone"])
def test_a_damaged_journal_is_computed_again_to_the_same_bits(out, kind):
    image, bundle = picture(400, 400), toy_bundle()
    first, *_ = stop_after_two_rounds(out, image, bundle)
    data = first.read_bytes()
    if kind == "stray":
        (out / "journal" / "x-y.results").write_bytes(b"stray")
        (out / "journal" / "x-y.npz").write_bytes(b"stray")
    elif kind == "gone":
        first.unlink()
    else:
        flipped = data[:500] + bytes([data[500] ^ 1]) + data[501:]
        old = b"hrviewer-0.0.1" + data[data.index(b" ") :]
        first.write_bytes(
            {"truncated": data[:-99], "empty": b"", "flipped": flipped, "old": old}[kind]
        )
    resumed = run(image, bundle, tile=16, out=out, cache="off", resume=True)
    whole = run(image, bundle, tile=16, out=out.with_name("w.run.zarr"), cache="off")
    assert resumed.complete
    assert resumed.estimate == whole.estimate
    np.testing.assert_array_equal(resumed.output, whole.output)
    noted = [note for note in resumed.header["notes"] if "computed again" in note]
    assert len(noted) == (kind not in ("stray", "gone"))


def test_a_damaged_cache_entry_is_computed_again_with_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path))
    cache = result_cache.__wrapped__()
    monkeypatch.setattr("hrviewer.runs.model.result_cache", lambda: cache)
    first = run(IMAGE, toy_bundle(), tile=64, out=tmp_path / "a.run.zarr")
    cache.close()
    with sqlite3.connect(tmp_path / "results.sqlite") as file:
        file.execute("UPDATE results SET data = substr(data, 1, 99)")
    file.close()
    cache = result_cache.__wrapped__()
    monkeypatch.setattr("hrviewer.runs.model.result_cache", lambda: cache)
    second = run(IMAGE, toy_bundle(), tile=64, out=tmp_path / "b.run.zarr")
    cache.close()
    assert second.estimate == first.estimate
    assert second.header["patches"]["cached"] == 0
    assert any("cached results were damaged" in note for note in second.header["notes"])


@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors are those of Linux")
def test_journal_files_are_on_the_disk_before_they_are_named(out, monkeypatch):
    """A power cut between any two calls leaves whole files only, in the order of requests."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_replace(source, target):
        calls.append(("name", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    run(picture(400, 400), toy_bundle(), tile=16, out=out, cache="off")
    named = [i for i, (what, path) in enumerate(calls) if what == "name" and ".results" in path]
    assert len(named) >= 2
    for i in named:
        path = calls[i][1]
        assert calls[i - 1] == ("sync", f"{path}.new")
        assert calls[i + 1] == ("sync", str(Path(path).parent))


# Run folders that hrviewer did not write.


@pytest.fixture
def done(out) -> Path:
    run(IMAGE, toy_bundle(), tile=64, out=out, cache="off")
    return out


def edit_json(path, change):
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, None)
            for field in ("image", "patches", "cost", "model", "params", "started", "notes")
        ),
        ("image", {}),
        ("image.shape", [0, 10]),
        ("image.shape", [10]),
        ("image.shape", [1 << 40, 1]),
        ("image.pixel_size", [0.0, 1.0]),
        ("region", "all"),
        ("estimate", [1]),
        ("patches.done", -1),
    ],
)
def test_a_run_json_of_another_form_is_refused_in_one_line(done, field, value):
    def change(header):
        *parents, name = field.split(".")
        for parent in parents:
            header = header[parent]
        header[name] = value

    edit_json(done / "run.json", change)
    with pytest.raises(RunError, match="not written by hrviewer") as caught:
        Run(done)
    assert "\n" not in str(caught.value)
    assert field.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", '"strategy"', "[" * 100_000, '{"strategy": ' + "[" * 100_000, "\xff", "{}"]
)
def test_a_run_json_that_is_no_object_is_refused(done, text):
    (done / "run.json").write_text(text, "latin-1")
    with pytest.raises(RunError, match="not a readable run folder"):
        Run(done)


def test_a_run_folder_runs_no_code(done, tmp_path):
    """Object arrays of Zarr 2 with the filter pickle ran theirs when they were decoded."""
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    shutil.rmtree(done / "output")
    array = done / "output" / "0"
    array.mkdir(parents=True)
    (done / "output" / ".zgroup").write_text('{"zarr_format": 2}')
    (array / ".zarray").write_text(
        json.dumps(
            {
                "zarr_format": 2, "shape": [1, 4, 4], "chunks": [1, 4, 4], "dtype": "|O",
                "compressor": None, "fill_value": None, "order": "C",
                "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}],
            }
        )
    )  # fmt: skip
    (array / "0.0.0").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(RunError, match="output"):
        export(done, tmp_path / "x.png")
    # The metadata of Zarr 3 beside it do not help.
    (done / "output" / "zarr.json").write_text(
        json.dumps(
            {"zarr_format": 3, "node_type": "group", "attributes": {"hrviewer": {"cell": 4}}}
        )
    )
    with pytest.raises(RunError, match="not written by hrviewer"):
        export(done, tmp_path / "x.png")
    assert not marker.exists()
    assert pickle.loads(pickle.dumps(Payload())) is None  # the payload works
    assert marker.exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data_type", "int32", "data_type"),
        ("data_type", {"name": "numpy.datetime64"}, "data_type"),
        (
            "codecs",
            [{"name": "bytes"}, {"name": "numcodecs.pickle"}],
            "codecs are bytes, numcodecs",
        ),
        ("codecs", [{"name": "bytes"}, {"name": "zstd"}, {"name": "zstd"}], "codecs are"),
        ("shape", [1, 1 << 40, 1], "shape"),
        ("shape", [1, 4], "shape"),
        ("zarr_format", 2, "zarr_format"),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [9999] * 3}}, "MiB"),
        ("storage_transformers", [{"name": "x"}], "storage_transformers"),
    ],
)
def test_a_map_of_another_form_is_refused_before_it_is_decoded(done, field, value, message):
    edit_json(done / "output" / "0" / "zarr.json", lambda data: data.update({field: value}))
    with pytest.raises(RunError, match=message) as caught:
        Run(done).map("output")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", [0, -1, "x", None, float("nan")])
def test_cells_have_a_size(done, cell):
    edit_json(
        done / "cost" / "zarr.json", lambda data: data["attributes"]["hrviewer"].update(cell=cell)
    )
    with pytest.raises(RunError, match="cell"):
        Run(done).cost_map()


@pytest.mark.parametrize("kind", ["bomb", "no frame", "device", "damaged"])
def test_a_chunk_that_is_not_as_written_is_refused(done, kind):
    (chunk,) = (file for file in (done / "output" / "0" / "c").rglob("*") if file.is_file())
    data = chunk.read_bytes()
    chunk.unlink()
    if kind == "bomb":
        chunk.write_bytes(Zstd().encode(np.zeros(1 << 26, np.uint8)))
    elif kind == "device":
        chunk.symlink_to("/dev/zero")
    elif kind == "damaged":
        middle = len(data) // 2
        chunk.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        chunk.write_bytes(b"x" * 100)
    reasons = {"bomb": "no chunk", "no frame": "no chunk", "damaged": "damaged"}
    with pytest.raises((RunError, ValueError), match=reasons.get(kind, "regular file")):
        _ = Run(done).output


def test_a_table_of_patches_of_another_form_is_refused(done):
    table = pd.read_parquet(done / "patches.parquet")
    for changed in (
        table.drop(columns="y"),
        table.assign(id=[None, *table["id"][1:]]),
        table.assign(flops="many"),
    ):
        changed.to_parquet(done / "patches.parquet")
        with pytest.raises(RunError, match="not written by hrviewer"):
            _ = Run(done).patches
    (done / "patches.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(RunError, match="cannot be read"):
        _ = Run(done).patches
    (done / "patches.parquet").unlink()
    with pytest.raises(RunError, match="no table of patches"):
        _ = Run(done).patches


def test_a_table_of_objects_of_another_form_is_refused(out):
    image, _ = rectangles(100, 120, 20)
    found = run(image, ToyBundle(main=Finder()), "patches", tile=64, out=out, cache="off")
    table = parquet.read_table(out / "objects.parquet")
    assert len(Run(out).objects()) == round(found.estimate["value"]) > 0
    label = table.column_names.index("label")
    for changed in (
        table.drop_columns("y"),
        table.set_column(label, "label", [["unknown"] * len(table)]),
        table.set_column(table.column_names.index("outline"), "outline", [[b"x"] * len(table)]),
        table.replace_schema_metadata({"hrviewer": "[" * 100_000}),
        table.replace_schema_metadata({"hrviewer": '{"classes": 1}'}),
        table.replace_schema_metadata({}),
    ):
        parquet.write_table(changed, out / "objects.parquet")
        with pytest.raises(RunError, match=r"objects\.parquet|table of objects") as caught:
            Run(out).objects()
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are Unicode")
def test_a_run_of_an_image_whose_name_is_no_unicode_is_readable(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Image.fromarray(picture(32, 32)).save(path)
    run(path, toy_bundle(), tile=32, out=tmp_path / "a.run.zarr", cache="off")
    assert Run(tmp_path / "a.run.zarr").header["image"]["path"] == path


@pytest.mark.parametrize("suffix", ["html", "png", "ome.zarr"])
def test_a_map_that_does_not_cover_the_image_is_refused(done, suffix, tmp_path):
    """Exported as a picture of 10⁷ cells a side, it took minutes."""
    file = done / "output" / "0" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["shape"][1:] = [10**7, 10**7]
    file.write_text(json.dumps(metadata))
    with pytest.raises(RunError, match="do not cover the image"):
        export(Run(done), tmp_path / f"x.{suffix}")
