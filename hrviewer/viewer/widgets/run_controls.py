"""Run, Pause, Stop; how far it has come; the answer and what it cost."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller, Status
from hrviewer.viewer.widgets.common import label, row

__all__ = ["RunControls"]


class RunControls(QWidget):
    """The middle part of the panel.

    Parameters
    ----------
    controller : Controller
        Runs, and says what comes of it.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.run_button = QPushButton("Run")
        self.pause_button = QPushButton("Pause")
        self.stop_button = QPushButton("Stop")
        self.run_button.setProperty("voice", "first")
        self.run_button.setToolTip("Run the strategy on the region (F5)")
        self.pause_button.setToolTip(
            "Hold after the batch in flight; go on with what was held or stopped (F6)"
        )
        self.stop_button.setToolTip(
            "End after the batch in flight; what was seen is kept (Shift+F5)"
        )
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setFixedHeight(6)
        self.progress_text = label("", "muted")
        self.estimate = label("", "answer", wrap=True)
        self.estimate_details = label("", "field", wrap=True)
        self.cost = label("", "muted", wrap=True)
        self.notes = label("", "muted", wrap=True)
        self.error = label("", "error", wrap=True)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(row(self.run_button, self.pause_button, self.stop_button, stretch=None))
        for widget in (
            self.progress_bar,
            self.progress_text,
            self.error,
            self.estimate,
            self.estimate_details,
            self.cost,
            self.notes,
        ):
            layout.addWidget(widget)

        self.run_button.clicked.connect(self._run)
        self.pause_button.clicked.connect(self._pause_or_resume)
        self.stop_button.clicked.connect(self._stop)
        controller.state_changed.connect(self._show_state)
        controller.progress_changed.connect(self._show_progress)
        controller.estimate_changed.connect(self._show_estimate)
        controller.notes_changed.connect(self._show_notes)
        controller.error_raised.connect(self._show_error)
        self._show_state(controller.state)
        for widget in (self.estimate, self.estimate_details, self.cost, self.notes, self.error):
            widget.hide()

    def _run(self) -> None:
        self.controller.start()

    def _pause_or_resume(self) -> None:
        if self.controller.state == "running":
            self.controller.pause()
        else:
            self.controller.resume()

    def _stop(self) -> None:
        self.controller.stop()

    def _show_state(self, state: str) -> None:
        self.run_button.setEnabled(state == "idle")
        held = state == "paused" or (state == "idle" and self.controller.resumable_run is not None)
        self.pause_button.setEnabled(state == "running" or held)
        self.pause_button.setText("Resume" if held else "Pause")
        self.stop_button.setEnabled(state in ("starting", "running", "paused"))
        if state == "stopping":
            self.progress_text.setText("stopping after this batch")
        elif state == "starting":
            # Nobody knows how long loading takes.
            self.progress_bar.setRange(0, 0)
            self._set_text(self.estimate, "")
            self._set_text(self.estimate_details, "")
            self._set_text(self.cost, "")
        if state != "starting":
            self.progress_bar.setRange(0, 1000)

    def _show_progress(self, status: Status) -> None:
        # It would draw itself at once, and the window with it, instead of with the rest.
        self.progress_bar.setUpdatesEnabled(False)
        self.progress_bar.setValue(round(1000 * status.fraction))
        self.progress_bar.setUpdatesEnabled(True)
        self.progress_text.setText(status.message)

    def _show_estimate(self, estimate: str, cost: str) -> None:
        if estimate:
            first, *rest = estimate.split("  ")
            self._set_text(self.estimate, first)
            self._set_text(self.estimate_details, " ".join(rest).strip(" ·"))
        if cost:
            self._set_text(self.cost, cost)

    def _show_notes(self, notes: list[str]) -> None:
        self._set_text(self.notes, "\n".join(f"· {note}" for note in notes))

    def _show_error(self, message: str) -> None:
        self._set_text(self.error, message)

    @staticmethod
    def _set_text(widget: QWidget, text: str) -> None:
        widget.setText(text)
        widget.setVisible(bool(text))
