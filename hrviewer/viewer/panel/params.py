"""A strategy's parameters as widgets.

The only file that uses what magicgui keeps private: `build_widget`, which reads titles, bounds and
descriptions from the pydantic model. A test holds it to the pinned version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.schema._ui_field import build_widget

from hrviewer.strategies import Params
from hrviewer.viewer.panel.parts import Form

__all__ = ["ParamsForm"]


class ParamsForm(Form):
    """Fields for every parameter of a model.

    Parameters
    ----------
    model : type of Params
        Its fields' titles become labels, their descriptions tooltips, their bounds the widgets'.
    changed : callable
        Told of the parameters that are not at their default, whenever one changes.
    """

    def __init__(self, model: type[Params], changed: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._defaults = model().model_dump()
        self._changed = changed
        self._container = build_widget(model)
        self._container.labels = False
        for field in self._container:
            # What magicgui makes of a default below zero is not the default.
            field.value = self._defaults[field.name]
            about = model.model_fields[field.name]
            self.add(about.title or field.name, field.native, about.description or "")
        self._container.changed.connect(self._tell)

    def values(self) -> dict[str, Any]:
        """Return the parameters that are not at their default."""
        values: dict[str, Any] = self._container.asdict()
        return {name: v for name, v in values.items() if v != self._defaults[name]}

    def _tell(self) -> None:
        self._changed(self.values())
