"""What another library's error says, short enough for the one line that a person is told."""

from __future__ import annotations

__all__ = ["short_message"]


def short_message(error: BaseException, max_length: int = 160) -> str:
    """Return an error's message in one line of at most `max_length` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
