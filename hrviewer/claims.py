"""Claims: one writer at a time of a run folder, a cache entry or an export target.

A claim is a small file that is created exclusively and names its writer: host, process and the
time the process started. Its modification time is the heartbeat. A claim is dead if its process is
gone or, on another host, if its heartbeat has stopped; it is then taken over. The successor's file
has the next number, so that of several that find the same dead claim one gets it; no claim file is
ever replaced.
"""

from __future__ import annotations

import json
import os
import platform
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from hrviewer.errors import ClaimedError, write_error
from hrviewer.folders import finish_zarr_writes, remove_folder
from hrviewer.paths import CLAIM_PREFIX

__all__ = ["Claim", "claim", "claim_folder", "clear_folder", "require_unclaimed"]

HEARTBEAT_S = 10.0
"""Seconds between two heartbeats of a claim."""

STALE_S = 120.0
"""Seconds without a heartbeat after which a claim is dead whose process is not known here."""

START_TOLERANCE_S = 2.0
"""Seconds by which the recorded start of one process may differ, as clocks are adjusted."""

ATTEMPTS = 20
"""Attempts to claim while other writers come and go."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that holds a claim."""

    host: str
    pid: int
    started: float
    token: str = ""

    @classmethod
    def here(cls) -> Writer:
        """Return this process, as the writer of a new claim."""
        import psutil

        return cls(host_name(), os.getpid(), psutil.Process().create_time(), uuid4().hex)

    @classmethod
    def read(cls, file: Path) -> Writer | None:
        """Return the writer in a claim file; None if it is not readable (yet)."""
        try:
            found = json.loads(file.read_text("utf-8"))
            return cls(
                str(found["host"]), int(found["pid"]), float(found["started"]), str(found["token"])
            )
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


def host_name() -> str:
    """Return the host, with the name space of its process numbers where there are several."""
    with suppress(OSError):
        return f"{platform.node()}/{os.readlink('/proc/self/ns/pid')}"
    return platform.node()


class Claim:
    """A held claim, with its heartbeat.

    Parameters
    ----------
    file : Path
        The claim file.
    writer : Writer
        This process.
    subject : object
        What is claimed, for messages.
    """

    def __init__(self, file: Path, writer: Writer, subject: object) -> None:
        self._file, self._writer, self._subject = file, writer, subject
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hrviewer-claim", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Check that the claim still holds, before something is written.

        Raises
        ------
        ClaimedError
            If another process took it over, as after this one was suspended for long.
        """
        if Writer.read(self._file) != self._writer:
            raise ClaimedError(
                f"{self._subject} was taken over by another process while this one did not respond"
            )

    def release(self) -> None:
        """End the claim."""
        self._released.set()
        self._thread.join()
        if Writer.read(self._file) == self._writer:
            self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(self._file)


@contextmanager
def claim(folder: Path, name: str, subject: object) -> Iterator[Claim]:
    """Claim a name in a folder for as long as the context lasts.

    Parameters
    ----------
    folder : Path
        An existing folder.
    name : str
        What is claimed there, of letters and digits.
    subject : object
        What is claimed, for messages: its path.

    Raises
    ------
    ClaimedError
        If another process or thread writes it.
    WriteError
        If the folder cannot be written to.
    """
    held = acquire(folder, name, subject, create=False)
    try:
        yield held
    except BaseException:
        finish_zarr_writes()  # before another process may write there
        raise
    finally:
        held.release()


@contextmanager
def claim_folder(path: Path) -> Iterator[Claim]:
    """Claim a folder for as long as the context lasts; create it, and remove it if left empty.

    Raises
    ------
    ClaimedError, WriteError
        As of `claim`.
    """
    held = acquire(path, "folder", path, create=True)
    try:
        yield held
    except BaseException:
        finish_zarr_writes()  # before another process may write there
        raise
    finally:
        held.release()
        with suppress(OSError):
            path.rmdir()


def clear_folder(path: Path) -> None:
    """Remove what is in a claimed folder, except the claim."""
    finish_zarr_writes()
    for entry in path.iterdir():
        if entry.name.startswith(CLAIM_PREFIX):
            continue
        if entry.is_dir() and not entry.is_symlink():
            remove_folder(entry)
        else:
            entry.unlink(missing_ok=True)


def require_unclaimed(path: Path) -> None:
    """Check that no other process or thread writes a folder.

    Raises
    ------
    ClaimedError
        If one does.
    """
    try:
        files = claim_files(path, "folder")
    except OSError:
        return
    for _, file in files:
        refuse_if_alive(file, path)


def acquire(folder: Path, name: str, subject: object, *, create: bool) -> Claim:
    """Return a new claim; see `claim`."""
    writer, missing = Writer.here(), None
    for _ in range(ATTEMPTS):
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            file, missing = create_next(folder, name, writer, subject), None
        except ClaimedError:
            raise
        except OSError as error:
            # Where the folder is created, another writer may have removed its own empty one.
            if not (create and isinstance(error, FileNotFoundError)):
                raise write_error(Path(str(subject)), error) from None
            file, missing = None, error
        if file is not None:
            return Claim(file, writer, subject)
        time.sleep(random.uniform(0.001, 0.02))
    if missing is not None:  # no race: some file systems create folders, and nothing in them
        raise write_error(Path(str(subject)), missing)
    raise ClaimedError(f"{subject} is being claimed by many processes at once: try again")


def create_next(folder: Path, name: str, writer: Writer, subject: object) -> Path | None:
    """Create the claim after the dead ones; return None if another was created meanwhile.

    Raises
    ------
    ClaimedError
        If a claim is alive.
    OSError
        If it cannot be written.
    """
    dead = claim_files(folder, name)
    for _, file in dead:
        refuse_if_alive(file, subject)
    number = dead[-1][0] + 1 if dead else 0
    mine = folder / f"{CLAIM_PREFIX}{name}-{number}"
    try:
        descriptor = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(asdict(writer), stream)
    except OSError:
        mine.unlink(missing_ok=True)
        raise
    # One that was created since the listing: both withdraw, and try again.
    known = {file for _, file in dead} | {mine}
    if any(file not in known for _, file in claim_files(folder, name)):
        mine.unlink(missing_ok=True)
        return None
    for _, file in dead:
        file.unlink(missing_ok=True)
    return mine


def claim_files(folder: Path, name: str) -> list[tuple[int, Path]]:
    """Return the claim files of a name with their numbers, ascending."""
    prefix = f"{CLAIM_PREFIX}{name}-"
    found = [file for file in folder.iterdir() if file.name.startswith(prefix)]
    return sorted(
        (int(number), file)
        for file in found
        if (number := file.name.removeprefix(prefix)).isdecimal()
    )


def refuse_if_alive(file: Path, subject: object) -> None:
    """Raise an error unless a claim is dead."""
    writer = Writer.read(file)
    alive = is_running(writer) if writer is not None and writer.host == host_name() else None
    if alive is None:
        try:
            alive = age_of(file) < STALE_S
        except FileNotFoundError:
            return  # released
    if alive:
        raise ClaimedError(
            f"{subject} is being written by {writer or 'another process'}: wait until it has "
            "finished, or choose another name"
        )


def age_of(file: Path) -> float:
    """Return the seconds since the last heartbeat, by the clock of the file system."""
    modified = file.stat().st_mtime
    probe = file.with_name(f"{CLAIM_PREFIX}{uuid4().hex}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return now - modified


def is_running(writer: Writer) -> bool | None:
    """Return whether a writer on this host is running; None if its number may be another's now."""
    import psutil

    try:
        process = psutil.Process(writer.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - writer.started) < START_TOLERANCE_S or None
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None
