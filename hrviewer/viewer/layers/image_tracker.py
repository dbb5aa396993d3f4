"""Images of the layer list as the application's images.

`ImageTracker` opens an `ImageSession` for every image layer that is no overlay, makes the active
one current and shows it, and closes it when the layer is removed. Where the user shows another one
in its place, that one becomes current. Image layers are recognised by what they are,
never by name, and are compared with ``==``, for plugins are handed proxies of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer

from hrviewer.app.image_session import ImageSession, ImageSource, Viewport
from hrviewer.app.services.loading import ImageDisplay
from hrviewer.app.state import AppState
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region
from hrviewer.viewer.image.geometry import (
    METADATA_KEY,
    drawn_regions,
    is_image_layer,
    plane_of,
    pyramid_of,
    shape_of,
    viewport_of,
)
from hrviewer.viewer.image.image_layer import image_layers_data, is_channel_of
from hrviewer.viewer.image.view_fit import fit_layer
from hrviewer.viewer.layers.cursor_position import show_position
from hrviewer.viewer.layers.image_visibility import ImageVisibility
from hrviewer.viewer.layers.layer_list import remove_layers
from hrviewer.viewer.layers.roi import region_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ImageTracker", "LayerDisplay", "LayerImage", "layer_of"]


class LayerImage(ImageSource):
    """An image layer of napari, opened by hrviewer or not.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    layer : Image
        The layer.
    """

    def __init__(self, viewer: ViewerModel, layer: Image) -> None:
        self._viewer, self.layer = viewer, layer

    @property
    def name(self) -> str:
        """Name of the layer, or of the image where a layer is one of its channels."""
        pyramid, name = self._opened, str(self.layer.name)
        in_channels = pyramid is not None and name.startswith(f"{pyramid.name}: ")
        return pyramid.name if pyramid is not None and in_channels else name

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the finest level."""
        return shape_of(self.layer)

    @property
    def _opened(self) -> Pyramid | None:
        """The pyramid, if hrviewer opened the image."""
        pyramid: Pyramid | None = self.layer.metadata.get(METADATA_KEY, {}).get("pyramid")
        return pyramid

    @property
    def path(self) -> str | None:
        """Path or address of the file; None if hrviewer did not open the image."""
        opened = self._opened
        return None if opened is None or opened.path is None else str(opened.path)

    @property
    def image_key(self) -> str | None:
        """See `Pyramid.image_key`; None if hrviewer did not open the image."""
        return None if self._opened is None else self._opened.image_key

    @property
    def has_ground_truth(self) -> bool:
        """Whether the image is synthetic."""
        return pyramid_of(self.layer).synthetic_image is not None

    def plane(self) -> tuple[int, ...]:
        """Return the displayed plane of the axes beyond y and x."""
        return plane_of(self._viewer, self.layer)

    def pyramid(self, plane: Sequence[int] = ()) -> Pyramid:
        """Return the pyramid of a plane."""
        return pyramid_of(self.layer, plane)

    def viewport(self) -> Viewport:
        """Return the visible part."""
        return viewport_of(self._viewer, self.layer)

    def drawn_regions(self) -> list[Region]:
        """Return the shapes on the region layer."""
        shapes = region_layer(self._viewer)
        return [] if shapes is None else drawn_regions(self.layer, shapes, self.rect)


def layer_of(session: ImageSession | None) -> Image | None:
    """Return the layer that displays an image."""
    source = None if session is None else session.source
    return source.layer if isinstance(source, LayerImage) else None


