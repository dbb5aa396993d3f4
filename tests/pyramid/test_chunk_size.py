"""Chunks that decode to far more than they should."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tifffile
import zarr
from numcodecs import LZ4, Blosc, GZip, Zstd
from PIL import Image
from zarr.codecs import Crc32cCodec, GzipCodec

import hrviewer
from hrviewer.errors import HrviewerError, ImageReadError
from hrviewer.pyramid import zarr_tiles
from hrviewer.pyramid.chunk_size import decodes_within
from hrviewer.pyramid.readers import omezarr_store
from hrviewer.pyramid.readers.tiff_tags import coded_pixels

ENCODERS = {
    "zstd": Zstd().encode,
    "blosc": Blosc().encode,
    "lz4": LZ4().encode,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
}


@pytest.mark.parametrize("codec", ENCODERS)
def test_the_decoded_size_is_known_before_decoding(codec: str) -> None:
    data = bytes(ENCODERS[codec](bytes(3 << 20)))
    assert decodes_within(data, codec, 3 << 20)
    assert not decodes_within(data, codec, (3 << 20) - 1)
    # What is damaged is the decoder's to report.
    decodes_within(data[: len(data) // 2], codec, 10)
    assert decodes_within(b"", codec, 10)


@pytest.mark.parametrize("codec", ["gzip", "bz2", "lzma"])
def test_streams_behind_one_another_count_together(codec: str) -> None:
    """Decoders read them all; the second one passed unmeasured."""
    data = ENCODERS[codec](b"1") + ENCODERS[codec](bytes(3 << 20))
    assert decodes_within(data, codec, (3 << 20) + 1)
    assert not decodes_within(data, codec, 3 << 20)


def ome_zarr(folder: Path, shape: tuple[int, ...], **options: Any) -> Path:
    """Write an OME-Zarr 0.4 of one chunk, without pixels."""
    path = folder / "a.ome.zarr"
    zarr.create_array(
        path / "0", shape=shape, chunks=shape, dtype="u1", zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"}, **options,
    )  # fmt: skip
    scale = {"type": "scale", "scale": [1, 1, 1]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    axes = [{"name": name} for name in "cyx"]
    multiscale = {"version": "0.4", "axes": axes, "datasets": [level]}
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscale]}))
    return path


def test_a_bomb_in_an_ome_zarr_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_tiles, "MIN_DECODED_LIMIT", 1 << 20)
    path = ome_zarr(tmp_path, (3, 64, 64), compressors=[{"id": "zlib", "level": 1}])
    zarr.open_array(path / "0", mode="r+")[:] = 7
    (chunk,) = (file for file in (path / "0").rglob("*") if file.is_file() and file.name == "0")
    chunk.write_bytes(zlib.compress(bytes(2 << 20)))
    with (
        hrviewer.open(path) as image,
        pytest.raises(HrviewerError, match="decompresses to more than 1 MB") as caught,
    ):
        image.levels[0].read(0, 8, 0, 8)
    assert "file:" not in str(caught.value)


BOMB = bytes(2 << 20)


def damage_inner_chunks(path: Path) -> None:
    """Put a bomb in the place of all chunks of a shard of 2 × 2 chunks."""
    (file,) = (path / "c").rglob("0/0/0")
    bomb = gzip.compress(BOMB)
    index = struct.pack("<8Q", *[0, len(bomb)] * 4)
    file.write_bytes(bomb + index + struct.pack("<I", google_crc32c.value(index)))


@pytest.mark.parametrize("side", [32, 64])
def test_a_bomb_inside_a_shard_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """Shards that were read as a whole passed unchecked."""
    monkeypatch.setattr(zarr_tiles, "MIN_DECODED_LIMIT", 1 << 20)
    path = tmp_path / "a"
    array = zarr.create_array(
        path, shape=(64, 64, 3), shards=(64, 64, 3), chunks=(32, 32, 3), dtype="u1",
        compressors=[GzipCodec()],
    )  # fmt: skip
    array[:] = 7
    tiles = zarr_tiles.ZarrTiles(array, "yxc", {})
    assert (tiles.read(0, side, 0, side).pixels == 7).all()
    damage_inner_chunks(path)
    with pytest.raises(ImageReadError, match="decompresses to more than 1 MB"):
        tiles.read(0, side, 0, side)


@pytest.mark.parametrize(
    ("version", "options", "encode"),
    [
        (3, {"compressors": [GzipCodec(), Crc32cCodec()]}, lambda data: checksummed(data)),
        (3, {"compressors": [GzipCodec(), GzipCodec()]}, gzip.compress),
        (2, {"compressors": None, "filters": [GZip()]}, lambda data: data),
    ],
)
def test_every_codec_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Any, options: Any, encode: Any
) -> None:
    """Only the last compressor was, so that a checksum or a filter after it let bombs pass."""
    monkeypatch.setattr(zarr_tiles, "MIN_DECODED_LIMIT", 1 << 20)
    array = zarr.create_array(
        tmp_path, shape=(64, 64, 3), chunks=(64, 64, 3), dtype="u1", zarr_format=version, **options
    )
    array[:] = 7
    tiles = zarr_tiles.ZarrTiles(array, "yxc", {})
    assert (tiles.read(0, 9, 0, 9).pixels == 7).all()
    (file,) = tmp_path.rglob("0.0.0" if version == 2 else "0/0/0")
    file.write_bytes(encode(gzip.compress(BOMB)))
    with pytest.raises(ImageReadError, match="decompresses to more than 1 MB"):
        tiles.read(0, 9, 0, 9)


def checksummed(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def test_frames_of_zstandard_without_a_stated_size() -> None:
    """Their blocks state it: four bytes stand for 128 KiB."""
    block = 128 << 10
    blocks = [(block << 3 | 1 << 1 | last).to_bytes(3, "little") + b"a" for last in (0, 0, 1)]
    frame = b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(blocks)
    assert Zstd().decode(frame) == b"a" * 3 * block
    assert decodes_within(frame, "zstd", 3 * block)
    assert not decodes_within(frame, "zstd", 3 * block - 1)
    assert decodes_within(frame[:9], "zstd", 2 * block)


def test_a_chunk_file_larger_than_its_pixels_is_not_read(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path, shape=(8, 8, 3), chunks=(8, 8, 3), dtype="u1", compressors=None
    )
    array[:] = 7
    (file,) = tmp_path.rglob("0/0/0")
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageReadError, match="more than its pixels take"):
        zarr_tiles.ZarrTiles(array, "yxc", {}).read(0, 8, 0, 8)


def test_a_zip_of_large_compressed_chunks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omezarr_store, "MAX_CHUNK_BYTES", 1 << 20)
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", '{"zarr_format": 3, "node_type": "group"}')
        file.writestr("0/c/0/0/0", BOMB)
    with pytest.raises(HrviewerError, match="without compression"):
        hrviewer.open(path)


def test_chunks_of_many_channels_are_refused(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path, (5000, 1024, 1024))
    with pytest.raises(HrviewerError, match="chunks of 5,243 MB") as caught:
        hrviewer.open(path)
    assert "file:" not in str(caught.value)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_a_tile_whose_own_header_is_larger_is_refused(tmp_path: Path, compression: str) -> None:
    """It took five gigabytes."""
    path = tmp_path / "a.tif"
    pixels = np.zeros((32, 32, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32), compression=compression)
    data = path.read_bytes()
    sizes = {"jpeg": struct.pack(">HH", 32, 32), "jpeg2000": struct.pack(">II", 32, 32)}
    start = data.index({"jpeg": b"\xff\xc0", "jpeg2000": b"\xff\x4f\xff\x51"}[compression])
    at = data.index(sizes[compression], start)
    larger = struct.pack(">HH" if compression == "jpeg" else ">II", 65_000, 65_000)
    path.write_bytes(data[:at] + larger + data[at + len(larger) :])
    with hrviewer.open(path) as image, pytest.raises(HrviewerError, match="own header"):
        image.levels[0].read(0, 8, 0, 8)


def test_a_png_that_ends_early_is_refused(tmp_path: Path) -> None:
    """With right checksums; its other rows were black."""
    path = tmp_path / "a.png"
    rows = b"".join(b"\0" + bytes([200] * 30) for _ in range(4))

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    for height in (4, 40):
        header = struct.pack(">IIBBBBB", 10, height, 8, 2, 0, 0, 0)
        parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
        if height == 4:
            with hrviewer.open(path) as image:
                assert (image.levels[0].read(0, 4, 0, 10) == 200).all()
    with (
        hrviewer.open(path) as image,
        pytest.raises(HrviewerError, match="fewer rows than its header"),
    ):
        image.levels[0].read(0, 8, 0, 8)


def test_the_size_in_a_jpegs_own_header(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (37, 21)).save(path, comment=b"C" * 300)
    data = path.read_bytes()
    assert coded_pixels(data) == 37 * 21
    assert [coded_pixels(part) for part in (b"", data[:4], data[2:], b"\xff\xd8\xff\xd9")] == [
        0
    ] * 4


def test_pictures_start_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript, whichever suffix the file has."""
    marker, program = tmp_path / "started", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert shutil.which("gs") == str(program)
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    with pytest.raises(HrviewerError) as caught:
        hrviewer.open(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
