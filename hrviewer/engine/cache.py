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

from hrviewer.engine.patch_result import Seen, pack_seen, unpack_seen
from hrviewer.engine.run_control import Control, Stopped

__all__ = ["ResultCache"]


class ResultCache:
    """A byte-bounded store of looks.

    Parameters
    ----------
    path : Path, optional
        The file; None keeps results in memory only.
    memory, disk : int
        Bounds in bytes.
    """

    def __init__(
        self, path: Path | None = None, *, memory: int = 256 << 20, disk: int = 4 << 30
    ) -> None:
        self._memory, self._disk = memory, disk
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
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
                    "CREATE TABLE IF NOT EXISTS looks (key TEXT PRIMARY KEY, used REAL, data BLOB)"
                )
                self._file = file

    def get(self, key: str) -> list[Seen] | None:
        """Return what was stored under `key`, marked as cached, or None."""
        with self._lock:
            data = self._kept.get(key)
            if data is not None:
                self._kept.move_to_end(key)
            elif self._file is not None:
                with suppress(sqlite3.Error):
                    row = self._file.execute(
                        "SELECT data FROM looks WHERE key = ?", (key,)
                    ).fetchone()
                    if row is not None:
                        data = row[0]
                        self._keep(key, row[0])
                        self._file.execute(
                            "UPDATE looks SET used = ? WHERE key = ?", (time.time(), key)
                        )
        return None if data is None else [look.served() for look in unpack_seen(data)]

    def put(self, key: str, seen: Sequence[Seen]) -> None:
        """Store looks, unless one of them failed."""
        if any(look.status == "failed" for look in seen):
            return
        data = pack_seen(seen)
        with self._lock:
            self._keep(key, data)
            if self._file is not None:
                # A full disk costs the next run some time, not this one its results.
                with suppress(sqlite3.Error):
                    self._file.execute(
                        "INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", (key, time.time(), data)
                    )
                    self._writes += 1
                    if self._writes % 512 == 1:
                        self._prune(self._file)

    @contextmanager
    def turn(self, key: str, control: Control) -> Iterator[None]:
        """Let one run at a time compute something; the next ones then find it here.

        Raises
        ------
        Stopped
            If the run is stopped while it waits.
        """
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        while not turn.acquire(timeout=0.02):
            if control.stopped:
                raise Stopped
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

    def _keep(self, key: str, data: bytes) -> None:
        self._size += len(data) - len(self._kept.pop(key, b""))
        self._kept[key] = data
        while self._size > self._memory and self._kept:
            self._size -= len(self._kept.popitem(last=False)[1])

    def _prune(self, file: sqlite3.Connection) -> None:
        (size,) = file.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM looks").fetchone()
        if size > self._disk:
            file.execute(
                "DELETE FROM looks WHERE key IN (SELECT key FROM looks ORDER BY used "
                "LIMIT (SELECT COUNT(*) / 4 + 1 FROM looks))"
            )
