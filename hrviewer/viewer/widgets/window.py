"""The window around the panel: its size, and its events for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QCoreApplication, QEvent, QEventLoop, QRect
from qtpy.QtGui import QGuiApplication

if TYPE_CHECKING:
    import napari

__all__ = ["process_events", "set_window_size"]


def process_events(milliseconds: int = 20) -> None:
    """Process the window's events, and delete what is scheduled for deletion."""
    QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, milliseconds)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def set_window_size(viewer: napari.Viewer) -> None:
    """Give a window without a saved size room for an image beside the panel."""
    from napari.settings import get_settings

    screen = QGuiApplication.primaryScreen()
    if get_settings().application.window_size is None and screen is not None:
        free = screen.availableGeometry()
        here = QRect(0, 0, min(1600, free.width() * 9 // 10), min(1000, free.height() * 9 // 10))
        here.moveCenter(free.center())
        viewer.window.set_geometry(*here.getRect())
