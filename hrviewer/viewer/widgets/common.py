"""Labels, rows, forms and bars of the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from napari.settings import get_settings
from numpy.typing import NDArray
from qtpy.QtCore import QCoreApplication, QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QBrush,
    QColor,
    QFontMetrics,
    QImage,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPixmap,
)
from qtpy.QtWidgets import (
    QApplication,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QWidget,
)
from superqt import QElidingLabel

from hrviewer.escaping import plain_text

__all__ = [
    "SWITCH_SPACING",
    "Bar",
    "ElidedLabel",
    "Form",
    "RoomyLabel",
    "TextSizedWidget",
    "heading",
    "keep_together",
    "label",
    "label_width",
    "resize_to_text",
    "row",
    "show_pixels",
    "style_sheet",
    "switch_width",
    "text_metrics",
]

LABEL_CHARACTERS, SWITCH_CHARACTERS = 16, 20
"""Widths of the column of labels and of that of the overlays' switches, in average characters."""

SWITCH_SPACING = 6
"""Room after the column of switches, in pixels."""

Role = Literal[
    "plain", "secondary", "field", "overlay", "heading", "estimate", "error", "low", "high"
]
"""Of a label, in the style sheet."""


def style_sheet(
    text: str, muted: str, line: str, box: str, points: float, accent: str = "#4a62c9"
) -> str:
    """Return the panel's style sheet.

    Parameters
    ----------
    text, muted, line, box, accent : str
        Colours of text, of explanations, of thin lines, of fields and of buttons.
    points : float
        Size of napari's text; that of explanations and of the estimate follow it.
    """
    small, large = 0.94 * points, 1.67 * points
    return f"""
        QLabel[role="secondary"] {{ color: {muted}; font-size: {small:.3g}pt; }}
        QLineEdit {{ font-size: {points:.3g}pt; }}
        QTableWidget, QTableWidget QHeaderView::section {{ font-size: {small:.3g}pt; }}
        QTableWidget QHeaderView::section {{ padding: 2px 4px; }}
        QLabel[role="field"] {{ color: {muted}; }}
        QLabel[role="low"] {{ color: #ffffff; background: rgba(0, 0, 0, 110);
                               border-radius: 3px; padding: 0 3px; font-size: {small:.3g}pt; }}
        QLabel[role="high"] {{ color: #000000; background: rgba(255, 255, 255, 150);
                                border-radius: 3px; padding: 0 3px; font-size: {small:.3g}pt; }}
        QLabel[role="overlay"] {{ color: {muted}; background: {box}; }}
        QLabel[role="heading"] {{ color: {text}; font-weight: 600; padding-top: 2px; }}
        QLabel[role="estimate"] {{ color: {text}; font-size: {large:.3g}pt;
                                    font-weight: 600; }}
        QLabel[role="error"] {{ color: #ffffff; background: #b3403a; border-radius: 4px;
                                 padding: 5px 7px; }}
        QPushButton[role="primary"]:enabled {{ background: {accent}; color: white;
                                             font-weight: 600; }}
        QPushButton[role="primary"]:enabled:hover {{ border: 1px solid {text}; }}
        QToolButton {{ background: {line}; border-radius: 3px; min-height: 20px; }}
        QToolButton[role="menu"] {{ padding-left: 6px; padding-right: 16px; }}
        QToolButton:hover {{ background: {accent}; color: white; }}
        QPushButton:focus, QToolButton:focus, QComboBox:focus, QLineEdit:focus, QCheckBox:focus,
        QAbstractSpinBox:focus, QSlider:focus, QListView:focus, QTableWidget:focus {{
            border: 1px solid {text}; }}
        QProgressBar {{ background: {line}; border: none; border-radius: 3px; }}
        QProgressBar::chunk {{ background: {accent}; border-radius: 3px; }}
        QFrame[role="line"] {{ background: {line}; max-height: 1px; border: none; }}
    """


