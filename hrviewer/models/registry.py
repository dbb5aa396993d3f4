"""Architectures by name: hrviewer's own, a plug-in's, and those registered by hand.

A name is resolved when weights are loaded, so that listing packs imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from hrviewer.errors import HrviewerError, short_message

__all__ = ["ENTRY_POINT_GROUP", "get_architecture", "register_architecture"]

ENTRY_POINT_GROUP = "hrviewer.architectures"
"""Entry points whose value is a function that takes a card's ``params`` and returns a module."""

_REGISTERED: dict[str, Callable[..., Any]] = {}


def register_architecture(name: str, build: Callable[..., Any]) -> None:
    """Make an architecture known in this process, from a notebook for example.

    Parameters
    ----------
    name
        What a card's ``architecture.name`` says.
    build
        Takes the card's ``architecture.params`` as keywords, returns a ``torch.nn.Module``.
    """
    _REGISTERED[name] = build


def get_architecture(name: str) -> Callable[..., Any]:
    """Return what builds the architecture `name`; `UserError` that lists those known."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    from hrviewer.models.architectures import ARCHITECTURES  # imports torch

    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    plugged = entry_points(group=ENTRY_POINT_GROUP)
    for entry in plugged.select(name=name):
        try:
            build: Callable[..., Any] = entry.load()
        except Exception as error:
            raise HrviewerError(
                f"the architecture {name} of {entry.value} does not import "
                f"({short_message(error)}): install that plug-in again"
            ) from error
        return build
    known = sorted({*_REGISTERED, *ARCHITECTURES, *plugged.names})
    raise HrviewerError(
        f"no architecture is named {name!r} (known: {', '.join(known)}): "
        "install the plug-in that has it, or correct the card"
    )
