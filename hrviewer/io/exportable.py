"""Interface between a run and the code that exports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Exportable", "ProgressCallback", "WriterSettings"]

ProgressCallback = Callable[[int, int], None]
"""Called with the amount written so far and the total."""


class Exportable(Protocol):
    """A run folder and its metadata.

    Attributes
    ----------
    path : Path
        The run folder.
    header : dict
        Contents of ``run.json``.
    """

    path: Path
    header: dict[str, Any]


class WriterSettings(BaseModel):
    """Options of a writer: a form in the window, ``--set`` on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anonymous: bool = Field(
        False, title="Anonymous", description="Leave out the paths and names of files"
    )
