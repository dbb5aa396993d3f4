"""The user's title and note of a run, kept in its folder, and the removal of run folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrviewer.claims import require_unclaimed
from hrviewer.errors import RunError, write_error
from hrviewer.escaping import printable
from hrviewer.io.atomic_write import replace_file
from hrviewer.runs.header import read_header

__all__ = ["RunLabel", "delete_run", "read_label", "write_label"]

LABEL_FILE = "label.json"
MAX_BYTES = 1 << 16
MAX_TITLE, MAX_NOTE = 200, 8000


class RunLabel(BaseModel):
    """The user's words on a run.

    Parameters
    ----------
    title : str
        Shown in place of the strategy and its parameters; empty for none.
    note : str
        A remark of any length that a tooltip holds.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: str = Field("", max_length=MAX_TITLE)
    note: str = Field("", max_length=MAX_NOTE)


def read_label(run: Path) -> RunLabel:
    """Return a run's label; an empty one where there is none, or a damaged one."""
    try:
        with (run / LABEL_FILE).open("rb") as file:
            found = RunLabel.model_validate_json(file.read(MAX_BYTES))
        return RunLabel(title=printable(found.title), note=printable(found.note, keep="\n"))
    except (OSError, ValidationError):
        return RunLabel()


def write_label(run: Path, label: RunLabel) -> None:
    """Replace a run's label.

    Raises
    ------
    WriteError
        If it cannot be written; the previous one remains.
    """
    path = run / LABEL_FILE
    try:
        replace_file(path, label.model_dump_json(indent=1).encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise write_error(path, error) from error


def delete_run(run: Path) -> None:
    """Remove a run's folder with all that is in it.

    It is renamed first, so that no reader finds half a run.

    Raises
    ------
    RunError
        If it is no folder of a run, only a link to one, or being written.
    WriteError
        If it cannot be removed.
    """
    read_header(run)
    if run.is_symlink():
        raise RunError(f"{run} is a link: remove the link, or delete the run where it is")
    require_unclaimed(run)
    gone = run.with_name(f".{run.name}.{uuid4().hex}.deleted")
    try:
        run.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise write_error(run, error) from error
