"""Commands of napari's palette and menus: the actions of the panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from hrviewer.viewer.widgets import Panel

__all__ = ["panel_of", "show_panel"]

PANEL_TITLE = "High-resolution inference"
"""Name of the widget in the manifest; napari appends the plugin's name."""


def panel_of(viewer: napari.viewer.Viewer) -> Panel:
    """Return the window's panel; it is docked if it was not."""
    _, panel = viewer.window.add_plugin_dock_widget("hrviewer", PANEL_TITLE)
    return panel  # type: ignore[no-any-return]


def show_panel(viewer: napari.viewer.Viewer) -> None:
    """Dock the panel."""
    panel_of(viewer)


def command(action: str) -> Callable[[napari.viewer.Viewer], None]:
    """Return the command of the manifest that does an action of the panel."""

    def execute(viewer: napari.viewer.Viewer) -> None:
        panel_of(viewer).user_actions(action)

    return execute


open_image = command("open_image")
open_folder = command("open_folder")
open_model = command("open_model")
open_run = command("open_run")
draw_region = command("draw_region")
run = command("run")
pause_or_resume = command("pause_or_resume")
stop = command("stop")
toggle_live = command("toggle_live")
next_strategy = command("next_strategy")
previous_strategy = command("previous_strategy")
run_other_strategies = command("run_other_strategies")
show_run_tab = command("show_run_tab")
compare = command("compare")
export = command("export")
reset_layout = command("reset_layout")
export_figure = command("export_figure")
undo_drawing = command("undo_drawing")
redo_drawing = command("redo_drawing")
