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

from hrviewer.app.maps.result_maps import Picture
from hrviewer.app.services.annotation_service import Drawing
from hrviewer.app.services.compare_service import Comparison
from hrviewer.app.services.export_service import Exporter
from hrviewer.app.services.ground_truth_service import TruthPoints, Truths
from hrviewer.app.services.head_training import Labelling
from hrviewer.app.services.live_service import Live
from hrviewer.app.services.loading import Opener
from hrviewer.app.services.patch_inspection import Clicking
from hrviewer.app.services.run_loading import Reopener
from hrviewer.app.services.run_queue import Series
from hrviewer.app.services.run_service import Running, State
from hrviewer.app.services.run_worker import Status
from hrviewer.engine import Device, Networks, ResultCache, streams_here
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.models import Pack, installed_packs, open_pack
from hrviewer.runs import Run
from hrviewer.runs.priors import density_of
from hrviewer.runs.runner import result_cache
from hrviewer.strategies import Strategy, get_strategy, strategy_ids
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import is_base, pyramid_of
from hrviewer.viewer.image.layer_refresh import follow
from hrviewer.viewer.layers.annotation_layers import Annotations, Tool
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.prior_map import drawn_map
from hrviewer.viewer.layers.roi import RegionKind, chosen_rect, draw_region, shapes_of

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
    folder : Path, optional
        Where runs are written; the user's data folder by default.
    polite : bool
        Whether networks give way to the window.
    """

    base_changed = Signal()
    pack_changed = Signal()
    strategy_changed = Signal()
    state_changed = Signal(str)
    progressed = Signal(object)
    answered = Signal(str, str)
    noted = Signal(list)
    failed = Signal(str)
    overlays_changed = Signal()
    looked = Signal(object)
    live_changed = Signal(bool)
    live_told = Signal(str)
    truth_told = Signal(str)
    exported = Signal(float, str)
    annotated = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        cache: ResultCache | None = None,
        folder: Path | None = None,
        polite: bool = True,
    ) -> None:
        self.viewer = viewer
        self.cache, self.folder, self.polite = cache, folder, polite
        self.base: Image | None = None
        self.pack: Pack | None = None
        self.strategy: Strategy = get_strategy(strategy_ids()[0])
        self.params: dict[str, Any] = {}
        self.region: RegionKind = "whole"
        self.budget = ""
        self.device, self.precision = "auto", "float32"
        self.hint: Layer | Literal["run"] | None = None
        self.overlays: Overlays | None = None
        self.run: Run | None = None
        self._device: Device | None = None
        self._networks: Networks | None = None
        self._closed = False
        self.reader = ThreadPoolExecutor(1, "hrviewer-preview")
        self.opener = Opener(self)
        self.reopener = Reopener(self)
        self.running = Running(self)
        self.series = Series(self)
        self.live = Live(self)
        self.clicking = Clicking(self)
        self.drawing = Drawing(self)
        self.truths = Truths(self)
        self.labelling = Labelling(self)
        self.comparison = Comparison(self)
        self.exporter = Exporter(self)
        follow(viewer)
        layers = viewer.layers
        self._connections: list[tuple[Any, Any]] = [
            (layers.selection.events.active, self._on_active),
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        viewer.mouse_drag_callbacks.append(self.clicking.on_mouse)
        self._adopt(layers.selection.active)
        if self.base is None:
            self._on_inserted()

    # What is chosen.

    def use_pack(self, spec: str | Path | Pack) -> None:
        """Choose who looks: a pack's name, a folder or a file."""
        with self.telling():
            self.pack = spec if isinstance(spec, Pack) else open_pack(spec)
            self.pack_changed.emit()

    def use_strategy(self, name: str) -> None:
        """Choose where to look; its parameters are the defaults again."""
        with self.telling():
            self.strategy = get_strategy(name)
            self.params = {}
            self.strategy_changed.emit()
            self.live.tick()  # what is there is shown at once

    @staticmethod
    def packs() -> list[str]:
        """Return the names of the installed packs."""
        return list(installed_packs())

    def rect(self) -> Rect | None:
        """Return the chosen region, level-0 pixels; None for the whole image.

        Raises
        ------
        UserError
            If nothing is drawn, or the image is out of sight.
        """
        whole = self.region == "whole"
        return None if whole else chosen_rect(self.viewer, self.need_base(), self.region)

    def shapes(self) -> Shapes | None:
        """Return the layer of shapes that regions are drawn on."""
        return shapes_of(self.viewer)

    def draw_region(self) -> None:
        """Let the person draw a rectangle."""
        draw_region(self.viewer, self.need_base())

    def hints(self) -> dict[str, NDArray[np.floating]]:
        """Return what the strategy is told beforehand: what is drawn, or what was seen.

        Raises
        ------
        UserError
            If the chosen layer shows nothing on the image.
        """
        takes, hint = self.strategy.hints, self.hint
        if hint == "run":
            run = self.run
            return {"density": density_of(run)} if "density" in takes and run is not None else {}
        if hint is None or "saliency" not in takes or hint not in self.viewer.layers:
            return {}
        return {"saliency": drawn_map(hint, self.need_base())}

    # What the person does.

    def open_image(self, path: str | Path) -> None:
        """Open an image, on top of what is there; it comes with a later `tick`."""
        self.opener.open(path)

    def open_run(self, path: str | Path) -> None:
        """Bring a run's overlays back, on its image if that is at hand; with a later `tick`."""
        self.reopener.open(Path(path))

    def start(self, *, out: Path | None = None) -> None:
        """Run what is chosen; into `out`, or a new folder."""
        self.running.start(out)

    def pause(self) -> None:
        """Hold after the batch in flight."""
        self.running.pause()

    def resume(self) -> None:
        """Go on after a pause, or with the run that was stopped."""
        if self.unfinished is not None:
            self.running.go_on(self.unfinished)
        else:
            self.running.resume()

    def stop(self) -> None:
        """End within one batch; what was seen stays."""
        self.series.end()
        self.running.stop()

    @property
    def state(self) -> State:
        """What the run does."""
        return self.running.state

    @property
    def unfinished(self) -> Run | None:
        """The run on the screen, if it was stopped before its end and can go on."""
        run = self.run
        return None if self.running.at_work or run is None or run.complete else run

    def ask(self, position: Any) -> None:
        """Say what the patch at a position of the world cost, and read what was seen there."""
        self.clicking.ask(position)

    def annotate(self, tool: Tool, label: str = "", *, correct: bool = False) -> None:
        """Let the person draw over the run; with `correct`, start from what the network found."""
        self.drawing.annotate(tool, label, correct=correct)

    @property
    def annotations(self) -> Annotations | None:
        """What is drawn over the run on the screen."""
        return self.drawing.annotations

    def bring_in(self, path: Path) -> None:
        """Show what a file marks as layers: regions, hints, or something to compare with."""
        self.drawing.bring_in(path)

    @property
    def knows_truth(self) -> bool:
        """Whether the image itself says what is really there, as scenes do."""
        return self.base is not None and pyramid_of(self.base).recipe is not None

    @property
    def truth(self) -> TruthPoints | None:
        """What is really there, where it is shown."""
        return self.truths.points

    @property
    def truth_file(self) -> Path | None:
        """Where the truth is from; None asks the image itself."""
        return self.truths.file

    def show_truth(self, path: Path | None = None) -> None:
        """Show what is really there: what the image itself knows, or a file does."""
        self.truths.show(path)

    def hide_truth(self) -> None:
        """Take the truth off the image."""
        self.truths.hide()

    def export(self, path: str | Path, to: str, **options: Any) -> None:
        """Write the last run in another format, on a thread; `exported` says how far it is."""
        self.exporter.export(path, to, options)

    @property
    def exporting(self) -> bool:
        """Whether a run is being written."""
        return self.exporter.busy

    def stop_export(self) -> None:
        """End it soon; nothing is left of it."""
        self.exporter.stop()

    # What goes on.

    @property
    def busy(self) -> bool:
        """Whether a file is being opened or written, or a patch read."""
        parts = self.opener, self.reopener, self.exporter, self.clicking, self.drawing, self.truths
        return any(part.busy for part in parts)

    def tick(self) -> None:
        """Take in what happened on other threads, and bring it onto the screen."""
        self.running.tick()
        self.series.tick()
        self.live.tick()
        if self.overlays is not None and not self.live.on:
            self.overlays.refresh()
            self._follow(self.overlays)
        for part in (self.truths, self.clicking, self.opener, self.reopener, self.comparison,
                     self.labelling, self.exporter, self.drawing):  # fmt: skip
            part.tick()

    def close(self) -> None:
        """End everything that goes on; the layers stay."""
        if self._closed:
            return
        self._closed = True
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        if self.clicking.on_mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self.clicking.on_mouse)
        self.opener.cancel()
        self.drawing.put_away(now=True)
        self.exporter.stop()
        self.reader.shutdown(wait=False, cancel_futures=True)
        running, device, session = self.running.close(), self._device, self.live.session
        self.live.close()
        self.comparison.close()
        self.labelling.close()

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
        self._device = self._networks = self.overlays = self.base = self.truths.points = None

    # What the parts share.

    def need_base(self) -> Image:
        """Return the image.

        Raises
        ------
        UserError
            If there is none.
        """
        if self.base is None:
            raise UserError("open an image first")
        return self.base

    def networks_of(self, pack: Pack) -> Networks:
        """Return a pack's networks, on the window's one device."""
        if self._device is None:
            self._device = Device(polite=self.polite, streams=streams_here())
        kept = self._networks
        chosen = pack, self.device, self.precision
        if kept is None or (kept.pack, kept.name, kept.precision) != chosen:
            kept = self._networks = Networks(pack, self._device, self.device, self.precision)
        return kept

    @property
    def networks(self) -> Networks | None:
        """Those that looked last."""
        return self._networks

    def results(self) -> ResultCache:
        """Return what was seen before."""
        return result_cache() if self.cache is None else self.cache

    def show(self, data: Any, settings: dict[str, Any], kind: str) -> Image:
        """Add an image's layer, and choose it."""
        layer = self.viewer.add_layer(Layer.create(data, settings, kind))
        self.viewer.layers.selection.active = layer
        self._adopt(layer)
        return layer

    def draw(self, base: Image, picture: Picture) -> None:
        """Lay overlays over an image, in place of those there were."""
        self.comparison.end()
        self.comparison.clear()
        self.overlays = Overlays(self.viewer, base, picture, like=self.overlays)
        self.overlays_changed.emit()

    def fail(self, message: str) -> None:
        """Say that something cannot be done."""
        self.failed.emit(message)
        self.progressed.emit(Status(0.0, ""))
        show_error(message)

    @contextmanager
    def telling(self, *, anew: bool = True) -> Iterator[None]:
        """Turn a `UserError` into a line for the person; with `anew`, what was said is wiped."""
        if anew:
            self.failed.emit("")
        try:
            yield
        except UserError as error:
            self.fail(str(error))

    # The image, and what lies on it.

    def _adopt(self, layer: Layer | None) -> None:
        if is_base(layer) and layer != self.base:
            self.base, self.truths.file = layer, None
            self.base_changed.emit()

    def _on_active(self, event: Any = None) -> None:
        self._adopt(self.viewer.layers.selection.active)

    def _on_inserted(self, event: Any = None) -> None:
        if self.base is None:
            self._adopt(next(filter(is_base, reversed(self.viewer.layers)), None))

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if self.overlays is not None and layer == self.overlays.base:
            self.stop()
            overlays, self.overlays = self.overlays, None
            overlays.remove()
            self.overlays_changed.emit()
        self.truths.forget(layer)
        self.labelling.forget(layer)
        if layer == self.base:
            self.stop()
            self.base = self.truths.file = None
            self._on_inserted()
            self.base_changed.emit()

    def _follow(self, overlays: Overlays) -> None:
        image = overlays.picture.image
        view = visible_rect(self.viewer, overlays.base, image)
        if not view.empty:
            overlays.follow(view, screen_pixel(self.viewer, overlays.base))
