"""A local HTTP server of one folder, with ranges and latency, that counts the bytes it sends."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["RangeServer"]

MAX_WAIT = 30
"""Seconds that an answer waits for the gate at most."""


class RangeServer:
    """A server on a free port of this machine, as a context manager.

    Parameters
    ----------
    folder : Path
        What is served.
    latency : float
        Seconds before each answer.
    ranges : bool
        Whether parts of files are sent.

    Attributes
    ----------
    is_down : bool
        Whether connections end without an answer.
    cuts_bodies : bool
        Whether connections end in the middle of a body.
    refuses : int, optional
        Status of every answer, as 403.
    gate : threading.Event
        Answers wait for it; it is set unless it is cleared.
    waiting : int
        Answers that wait for the gate.
    sent, requests : int
        Bytes of the bodies, and answers, so far.
    """

    def __init__(self, folder: Path, latency: float = 0.0, *, ranges: bool = True) -> None:
        self.folder, self.latency, self.ranges = folder, latency, ranges
        self.is_down = self.cuts_bodies = False
        self.refuses: int | None = None
        self.sent = self.requests = self.waiting = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, sent: int) -> None:
        """Add one answer."""
        with self._lock:
            self.sent += sent
            self.requests += 1

    def wait(self) -> None:
        """Wait for the latency and the gate."""
        time.sleep(self.latency)
        with self._lock:
            self.waiting += 1
        self.gate.wait(MAX_WAIT)
        with self._lock:
            self.waiting -= 1

    def __enter__(self) -> RangeServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, owner: RangeServer, *args: Any) -> None:
        self._owner = owner
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        owner = self._owner
        owner.wait()
        if owner.is_down:
            self.close_connection = True
            return
        path = owner.folder / self.path.partition("?")[0].lstrip("/")
        if owner.refuses or not path.is_file():
            owner.count(0)
            self.send_response(owner.refuses or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        first, last = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        partial_answer = asked is not None and owner.ranges
        if partial_answer and asked is not None:
            first = int(asked[1])
            last = min(int(asked[2]) if asked[2] else size - 1, size - 1)
        self.send_response(206 if partial_answer else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}"')
        if owner.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if partial_answer:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if body:
            owner.count(last - first + 1)
            with path.open("rb") as file:
                file.seek(first)
                data = file.read(last - first + 1)
            if owner.cuts_bodies:
                data, self.close_connection = data[: len(data) // 2], True
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""
