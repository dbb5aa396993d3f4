"""A strategy's parameters as widgets.

The only file that uses what magicgui keeps private: `get_ui_fields`, which reads titles, bounds
and descriptions from the pydantic model. A test holds it to the installed version. magicgui's own
`build_widget` would do the rest, but its container outlives the fields that are taken out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.schema._ui_field import get_ui_fields
from magicgui.widgets import CheckBox
from pydantic import BaseModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QHBoxLayout, QLabel, QLineEdit

from hrviewer.strategies import Params
from hrviewer.viewer.widgets.common import Form, label

__all__ = ["ParamsForm"]


class ParamsForm(Form):
    """Fields for every parameter of a model, those that say nothing now left out.

    Parameters
    ----------
    model : type of BaseModel
        A strategy's parameters, or a format's options.
        Its fields' titles become labels, their descriptions tooltips, their bounds the widgets'.
    on_change : callable
        Told of the parameters that are not at their default, whenever one changes.

    Attributes
    ----------
    fields : dict
        magicgui's widgets, by the parameter's name.
    """

    def __init__(self, model: type[BaseModel], on_change: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._defaults = model().model_dump()
        self._visible_if = model.visible_if if issubclass(model, Params) else {}
        self._special_values = model.special_value_text if issubclass(model, Params) else {}
        self._special_labels: dict[str, QLabel] = {}
        self._labels: dict[str, QLabel] = {}
        self._on_change = on_change
        self.fields: dict[str, Any] = {}
        for about in get_ui_fields(model):
            field = about.create_widget()
            # What magicgui makes of a default below zero is not the default.
            field.value = self._defaults[about.name]
            if about.name in self._special_values and isinstance(field.native, QLineEdit):
                field.native.setPlaceholderText(self._special_values[about.name])
            elif about.name in self._special_values:
                self._special_labels[about.name] = overlay_text(
                    field.native, self._special_values[about.name]
                )
            if isinstance(field, CheckBox):
                field.text = ""  # it has its name beside it
            self.fields[about.name] = field
            title, tip = about.title or about.name, about.description or ""
            self._labels[about.name] = self.add(title, field.native, tip)
            field.changed.connect(self._on_field_changed)
        self._update_visibility()

    def values(self) -> dict[str, Any]:
        """Return the parameters that are not at their default."""
        values = {name: field.value for name, field in self.fields.items()}
        return {name: value for name, value in values.items() if value != self._defaults[name]}

    def _on_field_changed(self) -> None:
        self._update_visibility()
        self._on_change(self.values())

    def _update_visibility(self) -> None:
        """Show what says something now."""
        for name, (other, choices) in self._visible_if.items():
            shown = self.fields[other].value in choices
            self.fields[name].native.setVisible(shown)
            self._labels[name].setVisible(shown)
        for name, words in self._special_labels.items():
            words.setVisible(self.fields[name].value == self.fields[name].min)


def overlay_text(box: QAbstractSpinBox, text: str) -> QLabel:
    """Lay words over a box's number, for superqt's boxes have no special value's text of Qt's."""
    line = box.lineEdit()
    assert line is not None
    made = label(text, "covering")
    made.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
    over = QHBoxLayout(line)
    over.setContentsMargins(0, 0, 0, 0)
    over.addWidget(made)
    return made
