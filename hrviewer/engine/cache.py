"""Cache of inference results, in memory and on disk.

Keys hash everything that a result depends on, so an entry never goes stale. The disk tier is one
SQLite file that evicts the least recently used results. Entries that are damaged, or of another
version of hrviewer, are dropped, and so is a file that SQLite finds damaged.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from hrviewer.checksum import DamagedCopyError, UnfitCopyError
from hrviewer.claims import claim
from hrviewer.engine.inference_result import InferenceResult, deserialize, serialize
from hrviewer.engine.run_control import RunControl, RunStopped

__all__ = ["ResultCache"]

log = logging.getLogger(__name__)


class ResultCache:
    """Cache of inference results, bounded in bytes.

    Parameters
    ----------
    path : Path, optional
        The SQLite file; None caches in memory only.
    memory_bytes, disk_bytes : int
        Bounds in bytes.

    Attributes
    ----------
    damaged : int
        Number of entries that were dropped as damaged.
    """

    def __init__(
        self, path: Path | None = None, *, memory_bytes: int = 256 << 20, disk_bytes: int = 4 << 30
    ) -> None:
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._in_flight: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._file: sqlite3.Connection | None = None
        self._writes = self.damaged = 0
        self._path = path
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        """Open the file. One that cannot be (no space, read-only) behaves like an empty one."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._file = connect(path)
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                self._file = replace_damaged(path)
            log.debug("result cache: %s", path)
        except (OSError, sqlite3.Error) as error:
            log.warning("the result cache %s cannot be opened: %s", path, error)

    def get(self, key: str) -> list[InferenceResult] | None:
        """Return what was stored under `key`, marked as cached, or None."""
        with self._lock:
            data = self._entries.get(key)
            if data is not None:
                self._entries.move_to_end(key)
            elif self._file is not None:
                with self._file_errors():
                    row = self._file.execute(
                        "SELECT data FROM results WHERE key = ?", (key,)
                    ).fetchone()
                    if row is not None:
                        data = row[0]
                        self._file.execute(
                            "UPDATE results SET used = ? WHERE key = ?", (time.time(), key)
                        )
        if data is None:
            return None
        try:
            results = [result.as_cached() for result in deserialize(data)]
        except UnfitCopyError as error:
            self._drop(key, error)
            return None
        with self._lock:
            self._store_in_memory(key, data)
        return results

    def _drop(self, key: str, error: UnfitCopyError) -> None:
        """Delete an entry that does not fit."""
        with self._lock:
            self._size -= len(self._entries.pop(key, b""))
            if isinstance(error, DamagedCopyError):
                self.damaged += 1
                log.warning("a cached result is dropped: %s", error)
            if self._file is not None:
                with self._file_errors():
                    self._file.execute("DELETE FROM results WHERE key = ?", (key,))

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Ignore errors of the file, whose results can be computed again; replace a damaged one."""
        try:
            yield
        except sqlite3.Error as error:
            if self._path is not None and self._file is not None and is_damaged(error):
                log.warning("the result cache %s is damaged, and is replaced", self._path)
                self._file.close()
                self._file = None
                with suppress(OSError, sqlite3.Error):
                    self._file = replace_damaged(self._path)

    def put(self, key: str, results: Sequence[InferenceResult]) -> None:
        """Store results, unless one of them failed."""
        if any(result.status == "failed" for result in results):
            return
        data = serialize(results)
        with self._lock:
            self._store_in_memory(key, data)
            if self._file is not None:
                # With a full disk the next run computes again, and this one keeps its results.
                with self._file_errors():
                    self._file.execute(
                        "INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, time.time(), data)
                    )
                    self._writes += 1
                    if self._writes % 512 == 1:
                        self._prune(self._file)

    @contextmanager
    def single_flight(self, key: str, control: RunControl) -> Iterator[None]:
        """Let one run at a time compute a result; the others then get it from the cache.

        Raises
        ------
        RunStopped
            If the run is stopped while it waits.
        """
        with self._lock:
            lock = self._in_flight.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=0.02):
            if control.stopped:
                raise RunStopped
        try:
            yield
        finally:
            lock.release()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _store_in_memory(self, key: str, data: bytes) -> None:
        self._size += len(data) - len(self._entries.pop(key, b""))
        self._entries[key] = data
        while self._size > self._memory_bytes and self._entries:
            self._size -= len(self._entries.popitem(last=False)[1])

    def _prune(self, file: sqlite3.Connection) -> None:
        (size,) = file.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM results").fetchone()
        if size > self._disk_bytes:
            log.info("the result cache has %.1f GB: the oldest quarter is deleted", size / 1e9)
            file.execute(
                "DELETE FROM results WHERE key IN (SELECT key FROM results ORDER BY used "
                "LIMIT (SELECT COUNT(*) / 4 + 1 FROM results))"
            )


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the file, in modes that survive a power cut."""
    file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        file.execute(
            "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, used REAL, data BLOB)"
        )
        file.execute("SELECT key, used, data FROM results LIMIT 1")
    except sqlite3.Error:
        file.close()
        raise
    return file


def is_damaged(error: sqlite3.Error) -> bool:
    """Return whether a file is no database, a damaged one, or one with another table."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def replace_damaged(path: Path) -> sqlite3.Connection:
    """Replace a damaged file by an empty one, unless another process has just done so."""
    with claim(path.parent, "results", path):
        try:
            return connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return connect(path)
