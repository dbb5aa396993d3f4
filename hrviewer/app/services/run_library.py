"""Care of the listed runs: titles, notes, and removal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hrviewer.app.services.annotation_service import LANE
from hrviewer.app.services.background import Background
from hrviewer.app.services.compare_service import CompareService
from hrviewer.app.state import AppState
from hrviewer.runs.run_index import RunEntry
from hrviewer.runs.run_label import RunLabel, delete_run, write_label

__all__ = ["RunLibrary"]


class RunLibrary:
    """Changes what is known of runs, beside the front end's thread, and lists them again.

    Parameters
    ----------
    state : AppState
        Has the displayed run.
    background : Background
        Writes.
    compare : CompareService
        Lists the runs.
    """

    def __init__(self, state: AppState, background: Background, compare: CompareService) -> None:
        self._state, self._background, self._compare = state, background, compare

    def rename(self, entry: RunEntry, title: str) -> None:
        """Give a run a title; an empty one restores the strategy and its parameters."""
        self._label(entry, entry.label.model_copy(update={"title": title.strip()}))

    def annotate(self, entry: RunEntry, note: str) -> None:
        """Give a run a note."""
        self._label(entry, entry.label.model_copy(update={"note": note.strip()}))

    def delete(self, entries: Sequence[RunEntry]) -> None:
        """Remove runs with their folders; overlays of a displayed one are cleared."""
        image, paths = self._state.image, [entry.path for entry in entries]
        if image is not None and image.run is not None and image.run.path in paths:
            self._state.clear_results(image)

        def remove() -> None:
            for path in paths:
                delete_run(path)

        self._submit(remove)

    def _label(self, entry: RunEntry, label: RunLabel) -> None:
        # Validated again: a copy is not.
        label = RunLabel.model_validate(label.model_dump())
        self._submit(partial(write_label, entry.path, label))

    def _submit(self, work: Callable[[], None]) -> None:
        # After the annotations of a displayed run were written.
        self._background.submit(
            LANE, lambda task: work(), lambda _: self._compare.refresh(), clear_errors=False
        )
