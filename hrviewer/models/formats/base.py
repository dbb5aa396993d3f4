"""Base class of model formats, and what they share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hrviewer.errors import ModelError

__all__ = ["CardDraft", "ModelFormat", "folder_of", "has_fields", "read_description"]

MAX_DESCRIPTION = 16 << 20
"""Largest file that describes a model, in bytes."""


@dataclass(frozen=True)
class CardDraft:
    """A model card made of what a file or folder says.

    Attributes
    ----------
    weights : Path
        The weights file.
    fields : dict
        The card, as in its JSON file.
    missing : tuple of str
        Fields that the file does not say and without which predictions are wrong.
    notes : tuple of str
        What was assumed.
    """

    weights: Path
    fields: dict[str, Any]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ModelFormat(ABC):
    """Models as another tool writes them.

    Attributes
    ----------
    id, title : str
        A short identifier, and the name of the tool for the user.
    priority : int
        The format with the highest one that supports a file reads it.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    priority: ClassVar[int] = 0

    @abstractmethod
    def supports(self, path: Path) -> bool:
        """Whether a file or folder is in this format. Runs no code of it."""

    @abstractmethod
    def draft(self, path: Path) -> CardDraft:
        """Return a card made of what the file or folder says.

        Raises
        ------
        ModelError
            If a part of it cannot be used here; the message says what to do instead.
        """


def folder_of(path: Path, weights: str) -> Path:
    """Return a model's folder, given itself or the weights file of this name in it."""
    return path.parent if path.name == weights else path


def has_fields(file: Path, *names: str) -> bool:
    """Whether a file is JSON with all of these fields."""
    return set(names) <= read_description(file).keys()


def read_description(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file that describes a model; empty if it is none."""
    try:
        if path.stat().st_size > MAX_DESCRIPTION:
            raise ModelError(f"{path} is too large for a description of a model: check the file")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
