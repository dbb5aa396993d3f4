"""Small files in the formats of microscopes, written by their published layouts."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[Any]]

LIF_DIMENSIONS = {"x": 1, "y": 2, "z": 3, "t": 4, "l": 5, "e": 9, "q": 77}


def write_lif(path: Path, images: Mapping[str, tuple[Pixels, str, Mapping[str, Any]]]) -> None:
    """Write arrays by name, each with its axes, as ``czyx``, and facts.

    Facts are ``size`` (metres from pixel to pixel by axis), ``bits``, ``tables`` (lookup tables),
    ``dyes`` and ``tags`` (1 is red, 2 green, 3 blue).
    """
    elements, blocks = [], []
    for number, (name, (pixels, axes, facts)) in enumerate(images.items()):
        strides = dict(zip(axes, pixels.strides, strict=True))
        sizes = dict(zip(axes, pixels.shape, strict=True))
        count = sizes.get("c", 1)
        bits = facts.get("bits", 8 * pixels.dtype.itemsize)
        channels = "".join(
            f'<ChannelDescription DataType="{int(pixels.dtype.kind == "f")}" '
            f'ChannelTag="{facts.get("tags", [0] * count)[i]}" Resolution="{bits}" '
            'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" '
            f'LUTName="{facts.get("tables", ["Gray"] * count)[i]}" IsLUTInverted="0" '
            f'BytesInc="{i * strides.get("c", 0)}" BitInc="0">'
            + "".join(
                f"<ChannelProperty><Key>DyeName</Key><Value>{dye}</Value></ChannelProperty>"
                for dye in facts.get("dyes", [])[i : i + 1]
            )
            + "</ChannelDescription>"
            for i in range(count)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{LIF_DIMENSIONS[axis]}" '
            f'NumberOfElements="{sizes[axis]}" '
            f'Origin="0" Length="{facts.get("size", {}).get(axis, 0) * (sizes[axis] - 1)}" '
            f'Unit="{"s" if axis == "t" else "m"}" BitInc="0" BytesInc="{strides[axis]}"/>'
            for axis in axes
            if axis != "c"
        )
        elements.append(
            f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
            f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        blocks.append((f"MemBlock_{number}", pixels.tobytes()))
    header = (
        f'<LMSDataContainerHeader Version="2"><Element Name="{path.name}"><Data/><Children>'
        f"{''.join(elements)}</Children></Element></LMSDataContainerHeader>"
    )
    with path.open("wb") as file:
        file.write(struct.pack("<IIBI", 0x70, 2 * len(header) + 5, 0x2A, len(header)))
        file.write(header.encode("utf-16-le"))
        for name, data in blocks:
            file.write(struct.pack("<IIBQBI", 0x70, 0, 0x2A, len(data), 0x2A, len(name)))
            file.write(name.encode("utf-16-le") + data)


ND2_MAGIC = 0x0ABECEDA
ND2_SIGNATURES = (
    b"ND2 FILE SIGNATURE CHUNK NAME01!",
    b"ND2 FILEMAP SIGNATURE NAME 0001!",
    b"ND2 CHUNK MAP SIGNATURE 0000001!",
)


def write_nd2(
    path: Path,
    frames: Sequence[Pixels],
    *,
    names: Sequence[str] = (),
    colors: Sequence[int] = (),
    size: float = 0.0,
    bits: int = 0,
    positions: Sequence[str] = (),
    depth: int = 1,
    compressed: bool = False,
    padding: int = 0,
    dyes: bool = True,
    missing: Sequence[int] = (),
) -> None:
    """Write frames ``(h, w, c)``; those of positions and depths in this order.

    Parameters
    ----------
    path, frames
        The file, and its frames; three components of one channel are blue, green, red.
    names, colors
        Of the channels; none are the components of one channel. A colour is ``0xBBGGRR``.
    size
        µm per pixel.
    bits
        Significant ones.
    positions, depth
        Names of the stage positions, and number of planes along z, 2 µm apart.
    compressed
        Whether frames are compressed.
    padding
        Bytes after each row.
    dyes
        Whether channels have the spectra of their dyes, without which nd2 reads no metadata.
    missing
        Frames that are announced but not stored, as of a recording that was stopped.
    """
    h, w, c = frames[0].shape
    item = frames[0].dtype.itemsize
    attributes = {
        "uiWidth": w, "uiWidthBytes": w * c * item + padding, "uiHeight": h, "uiComp": c,
        "uiBpcInMemory": 8 * item, "uiBpcSignificant": bits or 8 * item,
        "uiSequenceCount": len(frames), "eCompression": 0 if compressed else 2,
        "dCompressionParam": 0.0,
    }  # fmt: skip
    planes: dict[str, dict[str, Any]] = {
        f"a{i}": {"sDescription": name, "uiColor": color, "uiCompCount": 1}
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    } or {"a0": {"sDescription": "Brightfield", "uiColor": 0xFFFFFF, "uiCompCount": c}}
    for plane in planes.values() if dyes else ():
        plane["pFluorescentProbe"] = {"m_ExcitationSpectrum": {"uiCount": 0}}
    metadata = {
        "bCalibrated": size > 0,
        "dCalibration": size,
        "sPicturePlanes": {"uiCount": len(planes), "sPlaneNew": planes},
    }
    loops: list[dict[str, Any]] = []
    if positions:
        points = {f"i{i}": {"dPosX": 0.0, "dPosName": name} for i, name in enumerate(positions)}
        loops.append({"eType": 2, "uLoopPars": {"Points": points}})
    if depth > 1:
        loops.append({"eType": 4, "uLoopPars": {"uiCount": depth, "dZStep": 2.0}})
    for outer, inner in pairwise(loops):
        outer["ppNextLevelEx"] = {"i0": inner}
    chunks = {
        b"ImageAttributesLV!": encode_variant("SLxImageAttributes", attributes),
        b"ImageMetadataSeqLV|0!": encode_variant("SLxPictureMetadata", metadata),
    }
    if loops:
        chunks[b"ImageMetadataLV!"] = encode_variant("SLxExperiment", loops[0])
    for i, frame in enumerate(frames):
        rows = [row.tobytes() + bytes(padding) for row in frame]
        data = zlib.compress(b"".join(rows)) if compressed else b"".join(rows)
        if i not in missing:
            chunks[f"ImageDataSeq|{i}!".encode()] = bytes(8) + data
    places = []
    with path.open("wb") as file:
        file.write(struct.pack("IIQ", ND2_MAGIC, 32, 64) + ND2_SIGNATURES[0])
        file.write(b"Ver3.0".ljust(64, b"\0"))
        for name, data in chunks.items():
            at = file.seek(0, 1)
            # The pixels begin 4096 bytes after the chunk.
            file.write(struct.pack("IIQ", ND2_MAGIC, 4072, len(data)) + name.ljust(4072, b"\0"))
            file.write(data)
            places.append(name + struct.pack("QQ", at, len(data)))
        start = file.seek(0, 1)
        listed = b"".join(places) + ND2_SIGNATURES[2] + struct.pack("Q", start)
        file.write(struct.pack("IIQ", ND2_MAGIC, 32, len(listed)) + ND2_SIGNATURES[1] + listed)


def encode_variant(name: str, value: Any) -> bytes:
    """Encode a value as a record of NIS-Elements' metadata."""
    head = bytes([len(name) + 1]) + f"{name}\0".encode("utf-16-le")
    if isinstance(value, bool):
        return b"\x01" + head + struct.pack("B", value)
    if isinstance(value, int):
        return b"\x03" + head + struct.pack("<I", value)
    if isinstance(value, float):
        return b"\x06" + head + struct.pack("<d", value)
    if isinstance(value, str):
        return b"\x08" + head + f"{value}\0".encode("utf-16-le")
    items = b"".join(encode_variant(key, entry) for key, entry in value.items())
    length = 1 + len(head) + 12 + len(items)
    return b"\x0b" + head + struct.pack("<IQ", len(value), length) + items + bytes(8 * len(value))


