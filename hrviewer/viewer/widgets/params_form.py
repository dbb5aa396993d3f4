"""Form of a strategy's parameters or an export's options, from their pydantic model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from magicgui.widgets import CheckBox, create_widget
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QHBoxLayout, QLabel, QLineEdit

from hrviewer.strategies import Params
from hrviewer.viewer.widgets.common import Form, label

__all__ = ["ParamsForm"]


class ParamsForm(Form):
    """Fields for every parameter of a model; those without an effect now are hidden.

    Parameters
    ----------
    model : type of BaseModel
        A strategy's parameters, or a format's options.
        Its fields' titles become labels, their descriptions tooltips, their bounds the widgets'.
    on_change : callable
        Called with the parameters that are not at their default, whenever one changes.

    Attributes
    ----------
    fields : dict
        magicgui's widgets, by the parameter's name.
    """

    def __init__(self, model: type[BaseModel], on_change: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._defaults = model().model_dump()
        self._visible_if = model.visible_if if issubclass(model, Params) else {}
        special: Mapping[str, str] = getattr(model, "special_value_text", {})
        titles: Mapping[str, Mapping[str, str]] = getattr(model, "choice_titles", {})
        self._special_labels: dict[str, QLabel] = {}
        self._labels: dict[str, QLabel] = {}
        self._on_change = on_change
        self._task: str | None = None
        self._tasks = {name: tasks_of(about) for name, about in model.model_fields.items()}
        self.fields: dict[str, Any] = {}
        for name, about in model.model_fields.items():
            field = make_field(about, self._defaults[name], titles.get(name, {}))
            if name in special and isinstance(field.native, QLineEdit):
                field.native.setPlaceholderText(special[name])
            elif name in special:
                self._special_labels[name] = overlay_text(field.native, special[name])
            if isinstance(field, CheckBox):
                field.text = ""  # its label is in the form's first column
            self.fields[name] = field
            self._labels[name] = self.add(
                about.title or name, field.native, about.description or ""
            )
            field.changed.connect(self._on_field_changed)
        self._update_visibility()

    def values(self) -> dict[str, Any]:
        """Return the parameters that are not at their default, and have an effect."""
        values = {
            name: field.value for name, field in self.fields.items() if self._has_effect(name)
        }
        return {name: value for name, value in values.items() if value != self._defaults[name]}

    def set_task(self, task: str | None) -> None:
        """Show what has an effect for models of a task; None shows it for all tasks."""
        before, self._task = self.values(), task
        self._update_visibility()
        if self.values() != before:
            self._on_change(self.values())

    def _on_field_changed(self) -> None:
        self._update_visibility()
        self._on_change(self.values())

    def _has_effect(self, name: str) -> bool:
        """Return whether a parameter applies to the model's task and the choices of others."""
        tasks = self._tasks[name]
        if tasks is not None and self._task is not None and self._task not in tasks:
            return False
        if name not in self._visible_if:
            return True
        other, choices = self._visible_if[name]
        return self.fields[other].value in choices

    def _update_visibility(self) -> None:
        """Hide the parameters that have no effect."""
        for name, tasks in self._tasks.items():
            if tasks is not None or name in self._visible_if:
                visible = self._has_effect(name)
                self.fields[name].native.setVisible(visible)
                self._labels[name].setVisible(visible)
        for name, text in self._special_labels.items():
            text.setVisible(self.fields[name].value == self.fields[name].min)


def tasks_of(about: FieldInfo) -> list[Any] | None:
    """Return the tasks of models for which a parameter has an effect; None for all."""
    extra = about.json_schema_extra
    tasks = extra.get("tasks") if isinstance(extra, dict) else None
    return tasks if isinstance(tasks, list) else None


def make_field(about: FieldInfo, value: Any, titles: Mapping[str, str]) -> Any:
    """Return magicgui's widget for a field, with the field's bounds and its choices' titles."""
    options = bounds_of(about)
    if get_origin(about.annotation) is Literal:
        plain = {"auto": "automatic", **titles}
        options["choices"] = [
            (plain.get(choice, str(choice)), choice) for choice in get_args(about.annotation)
        ]
    return create_widget(value=value, annotation=about.annotation, options=options)


def bounds_of(about: FieldInfo) -> dict[str, Any]:
    """Return a field's bounds as options of magicgui's widgets."""
    options: dict[str, Any] = {}
    for constraint in about.metadata:
        for option, names in (
            ("min", ("ge", "gt")),
            ("max", ("le", "lt")),
            ("step", ("multiple_of",)),
        ):
            for name in names:
                bound = getattr(constraint, name, None)
                if bound is not None:
                    options[option] = bound
    return options


def overlay_text(box: QAbstractSpinBox, text: str) -> QLabel:
    """Lay text over a box's number, for superqt's boxes have no special value text of Qt's."""
    line = box.lineEdit()
    assert line is not None
    made = label(text, "overlay")
    made.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
    over = QHBoxLayout(line)
    over.setContentsMargins(0, 0, 0, 0)
    over.addWidget(made)
    return made
