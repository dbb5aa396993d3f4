"""Results that need not be computed again: in memory, then on disk.

Keys hash everything that a result depends on, so an entry never goes stale. The disk tier is one
SQLite file that drops what was used longest ago.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from hrviewer.engine.patch_result import InferenceResult, deserialize, serialize
from hrviewer.engine.run_control import RunControl, RunStopped

__all__ = ["ResultCache"]


class ResultCache:
    """A byte-bounded store of looks.

    Parameters
    ----------
    path : Path, optional
        The file; None keeps results in memory only.
    memory_bytes, disk_bytes : int
        Bounds in bytes.
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
        self._writes = 0
        if path is not None:
            # A cache that cannot be opened (no space, read-only) is a cache that is empty.
            with suppress(OSError, sqlite3.Error):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                file.execute("PRAGMA journal_mode=WAL")
                file.execute("PRAGMA synchronous=OFF")
                file.execute(
                    "CREATE TABLE IF NOT EXISTS results "
                    "(key TEXT PRIMARY KEY, used REAL, data BLOB)"
                )
                self._file = file

    def get(self, key: str) -> list[InferenceResult] | None:
        """Return what was stored under `key`, marked as cached, or None."""
        with self._lock:
            data = self._entries.get(key)
            if data is not None:
                self._entries.move_to_end(key)
            elif self._file is not None:
                with suppress(sqlite3.Error):
                    row = self._file.execute(
                        "SELECT data FROM results WHERE key = ?", (key,)
                    ).fetchone()
                    if row is not None:
                        data = row[0]
                        self._store_in_memory(key, row[0])
                        self._file.execute(
                            "UPDATE results SET used = ? WHERE key = ?", (time.time(), key)
                        )
        return None if data is None else [look.as_cached() for look in deserialize(data)]

    def put(self, key: str, results: Sequence[InferenceResult]) -> None:
        """Store looks, unless one of them failed."""
        if any(look.status == "failed" for look in results):
            return
        data = serialize(results)
        with self._lock:
            self._store_in_memory(key, data)
            if self._file is not None:
                # A full disk costs the next run some time, not this one its results.
                with suppress(sqlite3.Error):
                    self._file.execute(
                        "INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, time.time(), data)
                    )
                    self._writes += 1
                    if self._writes % 512 == 1:
                        self._prune(self._file)

    @contextmanager
    def single_flight(self, key: str, control: RunControl) -> Iterator[None]:
        """Let one run at a time compute something; the next ones then find it here.

        Raises
        ------
        Stopped
            If the run is stopped while it waits.
        """
        with self._lock:
            turn = self._in_flight.setdefault(key, threading.Lock())
        while not turn.acquire(timeout=0.02):
            if control.stopped:
                raise RunStopped
        try:
            yield
        finally:
            turn.release()

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
            file.execute(
                "DELETE FROM results WHERE key IN (SELECT key FROM results ORDER BY used "
                "LIMIT (SELECT COUNT(*) / 4 + 1 FROM results))"
            )
