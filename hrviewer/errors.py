"""What a person is told when something cannot be done."""

from __future__ import annotations

__all__ = ["HrviewerError", "format_error"]


class HrviewerError(Exception):
    """Bad input or a state that the person can mend.

    The message is one line that says what is wrong and what to do. The command line prints it
    without a traceback, the window shows it as a notification.
    """


def format_error(error: BaseException) -> str:
    """Return what a person is told of any error; of one that was not foreseen, its kind too."""
    return str(error) if isinstance(error, HrviewerError) else f"{type(error).__name__}: {error}"
