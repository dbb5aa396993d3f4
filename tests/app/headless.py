"""An application without a front end, and helpers that tick it."""

from __future__ import annotations

import time

from hrviewer.app.application import Application
from hrviewer.app.image_session import PyramidImage, Viewport
from hrviewer.app.services.loading import ImageDisplay
from hrviewer.engine import ResultCache
from hrviewer.geometry import Rect


class MemoryDisplay(ImageDisplay):
    """Displays nothing: images are only opened and selected."""

    app: Application

    def prepare(self, pyramid, *, load_coarsest):
        return pyramid

    def show(self, prepared, *, replaced=None, fit=True):
        session = self.app.state.add_image(PyramidImage(prepared))
        self.app.state.select_image(session)
        return session


def make_app(run_folder) -> Application:
    display = MemoryDisplay()
    display.app = Application(
        display, cache=ResultCache(), run_folder=run_folder, low_priority=False
    )
    return display.app


def open_image(app, image):
    """Open an image, as its display does."""
    from hrviewer.pyramid import open_pyramid

    session = app.state.add_image(PyramidImage(open_pyramid(image)))
    app.state.select_image(session)
    return session


def wait(app, condition, seconds=60.0):
    """Tick until a condition holds."""
    end = time.monotonic() + seconds
    app.tick()
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.005)
        app.tick()
    app.tick()


def is_idle(app):
    return app.state.run_state == "idle"


def run(app):
    """Run what is selected to its end."""
    app.run_service.start()
    wait(app, lambda: is_idle(app))


def is_live_done(app):
    session = app.live.session
    image = app.state.image
    return session is not None and session.is_idle() and "up to date" in image.live_status


def look_at(session, rect: Rect, pixel=1.0):
    session.source.view = Viewport(rect, (pixel, pixel))