class ImageTracker:
    """Keeps the application's images those of the layer list.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Gets the images.
    """

    def __init__(self, viewer: ViewerModel, state: AppState) -> None:
        self._viewer, self._state = viewer, state
        self._has_scale_bar = False
        self._visibility = ImageVisibility(viewer)
        layers = viewer.layers
        self._connections: list[tuple[Any, Any]] = [
            (layers.selection.events.active, self._on_active),
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        state.image_changed.connect(self._show_current)
        for layer in layers:
            self._open(layer)
        self._on_active()
        self._select_any()

    def session_of(self, layer: Layer | None) -> ImageSession | None:
        """Return the session of an image layer."""
        if layer is None:
            return None
        return next((s for s in self._state.images if layer_of(s) == layer), None)

    def tick(self) -> None:
        """Make the image current that the user shows in the place of the current one."""
        current = layer_of(self._state.image)
        if current is None or current not in self._viewer.layers:
            return
        shown = self._visibility.shown(current, self._images())
        if shown != current:
            self._state.select_image(self.session_of(shown))

    def close(self) -> None:
        """Follow the layer list no more."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        self._state.image_changed.disconnect(self._show_current, missing_ok=True)

    def _open(self, layer: Layer) -> None:
        if is_image_layer(layer) and self.session_of(layer) is None:
            show_position(self._viewer, layer)
            layer.events.name.connect(self._on_renamed)
            self._show_scale_bar(layer)
            self._state.add_image(LayerImage(self._viewer, layer))

    def _show_scale_bar(self, layer: Layer) -> None:
        """Show the scale bar with the first image of a known pixel size; then it is the user's."""
        if not self._has_scale_bar and str(layer.units[-1]) != "pixel":
            self._has_scale_bar = self._viewer.canvas.overlays.scale_bar.visible = True

    def _select_any(self) -> None:
        """Make the topmost visible image current where there is none, or the topmost one."""
        if self._state.image is None:
            images = self._images()[::-1]
            images.sort(key=self._visibility.is_visible, reverse=True)
            self._state.select_image(self.session_of(images[0]) if images else None)

    def _show_current(self) -> None:
        """Show the image that became current."""
        layer, selection = layer_of(self._state.image), self._viewer.layers.selection
        if layer is not None and layer in self._viewer.layers:
            self._visibility.show(layer, self._images())
            if self.session_of(selection.active) is not None:
                selection.active = layer

    def _images(self) -> list[Image]:
        """Return the layers that stand for images, the lowest first."""
        return [layer for layer in self._viewer.layers if self.session_of(layer) is not None]

    def _on_active(self, event: Any = None) -> None:
        session = self.session_of(self._viewer.layers.selection.active)
        if session is not None:
            self._state.select_image(session)

    def _on_renamed(self, event: Any) -> None:
        if self.session_of(event.source) is self._state.image:
            self._state.image_renamed.emit()

    def _on_inserted(self, event: Any) -> None:
        self._open(event.value)
        self._select_any()

    def _on_removed(self, event: Any) -> None:
        session = self.session_of(event.value)
        if session is not None:
            self._visibility.forget(event.value)
            self._remove_channels(event.value)
            self._state.close_image(session)
            self._select_any()

    def _remove_channels(self, layer: Layer) -> None:
        """Remove the other channels of an image that is removed."""
        pyramid = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
        layers = self._viewer.layers
        remove_layers(self._viewer, [other for other in layers if is_channel_of(other, pyramid)])


class LayerDisplay(ImageDisplay):
    """Displays images as layers.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.tracker: ImageTracker
        self.fit: Any = lambda: None

    def prepare(self, pyramid: Pyramid, *, load_coarsest: bool) -> Any:
        """Return the data of the image's layers."""
        return image_layers_data(pyramid, load_coarsest=load_coarsest)

    def show(
        self, prepared: Any, *, replaced: ImageSession | None = None, fit: bool = True
    ) -> ImageSession:
        """Add the layers, make the first active, and fit the view to it."""
        data, *channels = prepared
        earlier = layer_of(replaced)
        layer = self._viewer.add_layer(Layer.create(*data))
        for channel in channels:
            self._viewer.add_layer(Layer.create(*channel))
        self._viewer.layers.selection.active = layer
        session = self.tracker.session_of(layer)
        assert session is not None
        if earlier is not None and replaced is not None:
            fit = replaced.source.shape != session.source.shape
            remove_layers(self._viewer, [earlier])
        if fit:
            fit_layer(self._viewer, layer)
            self.fit()
        return session
