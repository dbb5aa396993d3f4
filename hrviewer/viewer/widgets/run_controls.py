"""Run, Pause and Stop; progress, estimate, cost and notes."""

from __future__ import annotations

from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from hrviewer.app.state import Status
from hrviewer.formatting import EstimateText
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import ElidedLabel, RoomyLabel, label, resize_to_text, row

__all__ = ["RunControls"]


class RunControls(QWidget):
    """The middle part of the panel: there is always room for an answer.

    Parameters
    ----------
    controller : Controller
        Runs, and has the results.

    Attributes
    ----------
    notes : QLabel
        Notes on the result, as many as there are; the panel places them below.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.run_button = QPushButton("Run")
        self.pause_button = QPushButton("Pause")
        self.stop_button = QPushButton("Stop")
        self.run_button.setProperty("role", "primary")
        self.run_button.setToolTip("Run the strategy on the region (F5)")
        self.pause_button.setToolTip(
            "Pause after the current batch; resume a paused or stopped run (F6)"
        )
        self.stop_button.setToolTip(
            "Stop after the current batch; results so far are kept (Shift+F5)"
        )
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setFixedHeight(6)
        self.progress_text = ElidedLabel()
        self.estimate = RoomyLabel("estimate", 1)
        self.estimate_details = RoomyLabel("field", 2)
        self.cost = RoomyLabel("secondary", 1)
        self.notes = label("", "secondary", wrap=True)
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
        ):
            layout.addWidget(widget)

        self.run_button.clicked.connect(self._run)
        self.pause_button.clicked.connect(self._pause_or_resume)
        self.stop_button.clicked.connect(self._stop)
        controller.state.run_state_changed.connect(self._show_state)
        controller.state.image_changed.connect(self._refresh_state)
        controller.state.progress_changed.connect(self._show_progress)
        controller.state.estimate_changed.connect(self._show_estimate)
        controller.state.notes_changed.connect(self._show_notes)
        controller.state.error_raised.connect(self._show_error)
        self._show_state(controller.state.run_state)
        self.notes.hide()
        self.error.hide()

    def _run(self) -> None:
        self.controller.run_service.start()

    def _pause_or_resume(self) -> None:
        if self.controller.state.run_state == "running":
            self.controller.run_service.pause()
        else:
            self.controller.run_service.resume()

    def _stop(self) -> None:
        self.controller.run_service.stop()

    def _refresh_state(self) -> None:
        self._show_state(self.controller.state.run_state)

    def _show_state(self, state: str) -> None:
        self.run_button.setEnabled(state == "idle" and self.controller.state.image is not None)
        resumable = state == "idle" and self.controller.state.resumable_run is not None
        held = state == "paused" or resumable
        self.pause_button.setEnabled(state == "running" or held)
        self.pause_button.setText("Resume" if held else "Pause")
        self.stop_button.setEnabled(state in ("starting", "running", "paused"))
        if state == "stopping":
            self.progress_text.setText("stopping after this batch")
        elif state == "starting":
            self.progress_bar.setRange(0, 0)  # loading takes an unknown time
        if state != "starting":
            self.progress_bar.setRange(0, 1000)

    def _show_progress(self, status: Status) -> None:
        # Else the bar repaints at once, and the window with it, instead of with the rest.
        self.progress_bar.setUpdatesEnabled(False)
        loading = status.busy or self.controller.state.run_state == "starting"
        self.progress_bar.setRange(0, 0 if loading else 1000)
        self.progress_bar.setValue(round(1000 * status.fraction))
        self.progress_bar.setUpdatesEnabled(True)
        self.progress_text.setText(status.message)

    def _show_estimate(self, estimate: EstimateText, cost: str) -> None:
        self._set_texts(
            {
                self.estimate: estimate.amount,
                self.estimate_details: estimate.details,
                self.cost: cost,
            }
        )

    def _show_notes(self, notes: list[str]) -> None:
        self._set_texts({self.notes: "\n".join(f"· {note}" for note in notes)})

    def _show_error(self, message: str) -> None:
        self._set_texts({self.error: message})

    def _set_texts(self, texts: dict[QLabel, str]) -> None:
        changed = any(widget.text() != text for widget, text in texts.items())
        for widget, text in texts.items():
            widget.setText(text)
            if widget in (self.notes, self.error):
                widget.setVisible(bool(text))
        if changed:
            resize_to_text(self)
            resize_to_text(self.notes)
