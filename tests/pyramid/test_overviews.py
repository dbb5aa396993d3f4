"""Coarse levels that a file lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from hrviewer.paths import cache_folder
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.overviews import halved_shape, missing_level_count


@pytest.mark.parametrize(
    ("longest", "count"), [(5, 0), (2048, 0), (2049, 2), (4096, 2), (4097, 3), (131072, 7)]
)
def test_levels_end_at_1024(longest: int, count: int) -> None:
    assert missing_level_count((10, longest, 1)) == count
    if count:
        assert (
            halved_shape((10, longest, 1), count)[1]
            <= 1024
            < halved_shape((10, longest, 1), count - 1)[1]
        )


def test_overviews_are_built_once_and_found_again(svs: Path) -> None:
    with open_pyramid(svs) as pyramid:
        assert (pyramid.missing_levels(), len(pyramid.levels)) == (2, 1)
        before = pyramid.read(pyramid.rect, 2)
        fractions: list[float] = []
        pyramid.build_overviews(fractions.append)
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(1)
        assert pyramid.missing_levels() == 0
        assert [level.shape for level in pyramid.levels] == [
            (2967, 2220, 3), (1484, 1110, 3), (742, 555, 3)]  # fmt: skip
        assert pyramid.levels[1].downsample == (2, 2)
        pyramid.check()
        np.testing.assert_array_equal(pyramid.read(pyramid.rect, 2), before)
        pyramid.build_overviews()
        assert len(pyramid.levels) == 3
        quarter = pyramid.read(pyramid.rect, 4)
    with open_pyramid(svs) as again:
        assert len(again.levels) == 3
        np.testing.assert_array_equal(again.read(again.rect, 4), quarter)
        direct = again.levels[0].read(0, 2964, 0, 2220).reshape(741, 4, 555, 4, 3).mean((1, 3))
        assert np.abs(quarter[:741].astype(float) - direct).max() <= 1.01  # rounded twice
    folder = cache_folder() / "overviews"
    assert [entry.name for entry in folder.iterdir()] == [again.fingerprint]


def test_levels_built_by_another_process_are_used(svs: Path) -> None:
    first, second = open_pyramid(svs), open_pyramid(svs)
    first.build_overviews()
    assert len(second.levels) == 1
    second.build_overviews()
    assert len(second.levels) == 3


def test_cancelled_building_keeps_nothing(svs: Path) -> None:
    with open_pyramid(svs) as pyramid:
        calls = iter([False, False, True])
        pyramid.build_overviews(cancelled=lambda: next(calls))
        assert len(pyramid.levels) == 1
    assert list((cache_folder() / "overviews").iterdir()) == []


def test_stored_levels_of_another_shape_are_ignored(svs: Path) -> None:
    with open_pyramid(svs) as pyramid:
        pyramid.build_overviews()
    folder = cache_folder() / "overviews" / pyramid.fingerprint
    (folder / "2" / "zarr.json").unlink()
    with open_pyramid(svs) as pyramid:
        assert len(pyramid.levels) == 1
        pyramid.build_overviews()
        assert len(pyramid.levels) == 3


def test_lazy_arrays_have_overviews_for_the_session(rng: np.random.Generator) -> None:
    import dask.array as da

    image = rng.integers(0, 255, (2100, 300), np.uint8)
    pyramid = open_pyramid(da.from_array(image, chunks=512))
    pyramid.build_overviews()
    assert len(pyramid.levels) == 3
    folder = pyramid._overviews._folder.path
    assert folder.is_dir()
    pyramid.close()
    assert not folder.exists()
    assert not (cache_folder() / "overviews").exists()


def test_arrays_in_memory_have_them_at_once(rng: np.random.Generator) -> None:
    image = rng.random((2100, 300)).astype(np.float32)
    image[:2, :2] = np.nan
    pyramid = open_pyramid(image)
    assert [level.shape[:2] for level in pyramid.levels] == [(2100, 300), (1050, 150), (525, 75)]
    half = pyramid.levels[1].read(0, 1050, 0, 150)[..., 0]
    assert np.isnan(half[0, 0])
    np.testing.assert_allclose(half[1:], image[2:].reshape(1049, 2, 150, 2).mean((1, 3)), rtol=1e-5)


def test_float_overviews_on_disk(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.random((2100, 70)).astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", image)
    with open_pyramid(tmp_path / "f.tif") as pyramid:
        pyramid.build_overviews()
        np.testing.assert_allclose(
            pyramid.levels[1].read(0, 1050, 0, 35)[..., 0],
            image.reshape(1050, 2, 35, 2).mean((1, 3)),
            rtol=1e-5,
        )


def test_importing_is_light() -> None:
    script = (
        "import sys, hrviewer.pyramid;"
        "heavy = {'zarr', 'dask', 'tifffile', 'openslide', 'skimage', 'scipy', 'torch', 'napari'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HRVIEWER_CACHE")
    assert cache_folder().name == "hrviewer"
