"""The application: state, services and one clock, without a front end."""

from __future__ import annotations

import threading
from pathlib import Path

from hrviewer.app.resources import Resources
from hrviewer.app.services.annotation_service import AnnotationService
from hrviewer.app.services.background import Background
from hrviewer.app.services.batch_service import BatchService
from hrviewer.app.services.compare_service import CompareService
from hrviewer.app.services.export_service import ExportService
from hrviewer.app.services.ground_truth_service import GroundTruthService
from hrviewer.app.services.head_training import HeadTrainer
from hrviewer.app.services.live_service import LiveService
from hrviewer.app.services.loading import ImageDisplay, ImageLoader, RunLoader
from hrviewer.app.services.model_loader import ModelLoader
from hrviewer.app.services.model_proposal import ModelProposer
from hrviewer.app.services.object_service import ObjectService
from hrviewer.app.services.patch_inspection import PatchInspector
from hrviewer.app.services.recent_files import RecentFiles
from hrviewer.app.services.region_service import RegionService
from hrviewer.app.services.run_library import RunLibrary
from hrviewer.app.services.run_queue import RunQueue
from hrviewer.app.services.run_service import RunService
from hrviewer.app.services.slide_list import SlideList
from hrviewer.app.state import AppState
from hrviewer.engine import ResultCache

__all__ = ["Application"]


class Application:
    """State and services; a front end adds what it displays.

    Everything is called on the front end's thread. `tick`, called about every 60 ms, is the one
    clock, and the one place where results of other threads arrive. `close` ends the threads and
    may be called twice.

    Parameters
    ----------
    display : ImageDisplay
        Displays images.
    cache : ResultCache, optional
        Results of earlier runs; this machine's by default.
    run_folder : Path, optional
        Folder of runs; in the user's data folder by default.
    low_priority : bool
        Whether inference gives way to the front end.

    Attributes
    ----------
    state : AppState
        Settings, images and signals.
    """

    def __init__(
        self,
        display: ImageDisplay,
        *,
        cache: ResultCache | None = None,
        run_folder: Path | None = None,
        low_priority: bool = True,
    ) -> None:
        self.state = state = AppState()
        self.resources = resources = Resources(cache, run_folder, low_priority=low_priority)
        self.background = background = Background(state)
        self.image_loader = ImageLoader(state, background, display)
        self.run_loader = RunLoader(state, background, display)
        self.model_loader = ModelLoader(state, background)
        self.model_proposer = ModelProposer(state, background)
        self.run_service = RunService(state, background, resources)
        self.run_queue = RunQueue(state, resources, self.run_service)
        self.live = LiveService(state, background, resources)
        self.patch_inspector = PatchInspector(state, background, resources)
        self.annotation_service = AnnotationService(state, background)
        self.region_service = RegionService(state, background, self.annotation_service)
        self.ground_truth_service = GroundTruthService(state, background)
        self.object_service = ObjectService(state, background)
        self.head_trainer = HeadTrainer(state, background, resources, self.run_service)
        self.compare_service = CompareService(state, background, resources, self.run_loader)
        self.run_library = RunLibrary(state, background, self.compare_service)
        self.export_service = ExportService(state, background)
        self.recent_files = RecentFiles(state, background)
        self.slide_list = SlideList(state, background, resources)
        self.batch_service = BatchService(state, background)
        self._closed = False

    @property
    def has_pending_work(self) -> bool:
        """Whether a file is being opened or written, or a patch read."""
        services = (
            self.image_loader,
            self.model_loader,
            self.model_proposer,
            self.run_loader,
            self.export_service,
            self.patch_inspector,
            self.annotation_service,
            self.region_service,
            self.ground_truth_service,
            self.object_service,
            self.slide_list,
        )
        return any(service.is_running for service in services)

    def tick(self) -> None:
        """Take in the results of other threads, and let the services go on."""
        self.background.poll()
        self.run_service.tick()
        self.run_queue.tick()
        self.live.tick()
        self.ground_truth_service.tick()
        self.object_service.tick()
        self.head_trainer.tick()
        self.annotation_service.tick()
        self.region_service.tick()

    def close(self) -> None:
        """End the threads; what is displayed stays."""
        if self._closed:
            return
        self._closed = True
        self.image_loader.cancel()
        self.annotation_service.save_and_close(wait=True)
        self.export_service.stop()
        self.batch_service.close()
        running, session = self.run_service.close(), self.live.session
        self.background.close()
        self.live.close()
        self.compare_service.close()
        scheduler = self.resources.release()

        def end() -> None:
            for thread in running:
                thread.join()
            if session is not None:
                session.close()
            if scheduler is not None:
                scheduler.close()

        # Loading a model cannot be interrupted: the front end does not wait for it.
        ending = threading.Thread(target=end, name="hrviewer-close", daemon=True)
        ending.start()
        ending.join(timeout=5)
