"""Run, Pause, Stop; how far it has come; the answer and what it cost."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller, Status
from hrviewer.viewer.widgets.common import label, row

__all__ = ["Running"]


class Running(QWidget):
    """The middle part of the panel.

    Parameters
    ----------
    controller : Controller
        Runs, and says what comes of it.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.run = QPushButton("Run")
        self.hold = QPushButton("Pause")
        self.end = QPushButton("Stop")
        self.run.setProperty("voice", "first")
        self.run.setToolTip("Run the strategy on the region (F5)")
        self.hold.setToolTip(
            "Hold after the batch in flight; go on with what was held or stopped (F6)"
        )
        self.end.setToolTip("End after the batch in flight; what was seen is kept (Shift+F5)")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.words = label("", "muted")
        self.answer = label("", "answer", wrap=True)
        self.more = label("", "field", wrap=True)
        self.cost = label("", "muted", wrap=True)
        self.notes = label("", "muted", wrap=True)
        self.error = label("", "error", wrap=True)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(row(self.run, self.hold, self.end, stretch=None))
        for widget in (
            self.bar,
            self.words,
            self.error,
            self.answer,
            self.more,
            self.cost,
            self.notes,
        ):
            layout.addWidget(widget)

        self.run.clicked.connect(self._run)
        self.hold.clicked.connect(self._hold)
        self.end.clicked.connect(self._end)
        controller.state_changed.connect(self._show_state)
        controller.progressed.connect(self._show_progress)
        controller.answered.connect(self._show_answer)
        controller.noted.connect(self._show_notes)
        controller.failed.connect(self._show_error)
        self._show_state(controller.state)
        for widget in (self.answer, self.more, self.cost, self.notes, self.error):
            widget.hide()

    def _run(self) -> None:
        self.controller.start()

    def _hold(self) -> None:
        if self.controller.state == "running":
            self.controller.pause()
        else:
            self.controller.resume()

    def _end(self) -> None:
        self.controller.stop()

    def _show_state(self, state: str) -> None:
        self.run.setEnabled(state == "idle")
        held = state == "paused" or (state == "idle" and self.controller.unfinished is not None)
        self.hold.setEnabled(state == "running" or held)
        self.hold.setText("Resume" if held else "Pause")
        self.end.setEnabled(state in ("starting", "running", "paused"))
        if state == "stopping":
            self.words.setText("stopping after this batch")
        elif state == "starting":
            # Nobody knows how long loading takes.
            self.bar.setRange(0, 0)
            self._say(self.answer, "")
            self._say(self.more, "")
            self._say(self.cost, "")
        if state != "starting":
            self.bar.setRange(0, 1000)

    def _show_progress(self, status: Status) -> None:
        # It would draw itself at once, and the window with it, instead of with the rest.
        self.bar.setUpdatesEnabled(False)
        self.bar.setValue(round(1000 * status.fraction))
        self.bar.setUpdatesEnabled(True)
        self.words.setText(status.words)

    def _show_answer(self, answer: str, cost: str) -> None:
        if answer:
            first, *rest = answer.split("  ")
            self._say(self.answer, first)
            self._say(self.more, " ".join(rest).strip(" ·"))
        if cost:
            self._say(self.cost, cost)

    def _show_notes(self, notes: list[str]) -> None:
        self._say(self.notes, "\n".join(f"· {note}" for note in notes))

    def _show_error(self, message: str) -> None:
        self._say(self.error, message)

    @staticmethod
    def _say(where: QWidget, words: str) -> None:
        where.setText(words)
        where.setVisible(bool(words))
