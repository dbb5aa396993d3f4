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
