"""Formats of models of other tools, one file each, found by entry points.

A file or folder often says what its network takes and gives: `ModelFormat.draft` makes a model
card of that. A card that the user wrote, or ``hrviewer models init``, comes first: ``NAME.json``
beside a file, ``card.json`` in a folder.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from hrviewer.errors import HrviewerError, ModelError
from hrviewer.extensions import load_extension
from hrviewer.models.card import ModelCard
from hrviewer.models.formats.base import CardDraft, ModelFormat
from hrviewer.models.loaders import CODE_FORMATS, WEIGHTS_FORMATS, check_weights_format

__all__ = [
    "ENTRY_POINT_GROUP",
    "CardDraft",
    "ModelFormat",
    "card_path",
    "draft_described",
    "find_format",
    "installed_formats",
    "open_model",
]

ENTRY_POINT_GROUP = "hrviewer.formats"
"""Entry points of subclasses of `ModelFormat`."""


@cache
def installed_formats() -> tuple[ModelFormat, ...]:
    """Return the installed formats, the most specific first.

    Raises
    ------
    ModelError
        If the package of one is broken.
    """
    found: list[ModelFormat] = [
        load_extension(point, "the format of models", ModelError, instantiate=True)
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP))
    ]
    return tuple(sorted(found, key=lambda one: -one.priority))


def find_format(path: Path) -> ModelFormat | None:
    """Return the format of a file or folder, if one is known."""
    return next((one for one in installed_formats() if one.supports(path)), None)


def card_path(path: Path) -> Path:
    """Return where the card of a file or folder is."""
    return path / "card.json" if path.is_dir() else path.with_suffix(".json")


def draft_described(path: Path, known: ModelFormat) -> CardDraft:
    """Return the card that a file or folder of a format describes.

    Raises
    ------
    ModelError
        If it cannot be used, or its description lacks something or is of another kind.
    """
    try:
        return known.draft(path)
    except HrviewerError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the description of {path} ({known.title}) is incomplete or damaged "
            f"({type(error).__name__}: {error}): download or export the model again"
        ) from error


def open_model(path: Path) -> tuple[Path, ModelCard]:
    """Return the weights and the card of a file or folder.

    Raises
    ------
    ModelError
        If there is no card and none can be made of what the file or folder says.
    """
    written = card_path(path)
    single = not path.is_dir() and path.suffix.lower() in WEIGHTS_FORMATS + CODE_FORMATS
    if written.is_file() and single:
        return path, ModelCard.read(written)
    known = find_format(path)
    if known is None:
        if path.is_dir():
            formats = ", ".join(one.title for one in installed_formats())
            raise ModelError(
                f"{path} is not a model bundle: it contains no bundle.json, nor is it a model of "
                f"{formats}: give the weights file with its card instead"
            )
        check_weights_format(path, trust=True)
        raise ModelError(
            f"{written} is missing: write the model card with `hrviewer models init {path}`"
        )
    draft = draft_described(path, known)
    if written.is_file():
        return draft.weights, ModelCard.read(written)
    if draft.missing:
        raise ModelError(
            f"{written} is missing: {path.name} ({known.title}) does not say its "
            f"{', '.join(draft.missing)}: write the model card with `hrviewer models init {path}`"
        )
    return draft.weights, ModelCard.from_dict(draft.fields, f"{path} ({known.title})")
