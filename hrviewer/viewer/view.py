"""A window from Python: `view`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.viewer.display import require_display

if TYPE_CHECKING:
    import napari

    from hrviewer.engine import LiveSession
    from hrviewer.runs.model import ModelLike
    from hrviewer.viewer.controller import Controller
    from hrviewer.viewer.widgets import Panel

__all__ = ["View", "view"]


class View:
    """An open window.

    Attributes
    ----------
    viewer : napari.Viewer
        napari's viewer.
    panel : Panel
        The docked panel.
    controller : Controller
        State, services and layers.
    """

    def __init__(self, viewer: napari.Viewer, panel: Panel) -> None:
        self.viewer, self.panel = viewer, panel

    @property
    def controller(self) -> Controller:
        """State, services and layers."""
        return self.panel.controller

    @property
    def session(self) -> LiveSession | None:
        """The engine's session that follows the view, once Live is on and models are loaded."""
        return self.controller.live.session

    def close(self) -> None:
        """End the run and close the window."""
        self.panel.shut_down()
        self.viewer.close()


def view(
    image: object | None = None,
    model: ModelLike | None = None,
    strategy: str | None = None,
    *,
    live: bool = False,
    viewer: napari.Viewer | None = None,
) -> View:
    """Open napari with the panel docked.

    Parameters
    ----------
    image : object, optional
        An argument of `hrviewer.open`.
    model : str, Path, Model or ModelBundle, optional
        Model to select.
    strategy : str, optional
        Strategy to select.
    live : bool
        Whether to switch Live on.
    viewer : napari.Viewer, optional
        An open viewer.

    Returns
    -------
    View
        ``viewer``, ``controller``, ``session`` and ``close()``.

    Raises
    ------
    HrviewerError
        If the image or a window cannot be opened.

    Examples
    --------
    >>> view = hrviewer.view(image, model, "zoom", live=True)  # doctest: +SKIP
    >>> view.close()  # doctest: +SKIP
    """
    if viewer is None:
        require_display()
    import napari
    from napari.layers import Layer

    from hrviewer.viewer.contributions.commands import panel_of
    from hrviewer.viewer.image.image_layer import fits_single_array, image_layers_data
    from hrviewer.viewer.image.layer_refresh import auto_refresh
    from hrviewer.viewer.widgets.window import set_window_size

    pyramids: list[Pyramid] = []
    if image is not None:
        pyramids.append(open_pyramid(image))
    window = viewer
    if window is None:
        window = napari.Viewer(title="hrviewer")
        set_window_size(window)
    auto_refresh(window)
    for pyramid in pyramids:
        for data in image_layers_data(pyramid, load_coarsest=fits_single_array(pyramid)):
            window.add_layer(Layer.create(*data))
    opened = View(window, panel_of(window))
    if viewer is None:
        opened.panel.arrange()
        opened.controller.view_fit.request()
    if model is not None:
        opened.controller.state.set_model(model)
    if strategy is not None:
        opened.controller.state.set_strategy(strategy)
    if live:
        opened.controller.live.set_enabled(True)
    return opened
