"""Text from files, made harmless to terminals, HTML and labels."""

from __future__ import annotations

import html
from unicodedata import category

__all__ = ["escape_html", "plain_text", "printable"]

CONTROL_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that control how others are shown, or break lines."""


def printable(text: str, keep: str = "") -> str:
    r"""Return text with its control characters escaped, as those in names of files and classes.

    They could recolour, overwrite or reorder what a terminal shows.

    Parameters
    ----------
    text : str
        Any.
    keep : str
        Control characters that stay, as the line breaks of a note.

    Examples
    --------
    >>> print(printable("a\x1b[31m.png"))
    a\x1b[31m.png
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if category(c) in CONTROL_CATEGORIES and c not in keep
        else c
        for c in text
    )


def escape_html(text: object) -> str:
    r"""Return text for HTML, its control characters escaped as by `printable`.

    Examples
    --------
    >>> print(escape_html("<b>\x1b"))
    &lt;b&gt;\x1b
    """
    return html.escape(printable(str(text), keep="\n\t"))


def plain_text(text: str) -> str:
    """Return text that Qt's tooltips, dialogs and napari's notifications show as it is.

    They take text with tags for rich text, which hides some of it and loads pictures. What has any
    is escaped, and is then rich text that shows the tags.

    Examples
    --------
    >>> print(plain_text("a < b"), plain_text("a.png"))
    a &lt; b a.png
    """
    if "<" in text or "&lt;" in text:
        return escape_html(text).replace("\n", "<br>")
    return printable(text, keep="\n\t")
