"""Byte ranges of files behind URLs, through fsspec, cached on disk within a bound.

Only the ranges that are asked for are transferred: a file's directories in blocks, its tiles
exactly. A range is cached under the URL and the file's version: another version is transferred
again.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hrviewer.errors import HrviewerError, ImageReadError, short_message
from hrviewer.paths import cache_folder

__all__ = [
    "BLOCK",
    "MAX_CACHE_BYTES",
    "DiskCache",
    "NetworkError",
    "RemoteFile",
    "RemoteStream",
    "is_url",
    "network_error",
    "range_cache",
    "storage_options",
    "url_name",
]

MAX_CACHE_BYTES = 2 << 30
"""Bytes of ranges on disk, of all remote images together."""

BLOCK = 64 * 1024
"""Bytes that are read at once where a file's structure is read piece by piece."""

CONNECT_SECONDS, SILENT_SECONDS = 15.0, 30.0
"""Seconds until a server that does not answer, or stops sending, is given up."""

PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


class NetworkError(ImageReadError):
    """A failure on the way to a URL that may pass: the read can be repeated."""


def is_url(obj: object) -> bool:
    """Whether an image is named by a URL; synthetic images are not."""
    return isinstance(obj, str) and "://" in obj


def url_name(url: str) -> str:
    """Return the last part of a URL's path, for titles."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def storage_options(url: str) -> dict[str, Any]:
    """Return fsspec's options for a URL: over HTTP, how long it waits for an answer."""
    if not url.startswith(("http://", "https://")):
        return {}
    import aiohttp

    wait = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    return {"client_kwargs": {"timeout": wait}}


class DiskCache:
    """Files by key in a folder; the least recently used ones go when the bound is exceeded.

    Parameters
    ----------
    folder : Path
        Of the cache.
    limit : int
        Maximum bytes.
    """

    def __init__(self, folder: Path, limit: int = MAX_CACHE_BYTES) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._nbytes: int | None = None

    def get(self, key: str) -> bytes | None:
        """Return what was stored, None if it is not there."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store bytes; a full disk or a read-only folder costs nothing but the cache."""
        path = self._path(key)
        with suppress(OSError), self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                new = Path(file.name)
                try:
                    file.write(data)
                    file.close()
                    os.replace(new, path)
                except OSError:
                    new.unlink(missing_ok=True)
                    raise
            self._nbytes = self._measure() if self._nbytes is None else self._nbytes + len(data)
            if self._nbytes > self._limit:
                self._evict()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        return self._folder / name[:2] / name

    def _measure(self) -> int:
        return sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())

    def _evict(self) -> None:
        """Remove the files that were not used for longest, a tenth more than needed."""
        found = [
            (status.st_mtime, status.st_size, file)
            for file in self._folder.rglob("*")
            if file.is_file() and (status := file.stat())
        ]
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= 0.9 * self._limit:
                break
            with suppress(OSError):
                file.unlink()
                total -= size
        self._nbytes = total


@cache
def _cache_at(folder: Path) -> DiskCache:
    return DiskCache(folder)


def range_cache() -> DiskCache:
    """Return the cache of this machine."""
    return _cache_at(cache_folder() / "remote")


def network_error(url: str, error: BaseException) -> HrviewerError:
    """Return the error for what happened on the way to a URL, in one line."""
    if isinstance(error, HrviewerError):
        return error
    # fsspec calls every failure a missing file, caused by the failed connection or the answer.
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and (
        isinstance(cause, OSError) or hasattr(cause, "status")
    ):
        error = cause or error
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status == 404:
        return ImageReadError(f"{url}: there is no such file")
    if isinstance(error, PermissionError) or status in (401, 403):
        return ImageReadError(f"{url} may not be read: check the address and your credentials")
    if isinstance(error, ImportError):
        scheme = url.partition("://")[0]
        package = PACKAGES.get(scheme, f"a package for {scheme}://")
        return ImageReadError(
            f'{url} needs {package}: pip install "hrviewer[remote]" ({short_message(error)})'
        )
    reason = short_message(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        reason = "the server does not answer"
    return NetworkError(f"{url} cannot be read: {reason}; check the network and try again")


class RemoteFile:
    """Reads byte ranges of a file behind a URL, from any thread.

    Parameters
    ----------
    url : str
        ``https://``, ``s3://``, ``gs://`` or another scheme of fsspec.

    Attributes
    ----------
    size : int
        Bytes.
    version : str
        Changes with the content, as far as the server states it.
    transferred : int
        Bytes that came over the network.
    """

    def __init__(self, url: str) -> None:
        self.url, self.transferred = url, 0
        try:
            import fsspec

            self._system, self._path = fsspec.core.url_to_fs(url, **storage_options(url))
            info: dict[str, Any] = self._system.info(self._path)
            self.size = int(info["size"] if info.get("size") is not None else -1)
        except Exception as error:
            raise network_error(url, error) from error
        if self.size < 0 or info.get("partial") is False:
            raise ImageReadError(
                f"{url}: the server does not send parts of a file: download it first"
            )
        marks = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated")
        self.version = " ".join(str(info[mark]) for mark in marks if info.get(mark))
        self._key = f"{url} {self.version} {self.size}"

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from an offset; raise `ValueError` outside the file."""
        if not 0 <= offset <= offset + count <= self.size:
            raise ValueError(f"its bytes {offset} to {offset + count} lie outside the file")
        if count == 0:
            return b""
        key = f"{self._key} {offset} {count}"
        data = range_cache().get(key)
        if data is not None and len(data) == count:
            return data
        try:
            data = bytes(self._system.cat_file(self._path, start=offset, end=offset + count))
        except Exception as error:
            raise network_error(self.url, error) from error
        self.transferred += len(data)
        if len(data) != count:
            raise NetworkError(
                f"{self.url}: the server sent {len(data)} bytes instead of {count}: try again, or "
                "download the file first"
            )
        range_cache().put(key, data)
        return data

    def close(self) -> None:
        """Nothing is held open."""


class RemoteStream(io.RawIOBase):
    """A remote file as a stream, read in blocks: for a file's structure.

    Parameters
    ----------
    file : RemoteFile
        The file.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._at = file, 0
        self.name = file.url

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any place can be read."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a block."""
        first = self._at // BLOCK * BLOCK
        size = min(BLOCK, self._file.size - first)
        if size <= 0 or self._at >= self._file.size:
            return 0
        block = self._file.read(first, size)
        part = block[self._at - first :][: len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