def label(text: str = "", role: Role = "plain", *, wrap: bool = False) -> QLabel:
    """Return a label; `role` is its role in the style sheet."""
    made = QLabel(text)
    made.setProperty("role", role)
    made.setWordWrap(wrap)
    made.setIndent(0)
    made.setTextFormat(Qt.TextFormat.PlainText)
    if wrap:
        made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    else:
        made.setMinimumWidth(1)
    return made


class ElidedLabel(QElidingLabel):
    """A label of always as many lines, so that what is below never moves.

    A longer text ends with an ellipsis; the tooltip has all of it.

    Parameters
    ----------
    role : str
        In the style sheet.
    lines : int
        Lines of text.
    """

    def __init__(self, role: Role = "secondary", lines: int = 1) -> None:
        super().__init__()
        self._lines = lines
        self.setProperty("role", role)
        self.setIndent(0)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(lines > 1)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def setText(self, text: str) -> None:
        """Set the text, and the tooltip to it."""
        super().setText(text)
        self.setToolTip(plain_text(text))

    def sizeHint(self) -> QSize:
        """As high as its lines."""
        return QSize(40, self._lines * self.fontMetrics().lineSpacing() + 2)

    def minimumSizeHint(self) -> QSize:
        """As high as its lines."""
        return self.sizeHint()

    def heightForWidth(self, width: int) -> int:
        """As high as its lines, at every width."""
        return int(self.sizeHint().height())


class RoomyLabel(QLabel):
    """A wrapped label that is at least some lines high: other texts do not move what is below.

    Parameters
    ----------
    role : str
        In the style sheet.
    lines : int
        Lines of text for which there is room.
    """

    def __init__(self, role: Role, lines: int) -> None:
        super().__init__()
        self._lines, self._text = lines, ""
        self.setProperty("role", role)
        self.setIndent(0)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)

    def setText(self, text: str) -> None:
        """Set the text; lines are broken between its intervals and amounts, never inside."""
        self._text = text
        super().setText(keep_together(text))

    def text(self) -> str:
        """Return the text as it was set."""
        return self._text

    def sizeHint(self) -> QSize:
        """At least its lines."""
        return QSize(40, max(super().sizeHint().height(), self._floor()))

    def minimumSizeHint(self) -> QSize:
        """At least its lines."""
        return QSize(40, self._floor())

    def heightForWidth(self, width: int) -> int:
        """As high as the text at a width, at least its lines."""
        return max(int(super().heightForWidth(width)), self._floor())

    def _floor(self) -> int:
        return int(self._lines * self.fontMetrics().lineSpacing() + 2)


def keep_together(text: str) -> str:
    r"""Return a text whose ranges, ``35 – 48``, and per cents are on one line each.

    Examples
    --------
    >>> keep_together("35 – 48, 95 %").split(" ")
    ['35\xa0–\u2060\xa048,', '95\xa0%']
    """
    # A line may end after a dash, before a space that is not broken, but never at a word joiner.
    return text.replace(" – ", "\u00a0–\u2060\u00a0").replace(" %", "\u00a0%")


def text_metrics() -> QFontMetrics:
    """Return the metrics of napari's text, at the size in its preferences."""
    font = QApplication.font()
    font.setPointSizeF(get_settings().appearance.font_size)
    return QFontMetrics(font)


def label_width() -> int:
    """Return the width of the column of labels, in pixels: the same in all parts."""
    return int(LABEL_CHARACTERS * text_metrics().averageCharWidth())


def switch_width() -> int:
    """Return the width of the column of the overlays' switches and choosers, in pixels."""
    return int(SWITCH_CHARACTERS * text_metrics().averageCharWidth())


class TextSizedWidget(QWidget):
    """A widget with columns as wide as the size of napari's text asks for."""

    def fit_text(self) -> None:
        """Set the widths of columns; called again when the size was changed."""
        raise NotImplementedError


def heading(text: str) -> QLabel:
    """Return the title of a part."""
    return label(text, "heading")


