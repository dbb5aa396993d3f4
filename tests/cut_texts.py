"""Finder of texts that a window cuts off, and of controls that overlap."""

from itertools import combinations

from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QScrollArea,
    QWidget,
)
from superqt import QElidingLabel

ARROW = 24
"""Pixels of a box's arrow and its margins."""

CONTROLS = (QAbstractButton, QAbstractSpinBox, QComboBox, QLabel, QLineEdit)
EDGE = 1
"""Pixels of rounding that are no fault."""


def cut_texts(root: QWidget) -> list[str]:
    """Return a line for every visible text that has less room than it needs.

    Labels that end a long text with an ellipsis show all of it in their tooltip.
    """
    found = []
    for widget in visible_controls(root):
        name = f"{type(widget).__name__} {text_of(widget)!r}"
        if isinstance(widget, QElidingLabel):
            if widget.text() and widget.toolTip() == "" and elides(widget):
                found.append(f"{name} ends with an ellipsis and has no tooltip")
        elif isinstance(widget, QLabel) and widget.wordWrap():
            needed = widget.heightForWidth(widget.width())
            if widget.height() < needed - EDGE:
                found.append(f"{name} is {widget.height()} px high and needs {needed}")
            longest = max(map(widget.fontMetrics().horizontalAdvance, words(widget)), default=0)
            if widget.width() < longest - EDGE:
                found.append(f"{name} is {widget.width()} px wide and has a word of {longest}")
        elif isinstance(widget, QComboBox) and widget.currentText():
            needed = widget.fontMetrics().horizontalAdvance(widget.currentText()) + ARROW
            if widget.width() < needed:
                found.append(f"{name} is {widget.width()} px wide and needs {needed}")
        elif isinstance(widget, QLabel | QAbstractButton) and text_of(widget):
            needed = needed_width(widget)
            if widget.width() < needed - EDGE:
                found.append(f"{name} is {widget.width()} px wide and needs {needed}")
            line = widget.fontMetrics().height()
            if isinstance(widget, QLabel) and widget.height() < line - EDGE:
                found.append(f"{name} is {widget.height()} px high and a line needs {line}")
    return found


def needed_width(widget: QLabel | QAbstractButton) -> int:
    """Return the width without which a text is cut off."""
    if isinstance(widget, QLabel | QCheckBox):
        return int(widget.sizeHint().width())
    return int(widget.fontMetrics().horizontalAdvance(widget.text())) + 4


def words(label: QLabel) -> list[str]:
    """Return the words of a label's text, which are not broken; none of a text with links."""
    return [] if "<" in label.text() else label.text().split()


def elides(label: QElidingLabel) -> bool:
    """Return whether a label shows less than its text."""
    return str(QLabel.text(label)) != label.text()


def overlapping(root: QWidget) -> list[str]:
    """Return a line for every two controls of one parent that cover each other."""
    found = []
    by_parent: dict[QWidget, list[QWidget]] = {}
    for widget in visible_controls(root):
        by_parent.setdefault(widget.parentWidget(), []).append(widget)
    for siblings in by_parent.values():
        for one, other in combinations(siblings, 2):
            shared = one.geometry().intersected(other.geometry())
            if shared.width() > EDGE and shared.height() > EDGE:
                found.append(f"{text_of(one)!r} and {text_of(other)!r} overlap by {shared}")
    return found


def outside(root: QWidget) -> list[str]:
    """Return a line for every control that reaches beyond the column that it is in."""
    found = []
    for area in root.findChildren(QScrollArea):
        body = area.widget()
        if body is None or not body.isVisible():
            continue
        for widget in visible_controls(body):
            frame = QRect(widget.mapTo(body, QPoint(0, 0)), widget.size())
            if frame.left() < -EDGE or frame.right() > area.viewport().width() + EDGE:
                found.append(f"{text_of(widget)!r} reaches from {frame.left()} to {frame.right()}")
    return found


def visible_controls(root: QWidget) -> list[QWidget]:
    """Return the visible widgets with a text or a value, without the parts of such widgets."""
    return [
        widget
        for widget in root.findChildren(QWidget)
        if isinstance(widget, CONTROLS)
        and widget.isVisible()
        and not isinstance(widget.parentWidget(), QAbstractSpinBox | QComboBox | QLineEdit)
    ]


def text_of(widget: QWidget) -> str:
    """Return what a widget shows."""
    for name in ("text", "currentText"):
        if hasattr(widget, name):
            return str(getattr(widget, name)())
    return widget.objectName()
