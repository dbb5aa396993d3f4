"""Preferences of the user, on hrviewer's page of napari's preferences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrviewer.viewer.controller import Controller

__all__ = ["Preferences", "apply_preferences", "read_preferences"]

PLUGIN, SECTION = "hrviewer", "inference"
"""Names in the manifest."""


@dataclass(frozen=True)
class Preferences:
    """What is selected when a window opens.

    Parameters
    ----------
    model : str
        Name of an installed model bundle; empty for the one that the image proposes.
    device : str
        Where models run.
    run_folder : str
        Folder that runs are written to; empty for the one in the user's data folder.
    """

    model: str = ""
    device: str = "auto"
    run_folder: str = ""

    @property
    def run_path(self) -> Path | None:
        """Folder that runs are written to; None for the default."""
        return Path(self.run_folder).expanduser() if self.run_folder.strip() else None


def read_preferences() -> Preferences:
    """Return the user's preferences; the defaults where the plugin is not registered."""
    from napari.settings import get_plugin_settings

    try:
        section = getattr(get_plugin_settings(PLUGIN), SECTION)
    except (KeyError, AttributeError):
        return Preferences()
    return Preferences(str(section.model), str(section.device), str(section.run_folder))


def apply_preferences(controller: Controller, preferences: Preferences) -> None:
    """Select what the user prefers; a model that is no longer installed is left out."""
    state = controller.state
    controller.resources.run_folder = preferences.run_path or controller.resources.run_folder
    state.settings.device = preferences.device
    if preferences.model in state.installed_models():
        state.set_model(preferences.model)
