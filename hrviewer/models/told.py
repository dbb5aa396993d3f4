"""What another library's error says, short enough for the one line that a person is told."""

from __future__ import annotations

__all__ = ["brief"]


def brief(error: BaseException, most: int = 160) -> str:
    """Return an error's message in one line of at most `most` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 1] + "…"
