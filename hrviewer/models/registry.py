"""Architectures by name: built in, from plug-ins, or registered in this process.

A name is resolved when weights are loaded, so listing bundles imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from hrviewer.errors import ModelError
from hrviewer.extensions import load_extension

__all__ = ["ENTRY_POINT_GROUP", "get_architecture", "register_architecture", "registered"]

ENTRY_POINT_GROUP = "hrviewer.architectures"
"""Entry points of functions that take a card's ``params`` and return a module."""

_REGISTERED: dict[str, Callable[..., Any]] = {}


def register_architecture(name: str, build: Callable[..., Any]) -> None:
    """Register an architecture in this process, for example from a notebook.

    Parameters
    ----------
    name
        The value of a card's ``architecture.name``.
    build
        A function that takes the card's ``architecture.params`` as keywords and returns a
        ``torch.nn.Module``.
    """
    _REGISTERED[name] = build


def registered(name: str) -> Callable[..., Any] | None:
    """Return the function registered in this process for an architecture, if any."""
    return _REGISTERED.get(name)


def get_architecture(name: str) -> Callable[..., Any]:
    """Return the function that builds the architecture `name`.

    Raises
    ------
    ModelError
        If none has this name; the message lists the known ones.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    from hrviewer.models.architectures import ARCHITECTURES  # imports torch

    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    from_plugins = entry_points(group=ENTRY_POINT_GROUP)
    for entry in from_plugins.select(name=name):
        build: Callable[..., Any] = load_extension(entry, "the architecture", ModelError)
        return build
    known = sorted({*_REGISTERED, *ARCHITECTURES, *from_plugins.names})
    raise ModelError(
        f"no architecture is named {name!r} (known: {', '.join(known)}): "
        "install the plug-in that provides it, or correct the card"
    )
