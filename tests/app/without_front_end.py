"""Drives a run and Live through the application where no front end can be imported.

A script: ``python without_front_end.py FOLDER`` prints what it found as JSON.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from pathlib import Path

BLOCKED = {"napari", "qtpy", "PyQt6", "superqt", "magicgui", "vispy"}


class Blocker(importlib.abc.MetaPathFinder):
    """Refuses front ends."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")
        return None


def main(folder: Path) -> None:
    sys.meta_path.insert(0, Blocker())
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    import numpy as np
    from headless import is_live_done, look_at, make_app, run, wait
    from skimage.io import imsave
    from toys import Bright, Encoder, ToyBundle, picture

    from hrviewer.app.state import PatchClick
    from hrviewer.geometry import Rect

    photo = picture(600, 700)
    imsave(folder / "photo.png", photo, check_contrast=False)
    app = make_app(folder / "runs")
    state, errors = app.state, []
    state.error_raised.connect(lambda message: errors.append(message))
    app.image_loader.open(folder / "photo.png")
    wait(app, lambda: state.image is not None)
    state.set_model(ToyBundle(main=Bright(), encoder=Encoder()))
    state.set_strategy("patches")
    run(app)
    found = {"count": state.run.estimate["value"], "estimate": str(state.image.estimate)}
    found["finite"] = bool(np.isfinite(state.maps.rasters["output"].values).all())
    state.patch_clicked.emit(PatchClick((100.0, 100.0)))
    wait(app, lambda: not app.has_pending_work)
    found["preview"] = list(state.image.inspection.pixels.shape)
    app.export_service.export(folder / "x.geojson", "geojson")
    wait(app, lambda: not app.has_pending_work)
    app.compare_service.refresh()
    wait(app, lambda: not app.compare_service.is_running)
    found["runs"] = len(app.compare_service.entries)
    look_at(state.image, Rect(0, 0, 600, 700))
    app.live.set_enabled(True)
    wait(app, lambda: is_live_done(app))
    wait(app, lambda: "in view" in state.image.estimate.extent)
    found["live"] = str(state.image.estimate)
    # Another thread draws what is reported.
    wait(app, lambda: np.isfinite(state.maps.rasters["output"].values).all())
    app.close()
    found["errors"] = [message for message in errors if message]
    found["exported"] = (folder / "x.geojson").is_file()
    found["imported"] = sorted(BLOCKED & {name.partition(".")[0] for name in sys.modules})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
