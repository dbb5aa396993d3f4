"""Resources that all services share: result cache, folders, one device, loaded models."""

from __future__ import annotations

from pathlib import Path

from hrviewer.engine import DeviceScheduler, LoadedModels, ResultCache, recommended_streams
from hrviewer.models import ModelBundle
from hrviewer.paths import data_folder, runs_folder
from hrviewer.runs.runner import result_cache

__all__ = ["Resources"]


class Resources:
    """Cache, folders, device and loaded models of one application.

    Parameters
    ----------
    cache : ResultCache, optional
        Results of earlier runs; this machine's by default.
    run_folder : Path, optional
        Folder of runs; in the user's data folder by default.
    low_priority : bool
        Whether inference gives way to the front end.
    """

    def __init__(
        self,
        cache: ResultCache | None = None,
        run_folder: Path | None = None,
        *,
        low_priority: bool = True,
    ) -> None:
        self.cache, self.run_folder, self.low_priority = cache, run_folder, low_priority
        self.loaded_models: LoadedModels | None = None
        self._scheduler: DeviceScheduler | None = None

    def models_for(self, model: ModelBundle, device: str, precision: str) -> LoadedModels:
        """Return a bundle's loaded models, on the application's one device."""
        if self._scheduler is None:
            self._scheduler = DeviceScheduler(
                low_priority=self.low_priority, streams=recommended_streams()
            )
        loaded = self.loaded_models
        if loaded is None or (loaded.bundle, loaded.device_name, loaded.precision) != (
            model,
            device,
            precision,
        ):
            loaded = self.loaded_models = LoadedModels(model, self._scheduler, device, precision)
        return loaded

    def result_cache(self) -> ResultCache:
        """Return the results of earlier inference."""
        return result_cache() if self.cache is None else self.cache

    def runs(self) -> Path:
        """Return the folder that runs are written to."""
        return self.run_folder or runs_folder()

    def heads(self) -> Path:
        """Return the folder of fitted heads."""
        return (self.run_folder or data_folder()) / "heads"

    def release(self) -> DeviceScheduler | None:
        """Forget the models; return the device, whose threads the caller ends."""
        scheduler, self._scheduler, self.loaded_models = self._scheduler, None, None
        return scheduler
