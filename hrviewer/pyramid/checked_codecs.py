"""Zarr arrays whose codecs check how much a chunk decodes to before they decode it.

The check is at each codec, so that it holds for chunks, for the inner chunks of shards however they
are read, for codecs one after the other, and for filters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.chunk_size import decodes_within

__all__ = ["with_checked_codecs"]


def with_checked_codecs(array: Any, name: str, limit: int) -> Any:
    """Return a zarr array that raises `ImageReadError` for a chunk that decodes to too much.

    Parameters
    ----------
    array : zarr.Array
        Of either format.
    name : str
        Name of the array in the message.
    limit : int
        Bytes of a decoded chunk.
    """
    import zarr

    check, metadata = SizeCheck(name, limit), array.metadata
    if metadata.zarr_format == 2:
        wrapped = [
            None if codec is None else _checked_codec()(codec, check)
            for codec in (metadata.compressor, *(metadata.filters or ()))
        ]
        changed = replace(metadata, compressor=wrapped[0], filters=tuple(wrapped[1:]) or None)
    else:
        changed = replace(metadata, codecs=tuple(_checked(metadata.codecs, check)))
    return zarr.Array(zarr.AsyncArray(changed, array.store_path))


@dataclass(frozen=True)
class SizeCheck:
    """A limit of decoded bytes, and the array that it holds for."""

    name: str
    limit: int

    def __call__(self, data: bytes, codec: str) -> None:
        """Raise `ImageReadError` if data decodes to more."""
        if len(data) > self.limit or not decodes_within(data, codec, self.limit):
            raise ImageReadError(
                f"a chunk of {self.name} decompresses to more than {self.limit / 1e6:,.0f} MB: "
                "the file is damaged"
            )


@cache
def _checked_codec() -> Any:
    from numcodecs.abc import Codec

    class CheckedCodec(Codec):  # type: ignore[misc]
        """A codec of zarr format 2 after a check."""

        codec_id = "checked"

        def __init__(self, codec: Any, check: SizeCheck) -> None:
            self._codec, self._check = codec, check

        def decode(self, buf: Any, out: Any = None) -> Any:
            self._check(bytes(buf), self._codec.codec_id)
            return self._codec.decode(buf, out)

        def encode(self, buf: Any) -> Any:
            return self._codec.encode(buf)

    return CheckedCodec


def _checked(codecs: Iterable[Any], check: SizeCheck) -> Iterator[Any]:
    """Yield codecs of zarr format 3 in the order of encoding, each compressor before a check."""
    from zarr.abc.codec import BytesBytesCodec
    from zarr.codecs import ShardingCodec

    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            yield replace(codec, codecs=tuple(_checked(codec.codecs, check)))
        else:
            yield codec
        if isinstance(codec, BytesBytesCodec):
            name = str(getattr(codec, "codec_name", type(codec).__name__))
            yield _check_codec()(
                name.removeprefix("numcodecs.").removesuffix("Codec").lower(), check
            )


@cache
def _check_codec() -> Any:
    from zarr.abc.codec import BytesBytesCodec

    @dataclass(frozen=True)
    class CheckCodec(BytesBytesCodec):
        """Checks data and leaves them as they are."""

        codec: str
        check: SizeCheck
        is_fixed_size = True

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
            return input_byte_length

        def to_dict(self) -> dict[str, Any]:
            return {"name": "check", "configuration": {}}

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            await asyncio.to_thread(self.check, chunk_bytes.to_bytes(), self.codec)
            return chunk_bytes

        async def _encode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            return chunk_bytes

    return CheckCodec
