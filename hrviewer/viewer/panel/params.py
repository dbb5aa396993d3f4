"""A strategy's parameters as widgets.

The only file that uses what magicgui keeps private: `get_ui_fields`, which reads titles, bounds
and descriptions from the pydantic model. A test holds it to the installed version. magicgui's own
`build_widget` would do the rest, but its container outlives the fields that are taken out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.schema._ui_field import get_ui_fields
from pydantic import BaseModel

from hrviewer.viewer.panel.parts import Form

__all__ = ["ParamsForm"]


class ParamsForm(Form):
    """Fields for every parameter of a model.

    Parameters
    ----------
    model : type of BaseModel
        A strategy's parameters, or a format's options.
        Its fields' titles become labels, their descriptions tooltips, their bounds the widgets'.
    changed : callable
        Told of the parameters that are not at their default, whenever one changes.

    Attributes
    ----------
    fields : dict
        magicgui's widgets, by the parameter's name.
    """

    def __init__(self, model: type[BaseModel], changed: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._defaults = model().model_dump()
        self._changed = changed
        self.fields: dict[str, Any] = {}
        for about in get_ui_fields(model):
            field = about.create_widget()
            # What magicgui makes of a default below zero is not the default.
            field.value = self._defaults[about.name]
            self.fields[about.name] = field
            self.add(about.title or about.name, field.native, about.description or "")
            field.changed.connect(self._tell)

    def values(self) -> dict[str, Any]:
        """Return the parameters that are not at their default."""
        values = {name: field.value for name, field in self.fields.items()}
        return {name: value for name, value in values.items() if value != self._defaults[name]}

    def _tell(self) -> None:
        self._changed(self.values())