DICOM_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The class of whole-slide images."""
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DICOM_ROOT = "1.2.826.0.1.3680043.8.498."


def write_dicom(path: Path, pixels: Pixels, *, tile: int = 128, size: float = 0.5) -> None:
    """Write colours ``(h, w, 3)`` as a slide in DICOM, in tiles that are not compressed.

    Parameters
    ----------
    path, pixels
        The file and its pixels.
    tile
        Side of the tiles.
    size
        µm per pixel.
    """
    height, width, _ = pixels.shape
    down, across = -(-height // tile), -(-width // tile)
    full = np.full((down * tile, across * tile, 3), 255, np.uint8)
    full[:height, :width] = pixels
    tiles = full.reshape(down, tile, across, tile, 3).swapaxes(1, 2)
    spacing = encode_element(0x28, 0x30, "DS", f"{size / 1000}\\{size / 1000}")
    thickness = encode_element(0x18, 0x50, "DS", "0.001")
    elements = [
        (0x08, 0x08, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"), (0x08, 0x16, "UI", DICOM_SLIDE),
        (0x08, 0x18, "UI", f"{DICOM_ROOT}1"), (0x08, 0x60, "CS", "SM"),
        (0x20, 0x0D, "UI", f"{DICOM_ROOT}2"), (0x20, 0x0E, "UI", f"{DICOM_ROOT}3"),
        (0x20, 0x13, "IS", "1"), (0x20, 0x52, "UI", f"{DICOM_ROOT}4"),
        (0x20, 0x9311, "CS", "TILED_FULL"), (0x28, 0x02, "US", 3), (0x28, 0x04, "CS", "RGB"),
        (0x28, 0x06, "US", 0), (0x28, 0x08, "IS", str(down * across)), (0x28, 0x10, "US", tile),
        (0x28, 0x11, "US", tile), (0x28, 0x100, "US", 8), (0x28, 0x101, "US", 8),
        (0x28, 0x102, "US", 7), (0x28, 0x103, "US", 0), (0x48, 0x06, "UL", width),
        (0x48, 0x07, "UL", height), (0x48, 0x105, "SQ", encode_item(b"")),
        (0x5200, 0x9229, "SQ", encode_item(
            encode_element(0x28, 0x9110, "SQ", encode_item(thickness + spacing)))),
        (0x7FE0, 0x10, "OB", tiles.tobytes()),
    ]  # fmt: skip
    meta = b"".join(
        encode_element(2, *entry)
        for entry in (
            (0x01, "OB", b"\0\1"), (0x02, "UI", DICOM_SLIDE), (0x03, "UI", f"{DICOM_ROOT}1"),
            (0x10, "UI", EXPLICIT_LITTLE_ENDIAN), (0x12, "UI", f"{DICOM_ROOT}9"),
        )
    )  # fmt: skip
    body = b"".join(encode_element(*entry) for entry in elements)
    path.write_bytes(bytes(128) + b"DICM" + encode_element(2, 0, "UL", len(meta)) + meta + body)


def encode_element(group: int, number: int, kind: str, value: str | int | bytes) -> bytes:
    """Encode an element with its type; see DICOM PS3.5, section 7.1.2."""
    if isinstance(value, str):
        text = value.encode()
        value = text + (b"\0" if kind == "UI" else b" ") * (len(text) % 2)
    elif isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    head = struct.pack("<HH", group, number) + kind.encode()
    if kind in ("OB", "SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def encode_item(content: bytes) -> bytes:
    """Encode an item of a sequence."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
