"""Settings of a run: image, model, strategy and its parameters, region, budget."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMessageBox,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from hrviewer.app.services.model_loader import DESCRIPTIONS
from hrviewer.escaping import plain_text
from hrviewer.models.loaders import CODE_FORMATS, PRECISIONS, WEIGHTS_FORMATS
from hrviewer.pyramid.synthetic import synthetic_image_names
from hrviewer.strategies import get_strategy, strategy_ids
from hrviewer.units import format_length
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import shape_of
from hrviewer.viewer.widgets.common import ElidedLabel, Form, label, resize_to_text, row
from hrviewer.viewer.widgets.image_form import ImageForm
from hrviewer.viewer.widgets.open_button import OpenButton
from hrviewer.viewer.widgets.params_form import ParamsForm
from hrviewer.viewer.widgets.prior_form import PriorForm

__all__ = ["RunSettingsForm"]

REGIONS = {"Whole image": "whole", "What is visible": "visible", "Drawn shape": "drawn"}
SAMPLE_IMAGES = {"a crowd": ("crowd", "crowd"), "a slide": ("tissue", "nuclei")}
"""Synthetic images to try, where they are installed, each with its model."""

LINK_COLOUR = "#7d93f0"

UNITS = {"GFLOP": "GFLOP", "TFLOP": "TFLOP", "seconds": "s", "patches": "patches"}


class RunSettingsForm(QWidget):
    """The upper part of the panel: what every strategy needs, always equally high.

    Parameters
    ----------
    controller : Controller
        Gets the settings.

    Attributes
    ----------
    details : QWidget
        Parameters, prior map and device: of another height for each strategy, so the panel places
        them below what must not move.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.image = QElidingLabel()
        self.image.setIndent(0)
        self.image.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.image_summary = label("", "secondary", wrap=True)
        self.image_summary.linkActivated.connect(self._open_sample)
        self.model = make_combo_box()
        self.model_summary = ElidedLabel()
        self.strategy = make_combo_box()
        self.strategy_summary = ElidedLabel(lines=2)
        self.region = make_combo_box()
        self.device = make_combo_box()
        self.precision = make_combo_box()
        self.budget = QLineEdit()
        self.unit = make_combo_box()
        self.params: ParamsForm | None = None
        self._live_after_open = False
        self._fill()

        upper = Form()
        self.open_button = OpenButton(controller)
        upper.add("Image", row(self.image, self.open_button))
        upper.add("", self.image_summary)
        self.image_form = ImageForm(controller)
        middle = Form()
        self.model_button = self._make_button(
            "…", "Open a model bundle or a network", self.choose_model
        )
        middle.add("Model", row(self.model, self.model_button))
        middle.add("", self.model_summary)
        middle.add("Strategy", self.strategy, "Inference strategy (F9 selects the next one)")
        middle.add("", self.strategy_summary)
        self._params_layout = QVBoxLayout()
        lower = Form()
        self.draw_button = self._make_button("✎", "Draw a rectangle on the image", self.draw_region)
        lower.add(
            "Region",
            row(self.region, self.draw_button),
            "Region of interest: the estimate covers this area only",
        )
        lower.add(
            "Budget",
            row(self.budget, self.unit),
            "Limit of the run's cost, for all networks together; empty for the strategy's default",
        )
        device = Form()
        device.add(
            "Device",
            row(self.device, self.precision, stretch=None),
            "Lower precision is faster; its error on this image is measured and reported",
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addWidget(upper)
        layout.addWidget(self.image_form)
        layout.addWidget(middle)
        layout.addWidget(lower)
        self.prior_form = PriorForm(controller)
        self.details = QWidget()
        below = QVBoxLayout(self.details)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(5)
        below.addLayout(self._params_layout)
        below.addWidget(self.prior_form)
        below.addWidget(device)

        self.model.activated.connect(self._set_model)
        self.strategy.activated.connect(self._set_strategy)
        self.device.activated.connect(self._set_device)
        self.precision.activated.connect(self._set_device)
        self.region.activated.connect(self._set_region)
        self.unit.activated.connect(self._set_budget)
        self.budget.textEdited.connect(self._set_budget)
        controller.state.image_changed.connect(self._show_image)
        controller.state.image_renamed.connect(self._show_image)
        controller.state.model_changed.connect(self._show_model)
        controller.state.model_changed.connect(self._show_task)
        controller.state.strategy_changed.connect(self._show_strategy)
        self._show_image()
        self._show_strategy()
        self._show_model()
        self.device.setCurrentIndex(self.device.findData(controller.state.settings.device))

    def choose_model(self) -> None:
        """Let the user choose a network's file, or a model bundle."""
        kinds = " ".join(f"*{suffix}" for suffix in sorted(WEIGHTS_FORMATS + CODE_FORMATS))
        kinds += " " + " ".join(DESCRIPTIONS)
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a network, or the description in its folder", "", f"Models ({kinds} *.zip)"
        )
        if path:
            self.controller.model_loader.open(Path(path), self._confirm_trust)

    def _confirm_trust(self, path: Path) -> bool:
        """Ask whether a model may run code."""
        answer = QMessageBox.question(
            self,
            "Does this model come from a source that you trust?",
            plain_text(
                f"{path.name} can run any code on this computer when it is opened. Open it only "
                "if you trust its source."
            ),
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _fill(self) -> None:
        for name in self.controller.state.installed_models():
            self.model.addItem(name, name)
        self.model.setPlaceholderText("choose one" if self.model.count() else "press … to open one")
        for name in strategy_ids():
            self.strategy.addItem(get_strategy(name).title, name)
        for title, kind in REGIONS.items():
            self.region.addItem(title, kind)
        for name in ("auto", "cpu", "mps" if sys.platform == "darwin" else "cuda"):
            self.device.addItem(name, name)
        for name in PRECISIONS:
            self.precision.addItem(name, name)
        for title, unit in UNITS.items():
            self.unit.addItem(title, unit)
        self.unit.setCurrentText("TFLOP")
        self.unit.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.budget.setPlaceholderText("as needed")

    def _make_button(self, text: str, tip: str, act: Any) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        button.setMinimumWidth(28)
        button.clicked.connect(act)
        return button

    def draw_region(self) -> None:
        """Let the user draw a rectangle, and select it as the region."""
        if self.controller.image_layer is not None:
            self.region.setCurrentIndex(self.region.findData("drawn"))
            self._set_region()
            self.controller.draw_region()

    def _set_model(self) -> None:
        spec = self.model.currentData()
        if spec is not None:
            self.controller.state.set_model(spec)

    def _set_strategy(self) -> None:
        self.controller.state.set_strategy(self.strategy.currentData())

    def _set_region(self) -> None:
        self.controller.state.settings.region = self.region.currentData()

    def _set_device(self) -> None:
        self.controller.state.settings.device = self.device.currentData()
        self.controller.state.settings.precision = self.precision.currentData()

    def _set_budget(self) -> None:
        amount = self.budget.text().strip()
        self.controller.state.settings.budget = (
            f"{amount}{self.unit.currentData()}" if amount else ""
        )

    def _show_task(self) -> None:
        """Show the parameters that have an effect with the model."""
        model = self.controller.state.settings.model
        card = None if model is None else model.roles.get("main")
        if self.params is not None:
            self.params.set_task(None if card is None else card.task)

    def _set_params(self, values: dict[str, Any]) -> None:
        self.controller.state.settings.params = values

    def _show_image(self) -> None:
        layer = self.controller.image_layer
        image = self.controller.state.image
        self.image.setText("none is open" if image is None else image.name)
        self.image.setToolTip("" if image is None else plain_text(image.name))
        if layer is None:
            self.image_summary.setTextFormat(Qt.TextFormat.RichText)
            self.image_summary.setText(getting_started(self.controller.state.installed_models()))
            return
        self.image_summary.setTextFormat(Qt.TextFormat.PlainText)
        height, width = shape_of(layer)
        summary = f"{height:,} × {width:,} px · {height * width / 1e6:,.1f} MP"
        if str(layer.units[-1]) in ("micrometer", "um", "µm"):
            sizes = dict.fromkeys(format_length(float(side)) for side in layer.scale[-2:])
            summary += f" · {' × '.join(sizes)}/px"
        self.image_summary.setText(summary)
        if self._live_after_open:
            self._live_after_open = False
            self.controller.live.set_enabled(True)

    def _open_sample(self, title: str) -> None:
        image, model = SAMPLE_IMAGES[title]
        self.controller.state.set_model(model)
        self.controller.state.set_strategy("zoom")
        self.controller.image_loader.open(f"sample:{image}?size=8192&seed=0")
        self._live_after_open = True

    def _show_model(self) -> None:
        model = self.controller.state.settings.model
        if model is None:
            self.model.setCurrentIndex(-1)
            self.model_summary.setText(
                "proposed by the image, or yours"
                if self.model.count()
                else "no model is installed: press … to open a network"
            )
            return
        at = next(
            (i for i in range(self.model.count()) if self.model.itemText(i) == model.name), -1
        )
        if at < 0:
            self.model.addItem(model.name, model)
            at = self.model.count() - 1
        self.model.setCurrentIndex(at)
        card = model.roles.get("main")
        summary = f"{card.task}: {join_names(card.classes)}" if card is not None else ""
        if model.title != model.name:
            summary = f"{model.title} · {summary}"
        if not self.controller.state.model_is_chosen:
            summary += " · proposed for this image"
        self.model_summary.setText(summary)

    def _show_strategy(self) -> None:
        strategy = self.controller.state.settings.strategy
        self.strategy.setCurrentIndex(self.strategy.findData(strategy.id))
        self.strategy_summary.setText(strategy.when)
        if self.params is not None:
            self._params_layout.removeWidget(self.params)
            self.params.hide()
            self.params.deleteLater()
        self.params = ParamsForm(strategy.Params, self._set_params)
        self._show_task()
        self._params_layout.addWidget(self.params)
        self.params.show()  # now: Qt would show it with later events, and move what is around
        resize_to_text(self.details)


def join_names(names: Sequence[str], limit: int = 4) -> str:
    """Return names in a line, of many the first."""
    rest = len(names) - limit
    return ", ".join([*names[:limit], *([f"{rest} more"] if rest > 0 else [])])


def getting_started(models: Collection[str]) -> str:
    """Return instructions for a window without an image, with links to synthetic images."""
    links = [
        f'<a href="{title}" style="color: {LINK_COLOUR}">{title.replace(" ", "&nbsp;")}</a>'
        for title, (image, model) in SAMPLE_IMAGES.items()
        if image in synthetic_image_names() and model in models
    ]
    first = "drop one on the window"
    return f"{first}, or try {' or '.join(links)}" if links else f"{first}, or open one"


def make_combo_box() -> QComboBox:
    """Return a combo box that does not widen the panel."""
    made = QComboBox()
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    made.setMinimumContentsLength(8)
    return made
