"""Menu of the selected runs: title, note, folder, removal."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QInputDialog, QMenu, QMessageBox, QWidget

from hrviewer.app.services.run_library import RunLibrary
from hrviewer.escaping import plain_text
from hrviewer.formatting import pluralize
from hrviewer.runs.run_index import RunEntry
from hrviewer.runs.run_label import MAX_NOTE, MAX_TITLE

__all__ = ["RunMenu"]


class RunMenu(QMenu):
    """What can be done with listed runs.

    Parameters
    ----------
    parent : QWidget
        The list.
    library : RunLibrary
        Does it.
    entries : sequence of RunEntry
        The selected runs.
    """

    def __init__(self, parent: QWidget, library: RunLibrary, entries: Sequence[RunEntry]) -> None:
        super().__init__(parent)
        self._library, self._entries = library, list(entries)
        single = [
            self.addAction("Rename…", self.rename),
            self.addAction("Note…", self.annotate),
            self.addAction("Show in folder", self.show_in_folder),
        ]
        self.addSeparator()
        count = len(self._entries)
        title = "Delete…" if count == 1 else f"Delete {count} runs…"
        self.addAction(title, self.delete)
        for action in single:
            action.setEnabled(count == 1)

    def rename(self) -> None:
        """Ask for a title."""
        (entry,) = self._entries
        title, accepted = QInputDialog.getText(
            self.parentWidget(),
            "Title of the run",
            "Title (empty: the strategy and its parameters)",
            text=entry.title,
        )
        if accepted:
            self._library.rename(entry, title[:MAX_TITLE])

    def annotate(self) -> None:
        """Ask for a note."""
        (entry,) = self._entries
        note, accepted = QInputDialog.getMultiLineText(
            self.parentWidget(), "Note on the run", entry.title, entry.label.note
        )
        if accepted:
            self._library.annotate(entry, note[:MAX_NOTE])

    def show_in_folder(self) -> None:
        """Open the folder that has the run."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._entries[0].path.parent)))

    def delete(self) -> None:
        """Ask, then remove the runs."""
        count = len(self._entries)
        names = "\n".join(entry.path.name for entry in self._entries[:10])
        if count > 10:
            names += f"\n… {count - 10} more"
        answer = QMessageBox.question(
            self.parentWidget(),
            f"Delete {count} {pluralize('run', count)}?",
            plain_text(f"Their folders are removed, with maps, tables and annotations:\n{names}"),
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._library.delete(self._entries)