def resize_to_text(part: QWidget) -> None:
    """Give a part of a scrolled column the height of its changed text, at once.

    Qt by itself passes a new height to the next outer layout with the next events, and paints the
    text cut off until then.
    """
    widget: QWidget | None = part
    while widget is not None and not isinstance(widget, QScrollArea):
        QCoreApplication.sendEvent(widget, QEvent(QEvent.Type.LayoutRequest))
        widget = widget.parentWidget()


def row(*widgets: QWidget, stretch: int | None = 0) -> QHBoxLayout:
    """Return widgets beside each other; the one at index `stretch` takes the room, or all do."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch in (i, None) else 0)
    return layout


class Form(TextSizedWidget):
    """Rows of a label and a field, on the grid that all parts share."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(5)
        self._grid.setColumnStretch(1, 1)
        self.fit_text()

    def fit_text(self) -> None:
        """Set the width of the column of labels."""
        self._grid.setColumnMinimumWidth(0, label_width())

    def add(self, name: str, field: QWidget | QLayout, tip: str = "") -> QLabel:
        """Append a row; return the label of its name."""
        at = self._grid.rowCount()
        name_label = label(name, "field", wrap=True)
        name_label.setToolTip(tip)
        if name:
            self._grid.addWidget(name_label, at, 0)
        if isinstance(field, QWidget):
            if tip:
                field.setToolTip(tip)
            if name:
                name_label.setBuddy(field)
                field.setAccessibleName(name)
            self._grid.addWidget(field, at, 1)
        else:
            first = field.itemAt(0).widget() if field.count() else None
            if name and first is not None:
                name_label.setBuddy(first)
                first.setAccessibleName(name)
            self._grid.addLayout(field, at, 1)
        return name_label


class Bar(QWidget):
    """A thin bar: a gradient, or parts beside each other.

    Parameters
    ----------
    height : int
        In pixels.
    """

    clicked = Signal()

    def __init__(self, height: int = 10) -> None:
        super().__init__()
        self._height = height
        self._stops: list[tuple[float, QColor]] = []
        self._parts: list[tuple[float, QColor]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_height(self, height: int) -> None:
        """Set the height in pixels."""
        self._height = height
        self.updateGeometry()

    def set_gradient(self, colours: Sequence[Sequence[float]]) -> None:
        """Show a colour scale, from its low to its high end."""
        last = max(1, len(colours) - 1)
        self._stops = [(i / last, QColor.fromRgbF(*map(float, c))) for i, c in enumerate(colours)]
        self.update()

    def set_parts(self, parts: Sequence[tuple[float, str]]) -> None:
        """Show amounts and their colours beside each other."""
        self._parts = [(amount, QColor(colour)) for amount, colour in parts]
        self.update()

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(60, self._height)

    def minimumSizeHint(self) -> QSize:
        """Never thinner than asked for."""
        return QSize(20, self._height)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Announce a click."""
        self.clicked.emit()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        frame = QRectF(self.rect())
        path = QPainterPath()
        path.addRoundedRect(frame, 3, 3)
        painter.setClipPath(path)
        painter.fillRect(frame, QColor(128, 128, 128, 70))
        if self._stops:
            gradient = QLinearGradient(frame.topLeft(), frame.topRight())
            for at, colour in self._stops:
                gradient.setColorAt(at, colour)
            painter.fillRect(frame, QBrush(gradient))
        total = sum(amount for amount, _ in self._parts)
        x = 0.0
        for amount, colour in self._parts if total > 0 else []:
            width = frame.width() * amount / total
            painter.fillRect(QRectF(x, 0, width, frame.height()), colour)
            x += width
        painter.end()


def show_pixels(target: QLabel, pixels: NDArray[np.uint8], side: int) -> None:
    """Show a picture ``(h, w, 3)`` in a label, its longer side `side` screen pixels."""
    height, width, _ = pixels.shape
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    target.setPixmap(
        QPixmap.fromImage(image).scaled(
            side,
            side,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )
