"""What a person is told when something cannot be done."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Bad input or a state that the person can mend.

    The message is one line that says what is wrong and what to do. The command line prints it
    without a traceback, the window shows it as a notification.
    """
