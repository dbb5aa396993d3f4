"""Errors that the user can act on, and their one-line messages.

Every error that hrviewer raises on purpose is an `HrviewerError`; its message is one line that says
what is wrong and what to do. The command line prints it without a traceback, the window shows it as
a notification. Subclasses distinguish the kinds of invalid input, and also derive from the
built-in exception that a caller would expect.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.escaping import printable

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "BudgetError",
    "ClaimedError",
    "DeviceMemoryError",
    "DisplayError",
    "GroundTruthError",
    "HrviewerError",
    "ImageReadError",
    "ModelError",
    "ParameterError",
    "RunError",
    "UntrustedModelError",
    "WriteError",
    "format_error",
    "short_message",
    "validation_error",
    "write_error",
]

WRITE_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another place",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.EACCES: "permission denied: choose another folder, or change its permissions",
    errno.EPERM: "permission denied: choose another folder, or change its permissions",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EINVAL: "the file system does not allow this name: leave out : * ? and the like",
    errno.EILSEQ: "the file system does not allow this name: leave out : * ? and the like",
}


class HrviewerError(Exception):
    """Invalid input, or a state that the user can correct."""


class ImageReadError(HrviewerError, OSError):
    """An image that cannot be opened or decoded."""


class ModelError(HrviewerError):
    """A model bundle, model card or network that is missing, invalid or unsuitable."""


class UntrustedModelError(ModelError):
    """A model that can run code when opened, without the user's trust in its source."""


class DeviceMemoryError(ModelError, MemoryError):
    """A model that does not fit into a device's memory."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made again; tblib, by which workers send errors, cannot find out."""
        return type(self), self.args


class ParameterError(HrviewerError, ValueError):
    """An option, parameter, region or prior map that is unknown or out of range."""


class BudgetError(ParameterError):
    """A budget that cannot be parsed, or is too small for the strategy."""


class RunError(HrviewerError):
    """A run, or its folder, that cannot be started, resumed or read."""


class GroundTruthError(HrviewerError):
    """Annotations or ground truth that cannot be read, or do not fit the image."""


class DisplayError(HrviewerError):
    """A window that cannot be opened: no Qt binding or no display."""


class WriteError(HrviewerError, OSError):
    """A file or folder that cannot be written."""


class ClaimedError(WriteError):
    """A file or folder that another process or thread is writing."""


def format_error(error: BaseException) -> str:
    """Return the line that the user reads; for an unexpected error it begins with its type."""
    text = str(error) if isinstance(error, HrviewerError) else f"{type(error).__name__}: {error}"
    return printable(text)


def short_message(error: BaseException, max_length: int = 160) -> str:
    """Return another library's error message on one line of at most `max_length` characters."""
    # zarr gives paths as URLs
    text = printable(" ".join(str(error).replace("file://", "").split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error for a place that cannot be written, with advice."""
    why = WRITE_ADVICE.get(error.errno or 0, error.strerror or str(error))
    return WriteError(f"{path} cannot be written: {why}")


def validation_error(
    error: ValidationError,
    source: object,
    *,
    noun: str = "parameter",
    known: Iterable[str] = (),
    advice: str = "",
    kind: type[HrviewerError] = ParameterError,
) -> HrviewerError:
    """Return the first problem that pydantic found, as one line.

    Parameters
    ----------
    error : ValidationError
        Raised by a pydantic model.
    source : object
        Name of the strategy, format or file at the beginning of the line.
    noun, known : str, iterable of str
        What an unknown field is called, and the fields that exist.
    advice : str
        What to do, at the end of the line.
    kind : type
        The class of the error.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden" and known:
        return kind(f"{source} has no {noun} {field!r}; it has: {', '.join(known)}")
    reason = first["msg"].removeprefix("Value error, ")
    line = ": ".join(part for part in (str(source), field, reason) if part)
    return kind(f"{line}; {advice}" if advice else line)
