"""A file system that fails, or ends the process, at any operation that changes it."""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

OPERATIONS = ("replace", "rename", "link", "mkdir", "fsync", "open")
"""Functions of `os` that are counted, besides opening a file to write, and writing to it."""


@dataclass
class Renaming:
    """A change of names that is not on the disk yet."""

    name: str
    source: str
    target: str
    replaced: bytes | None

    def undo(self, synced: set[str]) -> None:
        """Give back the old names and contents."""
        if not os.path.lexists(self.target):
            return
        if self.name == "link":
            os.unlink(self.target)
            return
        os.rename(self.target, self.source)
        if self.target in synced:
            synced.add(self.source)
        if self.replaced is not None:
            Path(self.target).write_bytes(self.replaced)
            synced.add(self.target)


class FailingFiles:
    """Operations below a folder, counted; one of them fails.

    Parameters
    ----------
    folder : Path
        Operations elsewhere pass.
    fail_at : int, optional
        Number of the operation that fails, from 0; none by default.
    how : {"full", "broken", "kill", "power", "lost"}
        ``full``: with ENOSPC, after half of what was to be written, and so do all that follow;
        ``broken``: with EIO, once; ``kill``: SIGKILL ends the process; ``power``: the same, and
        files keep their names and lose their contents unless these were brought to the disk;
        ``lost``: the same, but each file at random keeps, loses or halves its contents or was never
        there, and the last changes of names are undone up to one that is on the disk.
    """

    def __init__(self, folder: Path, fail_at: int | None = None, how: str = "full") -> None:
        self.folder, self.fail_at, self.how = str(folder), fail_at, how
        self.count, self.is_first = 0, False
        self.synced = {str(path) for path in folder.rglob("*") if path.is_file()}
        self.renamings: list[Renaming] = []
        self._lock = threading.Lock()

    def concerns(self, path: object) -> bool:
        try:
            name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        except (TypeError, ValueError):
            return False
        return os.path.abspath(name).startswith(self.folder) if name else False

    def step(self) -> bool:
        """Count an operation; return whether it is to fail."""
        with self._lock:
            number, self.count = self.count, self.count + 1
        self.is_first = number == self.fail_at
        if self.fail_at is None or number < self.fail_at:
            return False
        if self.how in ("power", "lost"):
            self.fail_at = None  # what follows is no operation of the command
            self.lose_contents()
        if self.how in ("kill", "power", "lost"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.how == "full" or number == self.fail_at

    def lose_contents(self) -> None:
        """Damage all files that are not on the disk; claims are dead anyway."""
        chance = random.Random(self.count)
        if self.how == "lost":
            kept = chance.randrange(len(self.renamings) + 1)
            for renaming in reversed(self.renamings[kept:]):
                renaming.undo(self.synced)
        for path in sorted(Path(self.folder).rglob("*")):
            if not path.is_file() or str(path) in self.synced or "claim" in path.name:
                continue
            fate = chance.randrange(4) if self.how == "lost" else 0
            if fate == 3:
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size * fate // 2)

    def before(self, name: str, paths: tuple[str, ...]) -> Renaming:
        """Keep what a change of names replaces."""
        source, target = (os.path.abspath(os.fsdecode(path)) for path in paths)
        replaced = Path(target).read_bytes() if os.path.isfile(target) else None
        renaming = Renaming(name, source, target, replaced)
        self.renamings.append(renaming)
        return renaming

    def note(self, name: str, paths: tuple[str, ...]) -> None:
        """Follow which files and names are on the disk."""
        if name == "fsync":
            self.synced.update(paths)
            self.renamings = [
                renaming
                for renaming in self.renamings
                if os.path.dirname(renaming.target) not in paths
            ]
        elif name in ("replace", "rename", "link"):
            source, target = (os.path.abspath(os.fsdecode(path)) for path in paths)
            inside = [path for path in self.synced if path.startswith(f"{source}/")]
            moved = {target + path.removeprefix(source) for path in inside}
            self.synced -= {path for path in self.synced if path == target}
            self.synced |= moved | ({target} if source in self.synced else set())

    def check(self) -> None:
        if self.step():
            code = errno.ENOSPC if self.how == "full" else errno.EIO
            raise OSError(code, os.strerror(code))


class FailingRaw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, path: Any, mode: str, files: FailingFiles) -> None:
        files.check()
        super().__init__(path, mode)
        self._files = files
        files.synced.discard(os.path.abspath(os.fsdecode(path)))

    def write(self, data: Any, /) -> int | None:
        if self._files.step():
            if self._files.how == "full" and self._files.is_first:
                super().write(bytes(data)[: len(data) // 2])
            code = errno.ENOSPC if self._files.how == "full" else errno.EIO
            raise OSError(code, os.strerror(code))
        return super().write(data)


@contextmanager
def failing(files: FailingFiles) -> Iterator[FailingFiles]:
    """Let operations fail within the context."""
    plain_open = builtins.open

    def open_file(path: Any, mode: str = "r", buffering: int = -1, *args: Any, **more: Any) -> Any:
        writes = set(mode) & set("wax+")
        if not writes or not files.concerns(path):
            return plain_open(path, mode, buffering, *args, **more)
        if "+" in mode or "a" in mode:
            files.check()
            return plain_open(path, mode, buffering, *args, **more)
        raw = FailingRaw(path, "x" if "x" in mode else "w", files)
        if buffering == 0:
            return raw
        stream = io.BufferedWriter(raw)
        if "b" in mode:
            return stream
        names = ("encoding", "errors", "newline")
        given = dict(zip(names, args, strict=False)) | more
        return io.TextIOWrapper(stream, **{n: given[n] for n in names if n in given})

    def wrap(name: str) -> Callable[..., Any]:
        plain = getattr(os, name)

        def operation(*args: Any, **more: Any) -> Any:
            writes = name != "open" or bool(args[1] & (os.O_WRONLY | os.O_RDWR))
            paths = [path_of(args[0], files.folder)] if name == "fsync" else args[:2]
            renaming = None
            if writes and any(files.concerns(path) for path in paths):
                files.check()
                if name in ("replace", "rename", "link"):
                    renaming = files.before(name, tuple(args[:2]))
            try:
                found = plain(*args, **more)
            except OSError:  # a link to a name that exists changes nothing
                if renaming in files.renamings:
                    files.renamings.remove(renaming)
                raise
            if name in ("replace", "rename", "link", "fsync") and files.concerns(paths[0]):
                files.note(name, tuple(paths))
            return found

        return operation

    with ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(patch.object(os, name, wrap(name)))
        stack.enter_context(patch.object(builtins, "open", open_file))
        stack.enter_context(patch.object(io, "open", open_file))
        yield files


def path_of(descriptor: int, unknown: str) -> str:
    """Return the path of an open file, where the system knows it."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return unknown


def count_operations(action: Callable[[], object], folder: Path) -> int:
    """Return the number of operations below a folder in an action that succeeds."""
    with failing(FailingFiles(folder)) as files:
        action()
    return files.count


def killed(action: Callable[[], object], folder: Path, at: int, how: str = "kill") -> bool:
    """Run an action in a child process that ends at an operation; return whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are idle
        child = os.fork()
    if child == 0:
        try:
            with failing(FailingFiles(folder, at, how)):
                action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def some(count: int, most: int) -> list[int]:
    """Return at most `most` numbers below `count`, the first and the last among them."""
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
