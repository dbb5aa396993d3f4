"""A part is never reported as the whole: failed patches, damaged files, budgets, changed images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from toys import Bright, ToyBundle, picture, toy_bundle

from hrviewer.engine import InferenceResult, RunControl
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs import Run, compare, run

IMAGE = picture(640, 768)
TOTAL = float(IMAGE[..., 0].sum() / 255)


class Failing(Bright):
    """Fails where the batch begins with a given red value."""

    def __init__(self, share: float) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.share, self.draws = share, iter(rng.random(10_000))
        self.before = self.fail

    def fail(self, batch: NDArray[Any]) -> None:
        if next(self.draws) < self.share:
            raise RuntimeError("out of ink")


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture(1536, 1536), tile=(64, 64), compression="zlib")
    yield path
    tile_cache().clear()


def test_failed_patches_are_estimated_by_the_others(tmp_path: Path) -> None:
    bundle = ToyBundle(main=Failing(0.4))
    part = run(IMAGE, bundle, tile=64, cache="off", out=tmp_path / "a.run.zarr")
    failed = part.header["patches"]["failed"]
    assert 30 < failed < 70
    assert not part.complete
    assert part.incomplete == f"{failed} of 120 patches failed, the first: RuntimeError: out of ink"
    assert part.coverage == pytest.approx(100 * (120 - failed) / 120, abs=0.01)
    assert part.estimate is not None
    assert part.estimate["value"] == pytest.approx(TOTAL, rel=0.1)
    low, high = part.estimate["ci95"] or (0, 0)
    assert low < TOTAL < high
    assert part.estimate["coverage"] == pytest.approx(part.coverage / 100)
    for text in (repr(part), part._repr_html_()):
        assert "incomplete" in text
    # Resuming runs the failed patches again.
    bundle.load("main").share = 0.0
    whole = run(IMAGE, bundle, tile=64, cache="off", out=part.path, resume=True)
    assert (whole.complete, whole.incomplete, whole.coverage) == (True, None, 100)
    assert whole.estimate is not None
    assert whole.estimate["value"] == pytest.approx(TOTAL, rel=1e-5)


def test_a_file_that_is_cut_off_while_it_is_read(slide: Path, tmp_path: Path) -> None:
    size, results = slide.stat().st_size, 0

    def cut(update: object) -> None:
        nonlocal results
        results += isinstance(update, InferenceResult)
        if results == 300:
            os.truncate(slide, size // 2)

    part = run(slide, toy_bundle(), tile=64, cache="off", out=tmp_path / "a.run.zarr", on_event=cut)
    assert 100 < part.header["patches"]["failed"] < 290
    assert not part.complete
    assert part.incomplete is not None
    assert "patches failed, the first: " in part.incomplete
    assert "the image was changed" in part.incomplete
    assert 45 < part.coverage < 85
    true = float(picture(1536, 1536)[..., 0].sum() / 255)
    assert part.estimate is not None
    low, high = part.estimate["ci95"] or (0, 0)
    assert low < true < high


def test_an_image_that_changes_during_a_run(slide: Path, tmp_path: Path) -> None:
    def touch(update: object) -> None:
        os.utime(slide, (1, 1))

    part = run(
        slide, toy_bundle(), "uniform", cache="off", out=tmp_path / "a.run.zarr", on_event=touch
    )
    assert not part.complete
    assert part.incomplete == "the image was changed or removed during the run"
    assert part.coverage == 100


def test_a_budget_for_a_part_is_complete_and_has_its_coverage(tmp_path: Path) -> None:
    part = run(IMAGE, toy_bundle(), budget="40%", cache="off", out=tmp_path / "a.run.zarr")
    assert (part.complete, part.incomplete) == (True, None)
    assert part.coverage == pytest.approx(40, abs=2)
    assert part.estimate is not None
    low, high = part.estimate["ci95"] or (0, 0)
    assert low < TOTAL < high
    small = run(IMAGE, toy_bundle(), budget="2%", cache="off", out=tmp_path / "b.run.zarr")
    assert (small.complete, small.estimate) == (True, None)
    assert "too few for an estimate" in small.header["notes"][-1]


def test_a_stopped_run_estimates_the_whole_or_nothing(tmp_path: Path) -> None:
    control, results = RunControl(), 0

    def stop(update: object) -> None:
        nonlocal results
        results += isinstance(update, InferenceResult)
        if results == 30:
            control.stop()

    part = run(
        IMAGE, toy_bundle(), tile=64, cache="off", out=tmp_path / "a.run.zarr", on_event=stop,
        control=control,
    )  # fmt: skip
    assert part.incomplete == "stopped before the end"
    assert part.coverage < 30
    assert part.estimate is None


def test_a_comparison_gives_no_error_of_an_incomplete_run(tmp_path: Path) -> None:
    table = compare(
        IMAGE, ToyBundle(main=Failing(0.2)), ["patches:tile=64"], cache="off", out=tmp_path,
        progress=False,
    )  # fmt: skip
    (row,) = table.to_dict("records")
    assert "incomplete: " in row["note"]
    assert row["coverage"] < 100
    assert np.isnan(float(row["error"] if row["error"] is not None else np.nan))
    assert not Run(row["run"]).complete


def test_missing_chunks_are_noted_with_their_share(tmp_path: Path) -> None:
    path = tmp_path / "image.ome.zarr"
    root = zarr.create_group(path, zarr_format=3)
    pixels = picture(512, 512)
    array = root.create_array("0", shape=(3, 512, 512), chunks=(3, 256, 256), dtype=np.uint8)
    array[:] = pixels.transpose(2, 0, 1)
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": "c", "type": "channel"}]
                + [{"name": name, "type": "space"} for name in "yx"],
                "datasets": [{"path": "0", "coordinateTransformations": scale}],
            }
        ],
    }
    whole = run(path, toy_bundle(), tile=64, cache="off", out=tmp_path / "a.run.zarr")
    assert not any("chunks" in note for note in whole.header["notes"])
    tile_cache().clear()
    (path / "0" / "c" / "0" / "1" / "0").unlink()
    part = run(path, toy_bundle(), tile=64, cache="off", out=tmp_path / "b.run.zarr")
    assert part.complete  # by the format, chunks may be missing
    assert part.header["data_area"] == pytest.approx(0.75 * 512**2)
    assert any(note.startswith("25.00% of the chunks") for note in part.header["notes"])
