"""What the person wants, and what is going on. No widgets.

Invariants: the base layer is found by what it is (an image that is not one of our overlays),
never by its name; layers are compared with ``==``, for plugins are handed proxies of them.
Everything here is called on the window's thread; `tick`, called about every 60 ms, is where news
from other threads arrives. `close` ends the threads, drops the connections and may be called
twice. A run goes on with what was chosen when it began, whatever is chosen meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Layer, Shapes
from napari.utils.notifications import show_error
from numpy.typing import NDArray
from psygnal import Signal

from hrviewer.engine import (
    Budget,
    Device,
    Looker,
    Networks,
    PatchRow,
    Priority,
    ResultCache,
    attended,
)
from hrviewer.errors import UserError
from hrviewer.exchange.annotations import FILE
from hrviewer.exchange.features import Feature
from hrviewer.exchange.found import objects_of
from hrviewer.exchange.truth import read_features
from hrviewer.geometry import Rect
from hrviewer.models import Pack, installed_packs, open_pack
from hrviewer.pyramid import Pyramid
from hrviewer.runs import Job, Run, describe, parse_params, sentence
from hrviewer.runs.execute import result_cache
from hrviewer.runs.hints import density_of
from hrviewer.strategies import Strategy, get_strategy, strategy_ids
from hrviewer.viewer.annotating import Annotations, Tool, layers_of
from hrviewer.viewer.arriving import follow
from hrviewer.viewer.attention import Attention
from hrviewer.viewer.comparison import Comparison
from hrviewer.viewer.exporting import Exporting
from hrviewer.viewer.hinting import drawn_map
from hrviewer.viewer.labelling import Labelling
from hrviewer.viewer.levels import (
    KEY,
    image_layer,
    is_base,
    placement,
    plane_of,
    pyramid_of,
    shape_of,
)
from hrviewer.viewer.live import Live
from hrviewer.viewer.looks import Look, seen_by
from hrviewer.viewer.opening import Opening
from hrviewer.viewer.overlays import Overlays
from hrviewer.viewer.picture import Picture
from hrviewer.viewer.places import drawn_rect, point_at, screen_pixel, visible_rect
from hrviewer.viewer.reopening import Reopened, reopen
from hrviewer.viewer.truth import TruthPoints, finder
from hrviewer.viewer.units import duration, si
from hrviewer.viewer.warped import seen_through
from hrviewer.viewer.work import Began, Ended, Failed, Status, Work

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Controller", "Status"]

log = logging.getLogger(__name__)

State = Literal["idle", "starting", "running", "paused", "stopping"]
RegionKind = Literal["whole", "visible", "drawn"]


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
        self.base: Image | None = None
        self.pack: Pack | None = None
        self.strategy: Strategy = get_strategy(strategy_ids()[0])
        self.params: dict[str, Any] = {}
        self.region: RegionKind = "whole"
        self.budget = ""
        self.device, self.precision = "auto", "float32"
        self.state: State = "idle"
        self.overlays: Overlays | None = None
        self.truth: TruthPoints | None = None
        self.truth_file: Path | None = None
        self.run: Run | None = None
        self.cache, self.folder, self.polite = cache, folder, polite
        self._device: Device | None = None
        self._networks: Networks | None = None
        self._work: Work | None = None
        self._began: Began | None = None
        self._reader = ThreadPoolExecutor(1, "hrviewer-preview")
        self._preview: tuple[PatchRow, Future[Look]] | None = None
        self.hint: Layer | Literal["run"] | None = None
        self.annotations: Annotations | None = None
        self._bringing: tuple[Path, Future[list[Feature]]] | None = None
        self._export: Exporting | None = None
        self._opening: Opening | None = None
        self._reopening: Future[Reopened] | None = None
        self._closed = False
        self.live = Live(self)
        self.comparison = Comparison(self)
        self.labelling = Labelling(self)
        follow(viewer)
        layers = viewer.layers
        self._connections: list[tuple[Any, Any]] = [
            (layers.selection.events.active, self._on_active),
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        viewer.mouse_drag_callbacks.append(self._on_mouse)
        self._adopt(layers.selection.active)
        if self.base is None:
            self._on_inserted()

    # What is chosen.

    def open_image(self, path: str | Path) -> None:
        """Open an image, on top of what is there; it comes with a later `tick`."""
        if self._opening is not None:
            self._opening.cancel()
        self._opening = Opening(path, self._reader)

    def use_pack(self, spec: str | Path | Pack) -> None:
        """Choose who looks: a pack's name, a folder or a file."""
        with self._told():
            self.pack = spec if isinstance(spec, Pack) else open_pack(spec)
            self.pack_changed.emit()

    def use_strategy(self, name: str) -> None:
        """Choose where to look; its parameters are the defaults again."""
        with self._told():
            self.strategy = get_strategy(name)
            self.params = {}
            self.strategy_changed.emit()
            self.live.tick()  # what is there is shown at once

    @staticmethod
    def packs() -> list[str]:
        """Return the names of the installed packs."""
        return list(installed_packs())

    def rect(self) -> Rect | None:
        """Return the chosen region; None for the whole image.

        Raises
        ------
        UserError
            If nothing is drawn, or the image is out of sight.
        """
        if self.region == "whole":
            return None
        base = self._need_base()
        image = Rect(0, 0, *shape_of(base))
        if self.region == "visible":
            rect = visible_rect(self.viewer, base, image)
            if rect.empty:
                raise UserError(
                    "the image is out of sight: bring it back, or choose another region"
                )
            return rect
        shapes = self.shapes()
        rect = Rect(0, 0, 0, 0) if shapes is None else drawn_rect(self.viewer, base, shapes, image)
        if rect.empty:
            raise UserError(
                "no shape is drawn on the image: draw a rectangle, or choose another region"
            )
        return rect

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
        return {"saliency": drawn_map(hint, self._need_base())}

    def shapes(self) -> Shapes | None:
        """Return the layer of shapes that regions are drawn on."""
        active = self.viewer.layers.selection.active
        if isinstance(active, Shapes):
            return active
        return next((la for la in reversed(self.viewer.layers) if isinstance(la, Shapes)), None)

    def draw_region(self) -> None:
        """Let the person draw a rectangle."""
        base = self._need_base()
        shapes = self.shapes()
        if shapes is None:
            shapes = Shapes(
                name="region",
                edge_color="#ffd54f",
                edge_width=max(1.0, 2 * screen_pixel(self.viewer, base)),
                face_color="transparent",
                scale=base.scale[-2:],
                translate=base.translate[-2:],
                units=base.units[-2:],
            )
            self.viewer.add_layer(shapes)
        self.viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    # Running.

    def start(self, *, out: Path | None = None) -> None:
        """Run what is chosen; into `out`, or a new folder."""
        if self._work is not None:
            return
        with self._told():
            base = self._need_base()
            pack = self.pack
            if pack is None:
                raise UserError("choose a model first")
            strategy = self.strategy
            params = parse_params(strategy, self.params)
            budget = Budget.parse(self.budget) if self.budget.strip() else None
            region, hints, plane = self.rect(), self.hints(), plane_of(self.viewer, base)
            networks = self.networks_of(pack)

            def prepare() -> tuple[Job, Networks]:
                pyramid = pyramid_of(base, plane)
                job = Job(pyramid, pack, strategy, params, region, budget, hints=hints)
                return job, networks

            self._launch(prepare, out or self._path(base, strategy))

    def _launch(
        self, prepare: Callable[[], tuple[Job, Networks]], out: Path | None, *, resume: bool = False
    ) -> None:
        cache = self.results()
        self.live.turn(False)
        self._reopening = None
        self.noted.emit([])
        self.progressed.emit(Status(0.0, "loading the network"))
        self._work = Work(prepare, out=out, resume=resume, cache=cache)
        self._set("starting")

    @property
    def unfinished(self) -> Run | None:
        """The run on the screen, if it was stopped before its end and can go on."""
        idle = self._work is None and self.run is not None and not self.run.complete
        return self.run if idle else None

    def pause(self) -> None:
        """Hold after the batch in flight."""
        if self._work is not None and self.state == "running":
            self._work.pause()
            self._set("paused")

    def resume(self) -> None:
        """Go on after a pause, or with the run that was stopped."""
        if self._work is not None and self.state == "paused":
            self._work.resume()
            self._set("running")
        elif self.unfinished is not None:
            self._resume(self.unfinished)

    def _resume(self, run: Run) -> None:
        """Go on with a run as it was begun, whatever is chosen now."""
        with self._told():
            base, pack, header = self._need_base(), self.pack, run.header
            if pack is None:
                raise UserError(f"choose the model that the run was begun with: {header['model']}")
            strategy = get_strategy(header["strategy"])
            params = parse_params(strategy, header["params"])
            budget = Budget.parse(header["budget"]) if header["budget"] else None
            networks, plane = self.networks_of(pack), plane_of(self.viewer, base)
            hints = self.hints() if header.get("hints") else {}

            def prepare() -> tuple[Job, Networks]:
                pyramid, seed = pyramid_of(base, plane), header["seed"]
                job = Job(pyramid, pack, strategy, params, run.region, budget, seed, hints)
                return job, networks

            self._launch(prepare, run.path, resume=True)

    def stop(self) -> None:
        """End within one batch; what was seen stays."""
        if self._work is not None:
            self._work.stop()
            self._set("stopping")

    def tick(self) -> None:
        """Take in what happened on other threads, and bring it onto the screen."""
        work = self._work
        if work is not None:
            over = not work.thread.is_alive()
            while work.events:
                self._take(work.events.popleft())
            if self._began is not None:
                self._tell_progress(work, self._began)
            if over and not work.events:
                self._work = self._began = None
                self._set("idle")
        self.live.tick()
        if self.overlays is not None and not self.live.on:
            self.overlays.refresh()
            self._follow(self.overlays)
        if self.truth is not None:
            self._take_truth(self.truth)
        if self._preview is not None and self._preview[1].done():
            _, future = self._preview
            self._preview = None
            if not future.cancelled() and future.exception() is None:
                self.looked.emit(future.result())
        if self._opening is not None:
            self._take_opened(self._opening)
        if self._reopening is not None and self._reopening.done():
            reopening, self._reopening = self._reopening, None
            with self._told():
                self._take_reopened(reopening.result())
        self.comparison.tick()
        self.labelling.tick()
        if self._export is not None:
            self._tell_export(self._export)
        if self.annotations is not None or self._bringing is not None:
            with self._told():
                self._take_drawn()

    def _take_opened(self, opening: Opening) -> None:
        if not opening.layer.done():
            self.progressed.emit(Status(opening.fraction, f"opening {Path(opening.path).name}"))
            return
        self._opening = None
        self.progressed.emit(Status(0.0, ""))
        if not opening.layer.cancelled():
            with self._told():
                self._show(*opening.layer.result())

    def export(self, path: str | Path, to: str, **options: Any) -> None:
        """Write the last run in another format, on a thread; `exported` says how far it is."""
        with self._told():
            run = self.run
            if run is None:
                raise UserError("there is no finished run to export")
            if self._export is not None:
                raise UserError("an export is at work: wait for it, or stop it")
            self._export = Exporting(run, Path(path).expanduser(), to, options)

    @property
    def exporting(self) -> bool:
        """Whether a run is being written."""
        return self._export is not None

    def stop_export(self) -> None:
        """End it soon; nothing is left of it."""
        if self._export is not None:
            self._export.stop()

    def _tell_export(self, work: Exporting) -> None:
        if not work.over:
            self.exported.emit(work.fraction, f"writing {work.path.name}")
            return
        self._export = None
        with self._told():
            if work.error is not None:
                self.exported.emit(0.0, str(work.error))
                raise work.error
            self.exported.emit(1.0, f"written: {work.path}")
            self.noted.emit([f"exported to {work.path}"])

    # What the person draws.

    def annotate(self, tool: Tool, label: str = "", *, correct: bool = False) -> None:
        """Let the person draw over the run; with `correct`, start from what the network found."""
        with self._told():
            run, base = self.run, self._need_base()
            if run is None:
                raise UserError("annotations are kept in a run: run a strategy, or open a run")
            if self.annotations is None:
                self.annotations = Annotations(self.viewer, base, run.path, self._reader)
            if correct:
                self.annotations.add(self._reader.submit(objects_of, run))
            self.annotations.take_up(tool, label)

    def bring_in(self, path: Path) -> None:
        """Show what a file marks as layers: regions, hints, or something to compare with."""
        with self._told():
            pyramid = pyramid_of(self._need_base())
            name = pyramid.path or pyramid.name
            read = self._reader.submit(read_features, path, name, pyramid.shape)
            self._bringing = path, read

    def _take_drawn(self) -> None:
        if self.annotations is not None:
            words = self.annotations.tick()
            if words is not None:
                self.annotated.emit(words)
        if self._bringing is not None and self._bringing[1].done():
            (path, read), self._bringing = self._bringing, None
            drawn = read.result()
            held = layers_of(drawn, placement(self._need_base(), 1.0), path.stem)
            for layer in held:
                if len(layer.data):
                    self.viewer.add_layer(layer)

    def _show_drawn(self, run: Run) -> None:
        """Show what was drawn over a run before."""
        self._put_away()
        if self.overlays is not None and (run.path / FILE).is_file():
            base = self.overlays.base
            self.annotations = Annotations(self.viewer, base, run.path, self._reader)

    def _put_away(self, *, now: bool = False) -> None:
        """Keep what was drawn over one run before another takes its place."""
        if self.annotations is not None:
            drawn, self.annotations = self.annotations, None
            with self._told():
                drawn.close(now=now)
            self.annotated.emit("")

    @property
    def knows_truth(self) -> bool:
        """Whether the image itself says what is really there, as scenes do."""
        return self.base is not None and pyramid_of(self.base).recipe is not None

    def show_truth(self, path: Path | None = None) -> None:
        """Show what is really there: what the image itself knows, or a file does."""
        self.hide_truth()
        with self._told():
            base = self._need_base()
            find = finder(pyramid_of(base), path)
            self.truth = TruthPoints(self.viewer, base, find, self._reader)
            self.truth_file = path
        self.truth_told.emit("looking…" if self.truth else "")

    def hide_truth(self) -> None:
        """Take the truth off the image."""
        if self.truth is not None:
            shown, self.truth = self.truth, None
            shown.remove()
            self.truth_told.emit("")

    def _take_truth(self, shown: TruthPoints) -> None:
        image = Rect(0, 0, *shape_of(shown.base))
        view = visible_rect(self.viewer, shown.base, image)
        if not view.empty:
            shown.follow(view, image, screen_pixel(self.viewer, shown.base))
        try:
            words = shown.tick()
        except UserError as error:
            self.hide_truth()
            self._fail(str(error))
        else:
            if words is not None:
                self.truth_told.emit(words)

    @property
    def busy(self) -> bool:
        """Whether a file is being opened or written, or a patch read."""
        asked = self.truth is not None and self.truth.busy
        drawn = self.annotations is not None and self.annotations.busy
        files = (self._opening, self._reopening, self._export, self._preview, self._bringing)
        return asked or drawn or any(files)

    def open_run(self, path: str | Path) -> None:
        """Bring a run's overlays back, on its image if that is at hand; with a later `tick`."""
        with self._told():
            if self._work is not None:
                raise UserError("a run is at work: stop it before opening another")
            self.live.turn(False)
            shown = {self._fingerprint(layer) for layer in self.viewer.layers if is_base(layer)}
            self._reopening = self._reader.submit(reopen, Path(path), shown)

    def _take_reopened(self, found: Reopened) -> None:
        run, notes = found.run, [*found.run.header["notes"]]
        base = self._image_of(found, notes)
        self.run = run
        self._draw(base, found.picture)
        self._report(run, notes)
        self._show_drawn(run)

    def close(self) -> None:
        """End everything that goes on; the layers stay."""
        if self._closed:
            return
        self._closed = True
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        if self._on_mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_mouse)
        if self._opening is not None:
            self._opening.cancel()
        self._put_away(now=True)
        if self._export is not None:
            self._export.stop()
        self._reader.shutdown(wait=False, cancel_futures=True)
        work, device, session = self._work, self._device, self.live.session
        self.live.close()
        self.comparison.close()
        self.labelling.close()
        if work is not None:
            work.stop()

        def end() -> None:
            if work is not None:
                work.thread.join()
            if session is not None:
                session.close()
            if device is not None:
                device.close()

        # A network that is being loaded cannot be interrupted: the window does not wait for it.
        ending = threading.Thread(target=end, name="hrviewer-close", daemon=True)
        ending.start()
        ending.join(timeout=5)
        self._work = self._began = self._device = self._networks = self.overlays = self.base = None
        self.truth = None

    # News.

    def _take(self, event: Began | Ended | Failed) -> None:
        if isinstance(event, Began):
            self._began = event
            self._put_away()
            self.run = None
            if self.base is not None:
                self._draw(self.base, event.picture)
            if self.state == "starting":
                self._set("running")
        elif isinstance(event, Ended):
            self.run = event.run
            if self._began is not None:
                self._began.picture.course.over = True
            if event.run is not None:
                notes = [*event.run.header["notes"]]
                if not event.run.complete:
                    notes.append("stopped: what was seen is kept, and Resume goes on")
                self._report(event.run, notes)
                self._show_drawn(event.run)
        else:
            self._fail(event.message)

    def _tell_progress(self, work: Work, began: Began) -> None:
        record = began.picture.record
        flops, seconds = work.progress.flops, work.seconds
        budget = began.job.budget
        fraction = flops / began.flops
        if budget is not None and budget.unit == "seconds":
            fraction = max(fraction, seconds / budget.amount)
        fraction = min(fraction, 0.99)
        left = f"{duration(seconds * (1 - fraction) / fraction)} left" if fraction > 0.02 else "…"
        if self.state == "paused":
            left = "paused"
        words = f"{work.progress.done:,} looks · {left}"
        if work.thread.is_alive():
            self.progressed.emit(Status(fraction, words))
            if record.estimate is not None:
                found = describe(
                    began.card,
                    record.estimate,
                    record.interval,
                    began.picture.region,
                    began.job.pyramid.pixel_size,
                )
                self.answered.emit(sentence(found) + " so far", "")
            total = record.ledger.total
            self.answered.emit("", cost_words(total.flops, seconds, total.pixels))

    def _report(self, run: Run, notes: list[str]) -> None:
        """Say what a run came to."""
        cost = run.cost
        self.progressed.emit(Status(1.0 if run.complete else 0.0, "done" if run.complete else ""))
        self.answered.emit(
            sentence(run.estimate), cost_words(cost["flops"], cost["wall_s"], cost["pixels_read"])
        )
        self.noted.emit(notes)
        self.overlays_changed.emit()
        if self.state == "idle":  # a reopened run may be one that can go on
            self.state_changed.emit("idle")

    # The image, and what lies on it.

    def _add(self, pyramid: Pyramid) -> Image:
        return self._show(*image_layer(pyramid, read=False))

    def _show(self, data: Any, settings: dict[str, Any], kind: str) -> Image:
        layer = self.viewer.add_layer(Layer.create(data, settings, kind))
        self.viewer.layers.selection.active = layer
        self._adopt(layer)
        return layer

    def _adopt(self, layer: Layer | None) -> None:
        if is_base(layer) and layer != self.base:
            self.base, self.truth_file = layer, None
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
        if self.truth is not None and layer in (self.truth.base, self.truth.layer):
            self.hide_truth()
        self.labelling.forget(layer)
        if layer == self.base:
            self.stop()
            self.base = self.truth_file = None
            self._on_inserted()
            self.base_changed.emit()

    def _draw(self, base: Image, picture: Picture) -> None:
        self.comparison.end()
        self.comparison.clear()
        shown = None
        if self.overlays is not None:
            shown = self.overlays
            shown.remove()
        self.overlays = Overlays(self.viewer, base, picture, like=shown)
        self.overlays_changed.emit()

    def _follow(self, overlays: Overlays) -> None:
        image = overlays.picture.image
        view = visible_rect(self.viewer, overlays.base, image)
        if not view.empty:
            overlays.follow(view, screen_pixel(self.viewer, overlays.base))

    def _image_of(self, found: Reopened, notes: list[str]) -> Image:
        """Return a layer of the image that a run looked at."""
        run, pyramid, base = found.run, found.pyramid, self.base
        wanted = run.header["image"]
        for layer in [base, *self.viewer.layers]:
            if is_base(layer) and self._fingerprint(layer) == wanted["fingerprint"]:
                return layer
        if pyramid is not None:
            if pyramid.fingerprint != wanted["fingerprint"]:
                notes.append(
                    f"{pyramid.name} has changed since this run: the overlays may not fit it"
                )
            if pyramid.shape == run.image_shape:
                return self._add(pyramid)
        path = wanted["path"]
        if base is not None and shape_of(base) == run.image_shape:
            notes.append(f"shown on {base.name}: the run looked at {path}, which is not the same")
            return base
        raise UserError(f"open the image of this run first: {path} is not there any more")

    @staticmethod
    def _fingerprint(layer: Layer) -> str | None:
        kept: Pyramid | None = layer.metadata.get(KEY, {}).get("pyramid")
        return None if kept is None else kept.fingerprint

    # A click.

    def _on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Tell a click from a drag."""
        start = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - start).max() <= 3:
            self.ask(event.position)

    def ask(self, position: Any) -> None:
        """Say what the patch at a position of the world cost, and read what was seen there."""
        overlays = self.overlays
        if overlays is None:
            return
        point = point_at(overlays.base, position)
        row = overlays.picture.patch_at(*point)
        if row is None:
            return
        self.looked.emit(Look(row))
        if self._preview is not None:
            self._preview[1].cancel()
        base, networks = overlays.base, self._networks
        warp = overlays.picture.warps.get(Rect(row.y, row.x, row.h, row.w))
        plane = plane_of(self.viewer, base)
        coded = overlays.coded
        codes = coded.codes if coded is not None and coded.colours.visible else None
        if codes is not None and self.labelling.label:
            self.labelling.put(base, point)
            codes = None
        # The first token that is clicked brings the layers; from then on, who looks at them asks.
        wanted = overlays.attending is None or overlays.attending.asked

        def read() -> Look:
            if codes is not None:
                codes.find(*point)
            pyramid = pyramid_of(base, plane)
            if wanted:
                self._attend(overlays.picture, pyramid, row, point)
            if warp is not None and warp.role == row.role:
                return Look(row, *seen_through(pyramid, warp))
            here = None if networks is None else networks.on(pyramid)
            return Look(row, seen_by(pyramid, row, here))

        self._preview = row, self._reader.submit(read)

    def _attend(
        self, picture: Picture, pyramid: Pyramid, row: PatchRow, point: tuple[float, float]
    ) -> None:
        """Draw where a token looked, if it is one whose network tells; beside the window."""
        core = Rect(row.y, row.x, row.h, row.w)
        look, number = picture.joined.get(core, (None, 0))
        networks, device = self._networks, self._device
        if look is None or networks is None or device is None or look.role not in networks:
            return
        looker = Looker(pyramid, networks, device, pyramid.rect, priority=Priority.LIVE)
        try:
            found = attended(looker, look, number)
        except Exception:  # what the patch cost is told all the same
            log.exception("the attention of %s cannot be shown", core)
            return
        if found is not None:
            kept = picture.attention or Attention(picture.image)
            kept.show(found, *point)
            picture.attention = kept

    # Small things.

    def _need_base(self) -> Image:
        if self.base is None:
            raise UserError("open an image first")
        return self.base

    def networks_of(self, pack: Pack) -> Networks:
        """Return a pack's networks, on the window's one device."""
        if self._device is None:
            self._device = Device(polite=self.polite)
        kept = self._networks
        chosen = pack, self.device, self.precision
        if kept is None or (kept.pack, kept.name, kept.precision) != chosen:
            kept = self._networks = Networks(pack, self._device, self.device, self.precision)
        return kept

    def results(self) -> ResultCache:
        """Return what was seen before."""
        return result_cache() if self.cache is None else self.cache

    def _path(self, base: Image, strategy: Strategy) -> Path | None:
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{Path(base.name).stem}-{strategy.id}"
        names = (f"{stem}{suffix}.run.zarr" for suffix in ("", *(f"-{n}" for n in range(2, 10**6))))
        return next(self.folder / name for name in names if not (self.folder / name).exists())

    def _set(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)

    def _fail(self, message: str) -> None:
        self.failed.emit(message)
        self.progressed.emit(Status(0.0, ""))
        show_error(message)

    def _told(self) -> _Told:
        return _Told(self)


class _Told:
    """Turns a `UserError` into a line for the person."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def __enter__(self) -> None:
        self._controller.failed.emit("")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, UserError):
            self._controller._fail(str(error))
            return True
        return False


def cost_words(flops: float, seconds: float, pixels: float) -> str:
    """Return a cost in a line."""
    return f"{si(flops, 'FLOP')} · {duration(seconds)} · {pixels / 1e6:,.1f} MP read"
