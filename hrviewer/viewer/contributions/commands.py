"""Commands of the palette and the menus."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from hrviewer.viewer.widgets import Panel

__all__ = ["open_run", "panel_of", "show_panel"]

PANEL_TITLE = "High-resolution inference"
"""Name of the widget in the manifest; napari appends the plugin's name."""


def panel_of(viewer: napari.viewer.Viewer) -> Panel:
    """Return the window's panel; it is docked if it was not."""
    _, panel = viewer.window.add_plugin_dock_widget("hrviewer", PANEL_TITLE)
    return panel  # type: ignore[no-any-return]


def show_panel(viewer: napari.viewer.Viewer) -> None:
    """Dock the panel."""
    panel_of(viewer)


def open_run(viewer: napari.viewer.Viewer) -> None:
    """Let the user choose a run's folder, and show its overlays."""
    panel_of(viewer).open_run_button.choose_run()
