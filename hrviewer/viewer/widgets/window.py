"""The window around the panel: its size, the places of its docks, and its events for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QCoreApplication, QEvent, QEventLoop, QRect, Qt
from qtpy.QtGui import QFontMetrics, QGuiApplication
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QWidget

if TYPE_CHECKING:
    import napari

__all__ = ["arrange_docks", "fit_title", "image_share", "process_events", "set_window_size"]

MIN_IMAGE_SHARE = 0.52
"""Part of the window's width that the image has beside docks on both sides, at least."""

MAX_PANEL_SHARE = 0.42
"""Part of the window's width that the panel takes by itself, at most."""

SHORT_TITLE = "hrviewer"
TITLE_ROOM = 17
"""Pixels that a dock has for its title above its widget, at any size of text."""

DEFAULT_LEFT = ("layer controls", "layer list")
"""Docks that napari has on the left, from top to bottom, by their objects' names."""


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


def arrange_docks(panel: QWidget, width: int) -> None:
    """Put docks where they are at first; in a narrow window all of them in one column of tabs.

    Parameters
    ----------
    panel : QWidget
        The docked panel.
    width : int
        Its width in pixels.
    """
    window, ours = panel.window(), dock_of(panel)
    if not isinstance(window, QMainWindow) or ours is None:
        return
    docks = {dock.objectName(): dock for dock in window.findChildren(QDockWidget)}
    left = [docks[name] for name in DEFAULT_LEFT if name in docks]
    for dock in (ours, *left):
        dock.setFloating(False)
        dock.show()
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, ours)
    for dock in left:
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock, Qt.Orientation.Vertical)
    width = min(width, round(MAX_PANEL_SHARE * window.width()))
    beside = max((dock.sizeHint().width() for dock in left), default=0)
    if window.width() - beside - width < MIN_IMAGE_SHARE * window.width():
        set_title(ours, SHORT_TITLE)  # there is little room on its tab, and above it
        for dock in left:
            window.tabifyDockWidget(ours, dock)
    else:
        set_title(ours, getattr(ours, "name", SHORT_TITLE))
        window.resizeDocks(left[:1], [beside], Qt.Orientation.Horizontal)
    window.resizeDocks([ours], [width], Qt.Orientation.Horizontal)
    ours.raise_()


def fit_title(panel: QWidget) -> None:
    """Show the dock's title whole, in smaller letters where there is little room.

    napari sets text and height once; a larger title would lie over the panel's tabs.
    """
    from napari.settings import get_settings

    dock = dock_of(panel)
    bar = None if dock is None else dock.titleBarWidget()
    if dock is None or bar is None:
        return
    for title in bar.findChildren(QLabel):
        font, points = title.font(), float(get_settings().appearance.font_size)
        font.setPointSizeF(points)
        points *= min(1.0, TITLE_ROOM / QFontMetrics(font).height())
        title.setStyleSheet(f"font-size: {points:.3g}pt")
        title.setText(dock.windowTitle())
        title.setMinimumHeight(TITLE_ROOM)
        bar.setMinimumHeight(TITLE_ROOM)


def set_title(dock: QDockWidget, title: str) -> None:
    """Set the title of a dock, on its tab and above it."""
    dock.setWindowTitle(title)
    fit_title(dock.widget())


def image_share(panel: QWidget) -> float:
    """Return the part of the window's width that the image has."""
    window = panel.window()
    centre = window.centralWidget() if isinstance(window, QMainWindow) else None
    return 1.0 if centre is None else float(centre.width() / window.width())


def dock_of(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget is in."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
