"""Sources of a batch: files, folders, patterns, remote folders and tables."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from hrviewer.batch import ImageEntry, check_images, list_entries
from hrviewer.errors import HrviewerError, ImageReadError, ParameterError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.svs", "notes.txt", "deep/c.tif", "deep/.hidden/d.tif", ".e.png"):
        path = tmp_path / "slides" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "slides" / "pyramid.zarr").mkdir()
    (tmp_path / "slides" / "old.run.zarr").mkdir()
    return tmp_path / "slides"


def names(entries: list[ImageEntry]) -> list[str]:
    return [Path(entry.image).name for entry in entries]


def test_a_folder_has_its_images_in_order(folder):
    assert names(list_entries(folder)) == ["a.svs", "b.png", "pyramid.zarr"]


def test_a_folder_is_searched_at_every_depth(folder):
    assert names(list_entries(folder, recursive=True)) == [
        "a.svs", "b.png", "c.tif", "pyramid.zarr",
    ]  # fmt: skip


def test_patterns_and_repeated_images(folder):
    entries = list_entries([folder / "b.png", f"{folder}/*.svs", folder / "b.png"])
    assert names(entries) == ["b.png", "a.svs"]


@pytest.mark.parametrize("source", ["*.nothing", "empty"])
def test_a_source_without_images_is_an_error(tmp_path, source):
    (tmp_path / "empty").mkdir()
    with pytest.raises(HrviewerError, match=r"no image|no file"):
        list_entries(f"{tmp_path}/{source}")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ImageReadError, match=r"there is no folder .*nowhere"):
        list_entries(f"{tmp_path}/nowhere/")


def test_a_missing_file_is_an_entry_that_will_fail(tmp_path):
    entries = list_entries(tmp_path / "none.tif")
    assert names(entries) == ["none.tif"]
    assert "none.tif" in check_images(entries)[0]["error"]


def test_a_table_says_what_is_different_for_an_image(tmp_path):
    (tmp_path / "cohort.csv").write_text(
        "\ufeffimage,region,truth,set.k,patient\n"
        'a.svs,"0,0,64,64",auto,32,P1\n'
        "sub/b.png,,b.csv,,P2\n"
        "s3://bucket/c.tif,,,,P3\n"
    )
    first, second, third = list_entries(tmp_path / "cohort.csv")
    assert first == ImageEntry(
        image=str(tmp_path / "a.svs"),
        region="0,0,64,64",
        truth="auto",
        params={"k": "32"},
        columns={"patient": "P1"},
    )
    assert second.image == str(tmp_path / "sub/b.png")
    assert second.truth == str(tmp_path / "b.csv")
    assert second.params == {}
    assert second.region is None
    assert third.image == "s3://bucket/c.tif"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table of images"),
        ("slide\na.svs\n", "column `image`"),
        ("image,region\na.svs\n", "line 2 .* number of columns"),
        ("image\na.svs,b\n", "line 2 .* number of columns"),
        ("image,region\n,1\n", "line 2 .* no image"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(ParameterError, match=message) as raised:
        list_entries(tmp_path / "cohort.csv")
    assert "\n" not in str(raised.value)


def test_a_missing_table_is_one_line(tmp_path):
    with pytest.raises(ParameterError, match="no table"):
        list_entries(tmp_path / "none.csv")


def test_a_remote_folder_is_listed():
    files = fsspec.filesystem("memory")
    for name in ("b.tif", "a.svs", "readme.md", "deep/c.tif"):
        files.pipe(f"/listed/{name}", b"")
    try:
        assert names(list_entries("memory://listed/")) == ["a.svs", "b.tif"]
        assert names(list_entries("memory://listed/", recursive=True)) == [
            "a.svs",
            "b.tif",
            "c.tif",
        ]
        assert names(list_entries("memory://listed/*.svs")) == ["a.svs"]
        with pytest.raises(ImageReadError, match=r"cannot be listed|no image"):
            list_entries("memory://missing/")
    finally:
        files.rm("/listed", recursive=True)
