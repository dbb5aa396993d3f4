"""Training of a head on labelled embeddings.

While a class is selected, a click where embeddings are displayed labels the embedding there
instead of comparing it with the others. A few labels suffice: a linear head is fitted to them.

Invariants: the head is fitted on a worker thread; it is fitted to the displayed embeddings, so
also live, before any run; the fitted head is a model bundle like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from psygnal import Signal

from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background, Task
from hrviewer.app.services.run_service import RunService
from hrviewer.app.state import AppState, PatchClick
from hrviewer.errors import RunError, format_error
from hrviewer.io.features import Feature
from hrviewer.models import CombinedBundle, ModelBundle
from hrviewer.paths import unused_path
from hrviewer.runs.heads import Embeddings, FittedHead, fit_place_classifier

__all__ = ["HeadTrainer"]


class HeadTrainer:
    """Collects labels, fits a head and selects it.

    Parameters
    ----------
    state : AppState
        Has the image with its embeddings and labels, and emits clicks.
    background : Background
        Fits.
    resources : Resources
        The folder of heads.
    runs : RunService
        Runs the fitted head.

    Attributes
    ----------
    head : FittedHead or None
        The head that was fitted last.
    """

    availability_changed = Signal(bool)
    message_changed = Signal(str)

    def __init__(
        self, state: AppState, background: Background, resources: Resources, runs: RunService
    ) -> None:
        self._state, self._background = state, background
        self._resources, self._runs = resources, runs
        self.head: FittedHead | None = None
        self._available = False
        self._task: Task[FittedHead] | None = None
        state.patch_clicked.connect(self._on_click)
        state.labels_changed.connect(self._report_counts)

    @property
    def is_running(self) -> bool:
        """Whether a head is being fitted."""
        return self._task is not None and self._task.is_pending

    @property
    def label(self) -> str:
        """Class that a click assigns; empty where clicks assign none."""
        return self._state.label

    @property
    def is_available(self) -> bool:
        """Whether the current image has embeddings."""
        maps = self._state.maps
        return maps is not None and maps.embeddings is not None

    def set_label(self, label: str) -> None:
        """Assign a class from now on, on displayed embeddings; none if it is empty."""
        self._state.label = label.strip()
        if self._state.label and self.is_available:
            self._state.embeddings_requested.emit()

    def labels(self) -> list[Feature]:
        """Return the labels of the current image, in the order in which they were assigned."""
        return [] if self._state.image is None else self._state.image.labels

    def set_labels(self, labels: Sequence[Feature]) -> None:
        """Replace the labels of the current image, as after the user removed some."""
        if self._state.image is not None:
            self._state.image.labels = [*labels]
            self._state.labels_changed.emit()

    def fit(self) -> None:
        """Fit a head to the labels; `message_changed` reports its accuracy."""
        with self._state.reporting_errors():
            maps, model = self._state.maps, self._state.settings.model
            if self.is_running:
                return
            if maps is None or maps.embeddings is None or model is None:
                raise RunError("there are no embeddings to fit a head to: run compression first")
            encoder = model.roles["encoder"].name if "encoder" in model.roles else ""
            found = Embeddings(maps.embeddings.values, maps.embeddings.cell, encoder)
            labels, out = self.labels(), self._new_head_path(model)
            self._task = self._background.submit(
                "fit",
                lambda task: fit_place_classifier(found, labels, out),
                self._set_head,
                failed=self._fail,
            )
            self.message_changed.emit("fitting…")

    def use_head(self) -> None:
        """Select the fitted head together with the bundle that encoded, and run it."""
        with self._state.reporting_errors():
            head, model = self.head, self._state.settings.model
            if head is None or model is None:
                raise RunError("fit a head first")
            parts = model.bundles if isinstance(model, CombinedBundle) else (model,)
            # An earlier fitted head makes room.
            rest = [part for part in parts if set(part.roles) != {"head"}]
            self._state.set_model(CombinedBundle([ModelBundle.read(head.path), *rest]))
            live = self._state.live.enabled  # Live updates without a run
            if self._state.settings.strategy.id == "compression" and not live:
                self._runs.start()

    def tick(self) -> None:
        """Report whether there are embeddings."""
        available = self.is_available
        if available != self._available:
            self._available = available
            self.availability_changed.emit(available)

    def _on_click(self, click: PatchClick) -> None:
        image = self._state.image
        if image is None or image.maps is None or not self.label or not click.embeddings_visible:
            return
        if image.maps.patch_at(*click.point) is not None:
            image.labels = [*image.labels, Feature("annotation", self.label, point=click.point)]
            self._state.labels_changed.emit()

    def _set_head(self, head: FittedHead) -> None:
        self.head = head
        self._report_counts()
        self.message_changed.emit(f"{head.training_summary}\nleft out: {head.validation_summary}")

    def _fail(self, error: Exception) -> None:
        self._report_counts()
        self._state.report_error(format_error(error))

    def _new_head_path(self, model: ModelBundle) -> Path:
        """Claim a new folder for a head."""
        return unused_path(self._resources.heads(), f"{model.name}-labels")

    def _report_counts(self) -> None:
        counts = Counter(label.label for label in self.labels())
        self.message_changed.emit(", ".join(f"{n:,} {name}" for name, n in counts.items()))
