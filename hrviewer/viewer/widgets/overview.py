"""Overview: the whole image in small, with the part that is in view."""

from __future__ import annotations

import time

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from hrviewer.geometry import Rect
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import shape_of, viewport_of
from hrviewer.viewer.layers.overview_picture import overview_picture, overview_size

__all__ = ["ImageOverview"]

HEIGHT = 150
REDRAW_SECONDS = 0.5
MIN_SIDE = 8.0
"""Screen pixels of the rectangle, at least: at a gigapixel it would be a dot."""
FRAME, SHADOW = QColor("#ffd400"), QColor(0, 0, 0, 160)


class ImageOverview(QWidget):
    """The current image, its overlays and the view's rectangle; a click moves the view there.

    Parameters
    ----------
    controller : Controller
        Has the image; `tick` is called with its ticks.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._picture: QImage | None = None
        self._layer: object = None
        self._visible = Rect(0, 0, 0, 0)
        self._drawn_at = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Overview of the image")
        self.setToolTip("The whole image and the part in view; click or drag to move the view")
        self.setCursor(Qt.CursorShape.CrossCursor)

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(200, HEIGHT)

    @property
    def view_rect(self) -> QRectF | None:
        """The rectangle of the view, in pixels of the widget; None without an image."""
        layer, frame = self._controller.image_layer, self._frame()
        if layer is None or frame is None:
            return None
        h, w = shape_of(layer)
        fy, fx, rect = frame.height() / h, frame.width() / w, self._visible
        height, width = max(rect.h * fy, MIN_SIDE), max(rect.w * fx, MIN_SIDE)
        y = frame.y() + (rect.y + rect.h / 2) * fy - height / 2
        x = frame.x() + (rect.x + rect.w / 2) * fx - width / 2
        return QRectF(x, y, width, height)

    def tick(self) -> None:
        """Follow the view; draw the picture again now and then."""
        layer = self._controller.image_layer
        if layer is None or not self.isVisible():
            if self._layer is not None:
                self._layer = self._picture = None
                self.update()
            return
        visible = viewport_of(self._controller.viewer, layer).rect
        if visible != self._visible:
            self._update_frame()
            self._visible = visible
            self._update_frame()
        now = time.monotonic()
        if layer is self._layer and now - self._drawn_at < REDRAW_SECONDS:
            return
        size = overview_size(layer, self.height(), self.width())
        controller = self._controller
        pixels = overview_picture(controller.viewer, layer, controller.overlays, size)
        self._layer, self._drawn_at = layer, now
        h, w, _ = pixels.shape
        self._picture = QImage(
            pixels.tobytes(), w, h, 3 * w, QImage.Format.Format_RGB888
        ).copy()  # Qt does not keep the bytes
        self.update()

    def _update_frame(self) -> None:
        """Paint the view's rectangle again, and no more: it moves as often as the camera does."""
        view = self.view_rect
        if view is not None:
            self.update(view.adjusted(-3, -3, 3, 3).toAlignedRect())

    def _frame(self) -> QRectF | None:
        """The picture's place in the widget."""
        if self._picture is None:
            return None
        w, h = self._picture.width(), self._picture.height()
        return QRectF((self.width() - w) / 2, (self.height() - h) / 2, w, h)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        frame, view = self._frame(), self.view_rect
        if frame is None or view is None or self._picture is None:
            return
        painter = QPainter(self)
        painter.drawImage(frame, self._picture)
        painter.setClipRect(frame.adjusted(-2, -2, 2, 2))
        for width, colour in ((4, SHADOW), (2, FRAME)):
            painter.setPen(QPen(colour, width))
            painter.drawRect(view)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Move the view to a place."""
        if event is not None and event.buttons() & Qt.MouseButton.LeftButton:
            self._move_view(event.position().x(), event.position().y())

    mouseMoveEvent = mousePressEvent

    def _move_view(self, x: float, y: float) -> None:
        layer, frame = self._controller.image_layer, self._frame()
        if layer is None or frame is None:
            return
        h, w = shape_of(layer)
        point = np.zeros(layer.ndim)
        point[-2:] = (
            np.clip((y - frame.y()) / frame.height(), 0, 1) * h - 0.5,
            np.clip((x - frame.x()) / frame.width(), 0, 1) * w - 0.5,
        )
        camera = self._controller.viewer.scene.camera
        camera.center = (*camera.center[:-2], *layer.data_to_world(point)[-2:])
