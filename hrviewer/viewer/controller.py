"""What the person wants, and what is going on. No widgets.

The controller has what is chosen, the image, and the overlays on it; what the person does is
carried out by its parts, a file each, which know nothing of each other's insides.

Invariants: the base layer is found by what it is (an image that is not one of our overlays),
never by its name; layers are compared with ``==``, for plugins are handed proxies of them.
Everything here is called on the window's thread; `tick`, called about every 60 ms, is where news
from other threads arrives. `close` ends the threads, drops the connections and may be called
twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Layer, Shapes
from napari.utils.notifications import show_error
from numpy.typing import NDArray
from psygnal import Signal

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.app.services.annotation_service import AnnotationService
from hrviewer.app.services.compare_service import CompareService
from hrviewer.app.services.export_service import ExportService
from hrviewer.app.services.ground_truth_service import GroundTruthPoints, GroundTruthService
from hrviewer.app.services.head_training import HeadTrainer
from hrviewer.app.services.live_service import LiveService
from hrviewer.app.services.loading import ImageLoader
from hrviewer.app.services.patch_inspection import PatchInspector
from hrviewer.app.services.run_loading import RunLoader
from hrviewer.app.services.run_queue import RunQueue
from hrviewer.app.services.run_service import RunService, RunState
from hrviewer.app.services.run_worker import Status
from hrviewer.engine import DeviceScheduler, LoadedModels, ResultCache, recommended_streams
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import ModelBundle, installed_bundles, open_bundle
from hrviewer.runs import Run
from hrviewer.runs.priors import predicted_density
from hrviewer.runs.runner import result_cache
from hrviewer.strategies import Strategy, get_strategy, strategy_ids
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import is_image_layer, pyramid_of
from hrviewer.viewer.image.layer_refresh import auto_refresh
from hrviewer.viewer.layers.annotation_layers import AnnotationLayers, AnnotationTool
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.prior_map import rasterize_layer
from hrviewer.viewer.layers.roi import RegionKind, region_layer, region_rect, start_region

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Controller", "Status"]


class Controller:
    """The window's conscience.

    Parameters
    ----------
    viewer : ViewerModel
        Where images and overlays are.
    cache : ResultCache, optional
        Results of earlier runs; this machine's by default.
    run_folder : Path, optional
        Where runs are written; the user's data folder by default.
    low_priority : bool
        Whether networks give way to the window.
    """

    image_layer_changed = Signal()
    model_changed = Signal()
    strategy_changed = Signal()
    state_changed = Signal(str)
    progress_changed = Signal(object)
    estimate_changed = Signal(str, str)
    notes_changed = Signal(list)
    error_raised = Signal(str)
    overlays_changed = Signal()
    patch_inspected = Signal(object)
    live_changed = Signal(bool)
    live_status_changed = Signal(str)
    ground_truth_status_changed = Signal(str)
    export_progress_changed = Signal(float, str)
    annotations_saved = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        cache: ResultCache | None = None,
        run_folder: Path | None = None,
        low_priority: bool = True,
    ) -> None:
        self.viewer = viewer
        self.cache, self.run_folder, self.low_priority = cache, run_folder, low_priority
        self.image_layer: Image | None = None
        self.model: ModelBundle | None = None
        self.strategy: Strategy = get_strategy(strategy_ids()[0])
        self.params: dict[str, Any] = {}
        self.region: RegionKind = "whole"
        self.budget = ""
        self.device, self.precision = "auto", "float32"
        self.prior: Layer | Literal["run"] | None = None
        self.overlays: Overlays | None = None
        self.run: Run | None = None
        self._scheduler: DeviceScheduler | None = None
        self._loaded_models: LoadedModels | None = None
        self._closed = False
        self.read_executor = ThreadPoolExecutor(1, "hrviewer-preview")
        self.image_loader = ImageLoader(self)
        self.run_loader = RunLoader(self)
        self.run_service = RunService(self)
        self.run_queue = RunQueue(self)
        self.live = LiveService(self)
        self.patch_inspector = PatchInspector(self)
        self.annotation_service = AnnotationService(self)
        self.ground_truth_service = GroundTruthService(self)
        self.head_trainer = HeadTrainer(self)
        self.compare_service = CompareService(self)
        self.export_service = ExportService(self)
        auto_refresh(viewer)
        layers = viewer.layers
        self._connections: list[tuple[Any, Any]] = [
            (layers.selection.events.active, self._on_active),
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        viewer.mouse_drag_callbacks.append(self.patch_inspector.on_mouse)
        self._select_image_layer(layers.selection.active)
        if self.image_layer is None:
            self._on_inserted()

    # What is chosen.

    def set_model(self, model: str | Path | ModelBundle) -> None:
        """Choose who looks: a pack's name, a folder or a file."""
        with self.reporting_errors():
            self.model = model if isinstance(model, ModelBundle) else open_bundle(model)
            self.model_changed.emit()

    def set_strategy(self, name: str) -> None:
        """Choose where to look; its parameters are the defaults again."""
        with self.reporting_errors():
            self.strategy = get_strategy(name)
            self.params = {}
            self.strategy_changed.emit()
            self.live.tick()  # what is there is shown at once

    @staticmethod
    def installed_models() -> list[str]:
        """Return the names of the installed packs."""
        return list(installed_bundles())

    def selected_rect(self) -> Rect | None:
        """Return the chosen region, level-0 pixels; None for the whole image.

        Raises
        ------
        UserError
            If nothing is drawn, or the image is out of sight.
        """
        whole = self.region == "whole"
        return None if whole else region_rect(self.viewer, self.require_image_layer(), self.region)

    def region_layer(self) -> Shapes | None:
        """Return the layer of shapes that regions are drawn on."""
        return region_layer(self.viewer)

    def draw_region(self) -> None:
        """Let the person draw a rectangle."""
        start_region(self.viewer, self.require_image_layer())

    def prior_maps(self) -> dict[str, NDArray[np.floating]]:
        """Return what the strategy is told beforehand: what is drawn, or what was seen.

        Raises
        ------
        UserError
            If the chosen layer shows nothing on the image.
        """
        takes, hint = self.strategy.priors, self.prior
        if hint == "run":
            run = self.run
            return (
                {"density": predicted_density(run)}
                if "density" in takes and run is not None
                else {}
            )
        if hint is None or "saliency" not in takes or hint not in self.viewer.layers:
            return {}
        return {"saliency": rasterize_layer(hint, self.require_image_layer())}

    # What the person does.

    def open_image(self, path: str | Path) -> None:
        """Open an image, on top of what is there; it comes with a later `tick`."""
        self.image_loader.open(path)

    def open_run(self, path: str | Path) -> None:
        """Bring a run's overlays back, on its image if that is at hand; with a later `tick`."""
        self.run_loader.open(Path(path))

    def start(self, *, out: Path | None = None) -> None:
        """Run what is chosen; into `out`, or a new folder."""
        self.run_service.start(out)

    def pause(self) -> None:
        """Hold after the batch in flight."""
        self.run_service.pause()

    def resume(self) -> None:
        """Go on after a pause, or with the run that was stopped."""
        if self.resumable_run is not None:
            self.run_service.resume_run(self.resumable_run)
        else:
            self.run_service.resume()

    def stop(self) -> None:
        """End within one batch; what was seen stays."""
        self.run_queue.clear()
        self.run_service.stop()

    @property
    def state(self) -> RunState:
        """What the run does."""
        return self.run_service.state

    @property
    def resumable_run(self) -> Run | None:
        """The run on the screen, if it was stopped before its end and can go on."""
        run = self.run
        return None if self.run_service.is_running or run is None or run.complete else run

    def inspect_patch(self, position: Any) -> None:
        """Say what the patch at a position of the world cost, and read what was seen there."""
        self.patch_inspector.inspect(position)

    def annotate(
        self, tool: AnnotationTool, label: str = "", *, from_predictions: bool = False
    ) -> None:
        """Let the user draw over the run, from its predictions if `from_predictions`."""
        self.annotation_service.annotate(tool, label, from_predictions=from_predictions)

    @property
    def annotations(self) -> AnnotationLayers | None:
        """What is drawn over the run on the screen."""
        return self.annotation_service.annotations

    def import_annotations(self, path: Path) -> None:
        """Show what a file marks as layers: regions, hints, or something to compare with."""
        self.annotation_service.import_file(path)

    @property
    def has_ground_truth(self) -> bool:
        """Whether the image itself says what is really there, as scenes do."""
        return (
            self.image_layer is not None
            and pyramid_of(self.image_layer).synthetic_image is not None
        )

    @property
    def ground_truth_points(self) -> GroundTruthPoints | None:
        """What is really there, where it is shown."""
        return self.ground_truth_service.points

    @property
    def ground_truth_path(self) -> Path | None:
        """Where the truth is from; None asks the image itself."""
        return self.ground_truth_service.path

    def show_ground_truth(self, path: Path | None = None) -> None:
        """Show what is really there: what the image itself knows, or a file does."""
        self.ground_truth_service.show(path)

    def hide_ground_truth(self) -> None:
        """Take the truth off the image."""
        self.ground_truth_service.hide()

    def export(self, path: str | Path, to: str, **options: Any) -> None:
        """Write the last run in another format, on a thread; `exported` says how far it is."""
        self.export_service.export(path, to, options)

    @property
    def is_exporting(self) -> bool:
        """Whether a run is being written."""
        return self.export_service.is_running

    def stop_export(self) -> None:
        """End it soon; nothing is left of it."""
        self.export_service.stop()

    # What goes on.

    @property
    def has_pending_work(self) -> bool:
        """Whether a file is being opened or written, or a patch read."""
        parts = (
            self.image_loader,
            self.run_loader,
            self.export_service,
            self.patch_inspector,
            self.annotation_service,
            self.ground_truth_service,
        )
        return any(part.is_running for part in parts)

    def tick(self) -> None:
        """Take in what happened on other threads, and bring it onto the screen."""
        self.run_service.tick()
        self.run_queue.tick()
        self.live.tick()
        if self.overlays is not None and not self.live.enabled:
            self.overlays.refresh()
            self._follow_view(self.overlays)
        for part in (
            self.ground_truth_service,
            self.patch_inspector,
            self.image_loader,
            self.run_loader,
            self.compare_service,
            self.head_trainer,
            self.export_service,
            self.annotation_service,
        ):
            part.tick()

    def close(self) -> None:
        """End everything that goes on; the layers stay."""
        if self._closed:
            return
        self._closed = True
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        if self.patch_inspector.on_mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self.patch_inspector.on_mouse)
        self.image_loader.cancel()
        self.annotation_service.save_and_close(wait=True)
        self.export_service.stop()
        self.read_executor.shutdown(wait=False, cancel_futures=True)
        running, device, session = self.run_service.close(), self._scheduler, self.live.session
        self.live.close()
        self.compare_service.close()
        self.head_trainer.close()

        def end() -> None:
            if running is not None:
                running.join()
            if session is not None:
                session.close()
            if device is not None:
                device.close()

        # A network that is being loaded cannot be interrupted: the window does not wait for it.
        ending = threading.Thread(target=end, name="hrviewer-close", daemon=True)
        ending.start()
        ending.join(timeout=5)
        self._scheduler = self._loaded_models = self.overlays = self.image_layer = (
            self.ground_truth_service.points
        ) = None

    # What the parts share.

    def require_image_layer(self) -> Image:
        """Return the image.

        Raises
        ------
        UserError
            If there is none.
        """
        if self.image_layer is None:
            raise HrviewerError("open an image first")
        return self.image_layer

    def loaded_models_for(self, model: ModelBundle) -> LoadedModels:
        """Return a pack's networks, on the window's one device."""
        if self._scheduler is None:
            self._scheduler = DeviceScheduler(
                low_priority=self.low_priority, streams=recommended_streams()
            )
        kept = self._loaded_models
        chosen = model, self.device, self.precision
        if kept is None or (kept.bundle, kept.device_name, kept.precision) != chosen:
            kept = self._loaded_models = LoadedModels(
                model, self._scheduler, self.device, self.precision
            )
        return kept

    @property
    def loaded_models(self) -> LoadedModels | None:
        """Those that looked last."""
        return self._loaded_models

    def get_cache(self) -> ResultCache:
        """Return what was seen before."""
        return result_cache() if self.cache is None else self.cache

    def add_image_layer(self, data: Any, settings: dict[str, Any], kind: str) -> Image:
        """Add an image's layer, and choose it."""
        layer = self.viewer.add_layer(Layer.create(data, settings, kind))
        self.viewer.layers.selection.active = layer
        self._select_image_layer(layer)
        return layer

    def show_overlays(self, image_layer: Image, maps: ResultMaps) -> None:
        """Lay overlays over an image, in place of those there were."""
        self.compare_service.close_grid()
        self.compare_service.clear_difference()
        self.overlays = Overlays(self.viewer, image_layer, maps, previous=self.overlays)
        self.overlays_changed.emit()

    def report_error(self, message: str) -> None:
        """Say that something cannot be done."""
        self.error_raised.emit(message)
        self.progress_changed.emit(Status(0.0, ""))
        show_error(message)

    @contextmanager
    def reporting_errors(self, *, clear: bool = True) -> Iterator[None]:
        """Turn a `UserError` into a line for the person; with `clear`, what was said is wiped."""
        if clear:
            self.error_raised.emit("")
        try:
            yield
        except HrviewerError as error:
            self.report_error(str(error))

    # The image, and what lies on it.

    def _select_image_layer(self, layer: Layer | None) -> None:
        if is_image_layer(layer) and layer != self.image_layer:
            self.image_layer, self.ground_truth_service.path = layer, None
            self.image_layer_changed.emit()

    def _on_active(self, event: Any = None) -> None:
        self._select_image_layer(self.viewer.layers.selection.active)

    def _on_inserted(self, event: Any = None) -> None:
        if self.image_layer is None:
            self._select_image_layer(
                next(filter(is_image_layer, reversed(self.viewer.layers)), None)
            )

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if self.overlays is not None and layer == self.overlays.image_layer:
            self.stop()
            overlays, self.overlays = self.overlays, None
            overlays.remove()
            self.overlays_changed.emit()
        self.ground_truth_service.on_layer_removed(layer)
        self.head_trainer.on_layer_removed(layer)
        if layer == self.image_layer:
            self.stop()
            self.image_layer = self.ground_truth_service.path = None
            self._on_inserted()
            self.image_layer_changed.emit()

    def _follow_view(self, overlays: Overlays) -> None:
        image = overlays.maps.image
        view = visible_rect(self.viewer, overlays.image_layer, image)
        if not view.empty:
            overlays.follow_view(view, screen_pixel(self.viewer, overlays.image_layer))
