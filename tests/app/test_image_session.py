"""What belongs to an image ends with it and never stands beside another one."""

from __future__ import annotations

import shutil
import threading
from functools import partial

import numpy as np
import pytest
import tifffile
from synthetic_squares import Squares, install
from toys import picture

from app.headless import is_idle, is_live_done, look_at, open_image, run, wait
from hrviewer.app.image_session import Viewport
from hrviewer.app.settings import ResolvedRun
from hrviewer.app.state import PatchClick
from hrviewer.errors import ModelError
from hrviewer.formatting import NO_ESTIMATE
from hrviewer.geometry import Rect
from hrviewer.io.annotations import read_annotations
from hrviewer.io.features import Feature
from hrviewer.pyramid import open_pyramid
from hrviewer.regions import Region
from hrviewer.runs import runner

NOTHING = NO_ESTIMATE, ""


@pytest.fixture
def shown(app):
    """The last value of every signal about the current image."""
    values = {}

    def follow(name):
        getattr(app.state, name).connect(lambda *args: values.__setitem__(name, args))

    for name in (
        "estimate_changed",
        "notes_changed",
        "progress_changed",
        "patch_inspected",
        "live_status_changed",
        "hud_changed",
        "ground_truth_status_changed",
    ):
        follow(name)
    return values


def is_blank(shown):
    return (
        shown["estimate_changed"] == NOTHING
        and shown["notes_changed"] == ([],)
        and shown["progress_changed"][0].fraction == 0
        and shown["patch_inspected"] == (None,)
        and shown["hud_changed"] == ("",)
    )


def test_results_leave_with_their_image_and_come_back_with_it(app, two, shown):
    first, second = two
    run(app)
    app.state.patch_clicked.emit(PatchClick((30.0, 30.0)))
    wait(app, lambda: not app.has_pending_work)
    estimate = shown["estimate_changed"]
    assert "things" in estimate[0].amount
    assert shown["patch_inspected"][0].pixels is not None
    app.state.select_image(second)
    assert is_blank(shown)
    assert app.state.maps is None
    assert app.state.run is None
    app.state.select_image(first)
    assert shown["estimate_changed"] == estimate
    assert shown["patch_inspected"][0].pixels is not None
    # The results of another image take the place of all others.
    app.state.select_image(second)
    run(app)
    assert first.maps is None
    assert first.estimate == NO_ESTIMATE
    app.state.select_image(first)
    assert is_blank(shown)


def test_a_closed_image_takes_everything_along(app, two, shown):
    first, second = two
    run(app)
    app.state.close_image(first)
    assert app.state.image is None
    assert is_blank(shown)
    assert (first.maps, first.run, first.estimate, first.labels) == (
        None,
        None,
        NO_ESTIMATE,
        [],
    )
    app.state.select_image(second)
    assert app.state.images == [second]
    assert is_blank(shown)


def test_a_stopped_run_is_resumed_on_its_own_image_only(app, two, gate):
    first, second = two
    app.run_service.start()
    wait(app, lambda: app.state.run_state == "running")
    app.run_service.stop()
    gate.set()
    wait(app, lambda: is_idle(app))
    stopped = app.state.resumable_run
    assert stopped is not None
    app.state.select_image(second)
    assert app.state.resumable_run is None
    app.run_service.resume()
    assert is_idle(app)
    app.state.select_image(first)
    assert app.state.resumable_run is stopped
    # Shown on another image of the same size, it cannot be resumed either.
    app.state.show_results(second, first.maps, stopped)
    app.state.select_image(second)
    assert app.state.resumable_run is None
    app.state.close_image(second)
    assert app.state.resumable_run is None


def test_a_run_draws_on_the_image_that_it_was_started_on(app, two, gate):
    first, second = two
    app.run_service.start()
    app.state.select_image(second)
    wait(app, lambda: app.state.run_state == "running")
    assert first.maps is not None
    assert second.maps is None
    gate.set()
    wait(app, lambda: is_idle(app))
    assert first.run is not None
    assert "things" in first.estimate.amount
    assert (second.estimate, second.cost, second.notes) == (*NOTHING, [])


def test_the_seconds_of_a_run_are_those_of_inference(app, two, gate, monkeypatch):
    setup = threading.Event()
    build = runner.build_context

    def build_context(*args, **more):
        assert setup.wait(20)
        return build(*args, **more)

    monkeypatch.setattr(runner, "build_context", build_context)
    app.run_service.start()
    wait(app, lambda: app.state.run_state == "running")
    worker = app.run_service._worker
    assert worker.elapsed_seconds == 0  # the model is loaded, the rest of the set-up goes on
    setup.set()
    wait(app, lambda: worker.elapsed_seconds > 0)
    gate.set()
    wait(app, lambda: is_idle(app))


def test_a_run_that_cannot_begin_leaves_the_results_of_before(app, two, shown, monkeypatch):
    run(app)
    earlier, estimate = app.state.run, shown["estimate_changed"]

    def fail(self):
        raise ModelError("the weights are damaged")

    monkeypatch.setattr(ResolvedRun, "spec", fail)
    run(app)
    assert app.errors[-1] == "the weights are damaged"
    assert app.state.run is earlier
    assert shown["estimate_changed"] == estimate


@pytest.mark.parametrize("moment", ["starting", "running"])
def test_a_run_ends_with_its_image(app, two, gate, moment):
    first, second = two
    app.run_service.start()
    if moment == "running":  # the state is "starting" until the first tick that reports progress
        wait(app, lambda: app.state.run_state == moment)
    assert app.state.run_state == moment
    app.state.select_image(second)
    app.state.close_image(first)
    # Loading cannot be interrupted, so a run that loads is abandoned.
    assert app.state.run_state == ("idle" if moment == "starting" else "stopping")
    gate.set()
    wait(app, lambda: is_idle(app))
    assert app.state.maps is None
    assert app.state.run is None
    assert (second.estimate, second.notes) == (NO_ESTIMATE, [])
    assert [message for message in app.errors if message] == []


def test_a_run_is_stopped_at_once_while_its_model_is_loaded(app, two, monkeypatch):
    first, _ = two
    gate, resolve = threading.Event(), ResolvedRun.spec

    def load_slowly(self):
        assert gate.wait(30)
        return resolve(self)

    monkeypatch.setattr(ResolvedRun, "spec", load_slowly)
    app.run_service.start()
    wait(app, lambda: first.status.message.startswith("loading the model"))
    loading = app.run_service._worker
    app.run_service.stop()
    assert app.state.run_state == "idle"
    assert list(app.resources.runs().glob("*")) == []
    # Another run begins meanwhile; what the first one announces is dropped.
    monkeypatch.setattr(ResolvedRun, "spec", resolve)
    app.run_service.start()
    gate.set()
    loading.thread.join(30)
    wait(app, lambda: is_idle(app))
    assert first.run.complete
    assert len(list(app.resources.runs().glob("*.run.zarr"))) == 1
    assert [message for message in app.errors if message] == []


def test_live_shows_no_number_of_the_image_before(app, two, shown, network):
    first, second = two
    for session in two:
        look_at(session, Rect(0, 0, 300, 420))
    app.live.set_enabled(True)
    wait(app, lambda: is_live_done(app))
    wait(app, lambda: "in view" in first.estimate.extent)
    loading = []
    # The number is gone before the model is loaded for the second image.
    app.state.live_status_changed.connect(
        lambda status: loading.append((status, shown["estimate_changed"], shown["hud_changed"]))
    )
    app.state.select_image(second)
    assert shown["estimate_changed"] == NOTHING
    wait(app, lambda: "in view" in second.estimate.extent)
    assert ("loading the model", NOTHING, ("",)) in loading
    counts = [picture(300, 420, seed=seed)[..., 0].sum(dtype=np.float64) / 255 for seed in (0, 1)]
    wait(app, lambda: f"{counts[1]:,.0f} things" == second.estimate.amount)
    assert counts[0] != pytest.approx(counts[1])
    assert first.maps is None


def test_live_does_not_depend_on_the_region_of_runs(app, two):
    look_at(two[0], Rect(0, 0, 300, 420))
    app.live.set_enabled(True)
    wait(app, lambda: is_live_done(app))
    request = app.state.live.request
    app.state.settings.region = "visible"
    app.tick()
    assert app.state.live.request == request
    app.state.settings.budget = "1s"
    wait(app, lambda: app.state.live.request > request)


def test_live_goes_off_with_its_image(app, shown):
    session = open_image(app, picture(300, 420))
    look_at(session, Rect(0, 0, 300, 420))
    app.live.set_enabled(True)
    wait(app, lambda: is_live_done(app))
    app.state.close_image(session)
    wait(app, lambda: not app.live.enabled)
    assert is_blank(shown)
    assert app.live.session is None


def test_what_was_read_for_a_closed_image_is_dropped(app, two, shown):
    first, second = two
    run(app)
    app.state.patch_clicked.emit(PatchClick((30.0, 30.0)))
    app.state.close_image(first)
    app.state.select_image(second)
    wait(app, lambda: not app.has_pending_work)
    assert shown["patch_inspected"] == (None,)


def test_runs_and_ground_truth_are_those_of_the_current_image(app, two, tmp_path, shown):
    first, second = two
    run(app)
    table = tmp_path / "truth.csv"
    table.write_text("y,x\n10.5,20.5\n")
    app.ground_truth_service.show(table)
    app.compare_service.refresh()
    wait(app, lambda: not (app.compare_service.is_running or app.ground_truth_service.is_running))
    assert len(app.compare_service.entries) == 1
    assert len(first.ground_truth.points) == 1
    app.state.select_image(second)
    assert app.compare_service.entries == []
    assert app.ground_truth_service.path is None
    assert shown["ground_truth_status_changed"] == ("",)
    app.state.select_image(first)
    assert app.ground_truth_service.path == table
    assert "1 object in" in shown["ground_truth_status_changed"][0]
    app.state.close_image(first)
    assert first.ground_truth is None


def test_a_run_of_another_plane_or_channels_belongs_to_another_image(app, tmp_path, gate):
    path = tmp_path / "stack.ome.tif"
    stack = np.stack([picture(300, 420, seed=seed) for seed in (0, 1)])
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "ZYXS"})
    first = open_image(app, str(path))
    gate.set()
    run(app)
    gate.clear()
    second = open_image(app, open_pyramid(path, plane={"z": 1}))
    reversed_channels = open_image(app, open_pyramid(path, channels=[2, 1, 0]))
    app.state.select_image(second)
    app.run_service.start()
    wait(app, lambda: app.state.run_state == "running")
    app.run_service.stop()
    gate.set()
    wait(app, lambda: is_idle(app))
    stopped = app.state.resumable_run
    # Shown on another plane, a stopped run cannot be resumed there.
    app.state.show_results(first, second.maps, stopped)
    app.state.select_image(first)
    assert app.state.resumable_run is None
    app.state.select_image(second)
    run(app)
    # Each plane lists and opens its own run, and other channels have none.
    for session, listed in ((first, 1), (second, 1), (reversed_channels, 0)):
        app.state.select_image(session)
        app.compare_service.refresh()
        wait(app, lambda: not app.compare_service.is_running)
        assert len(app.compare_service.entries) == listed
    opened = second.runs[0]
    assert opened.run.header["image"]["plane"] == {"z": 1}
    app.compare_service.show_run(opened)
    wait(app, lambda: app.state.run is not None)
    assert app.state.image is second
    # A plane that is not open is opened; another plane of the same size does not take its place.
    app.state.close_image(second)
    app.state.select_image(first)
    app.run_loader.open(opened.path)
    wait(app, lambda: app.state.image not in (first, reversed_channels))
    assert app.state.image.source.pyramid().plane == {"z": 1}
    assert app.state.run.path == opened.path


def test_runs_are_compared_with_the_ground_truth_of_their_regions(app, tmp_path, monkeypatch):
    install(monkeypatch)
    rendered = []
    find = Squares.ground_truth
    monkeypatch.setattr(
        Squares, "ground_truth", lambda self, rect: rendered.append(rect) or find(self, rect)
    )
    image = open_image(app, "sample:squares?size=1024&seed=0")
    region = Rect(64, 128, 256, 320)
    image.source.regions = [Region.from_rect(region)]
    app.state.settings.region = "drawn"
    run(app)
    rendered.clear()
    service = app.compare_service
    for _ in range(2):
        service.refresh()
        wait(app, lambda: not service.is_running)
    assert rendered == [region]  # neither the whole image, nor twice
    entry = service.entries[0]
    objects = find(Squares(1024, 0), region)
    assert entry.reference_source == "truth"
    assert entry.row["error"] == pytest.approx(entry.run.estimate["value"] - len(objects))
    # The displayed file takes its place, and ends with its display.
    assert not service.is_outdated
    table = tmp_path / "truth.csv"
    table.write_text("y,x\n100.5,200.5\n10.5,20.5\n")  # one of them in the region
    for show, expected in ((partial(app.ground_truth_service.show, table), 1),
                           (app.ground_truth_service.hide, len(objects))):  # fmt: skip
        show()
        assert service.is_outdated
        service.refresh()
        wait(app, lambda: not (service.is_running or app.ground_truth_service.is_running))
        assert service.entries[0].run.evaluation["value"] == expected


def test_a_comparison_ends_with_the_image(app, two):
    run(app)
    app.state.settings.params = {"tile": 32}
    run(app)
    app.compare_service.refresh()
    wait(app, lambda: not app.compare_service.is_running)
    app.compare_service.show_grid(app.compare_service.entries)
    wait(app, lambda: app.compare_service.grid is not None)
    app.state.select_image(two[1])
    assert app.compare_service.grid is None
    app.state.select_image(two[0])
    app.compare_service.refresh()
    wait(app, lambda: not app.compare_service.is_running)
    app.compare_service.show_difference(*app.compare_service.entries)
    wait(app, lambda: app.compare_service.difference is not None)
    app.state.close_image(two[0])
    assert app.compare_service.difference is None


def test_predicted_objects_are_added_to_the_annotations_of_their_own_run(app, two, monkeypatch):
    second = two[1]
    service, gate, added = app.annotation_service, threading.Event(), []
    read = []

    def detect(found):
        read.append(found)
        assert gate.wait(20)
        return [Feature("point", "thing", point=(10.0, 10.0))]

    monkeypatch.setattr("hrviewer.app.services.annotation_service.detected_objects", detect)
    service.added.connect(added.append)
    run(app)
    service.annotate("points", from_predictions=True)
    wait(app, lambda: bool(read))
    # Another image, and its annotations, are selected before the objects are found.
    app.state.select_image(second)
    run(app)
    service.annotate("points")
    gate.set()
    wait(app, lambda: not service.is_running)
    assert service.run_path == second.run.path
    assert added == []


def test_the_last_annotations_are_written_at_the_end(app, two, gate):
    gate.set()
    run(app)
    gate.clear()
    path = app.state.run.path
    app.annotation_service.annotate("points")
    wait(app, lambda: not app.annotation_service.is_running)
    app.background.submit("read", lambda task: gate.wait(20), lambda result: None)
    app.annotation_service.mark_edited(lambda: [Feature("annotation", "a", point=(10.0, 10.0))])
    app.close()  # does not wait for what is being read
    assert [feature.label for feature in read_annotations(path)] == ["a"]
    assert app.errors[-1] == ""


def test_annotations_that_cannot_be_written_at_the_end_are_reported(app, two):
    run(app)
    app.annotation_service.annotate("points")
    wait(app, lambda: not app.annotation_service.is_running)
    shutil.rmtree(app.state.run.path)
    app.annotation_service.mark_edited(lambda: [Feature("annotation", "a", point=(10.0, 10.0))])
    app.close()
    assert "annotations.geojson" in app.errors[-1]


def test_a_viewport_of_unequal_pixels():
    view = Viewport(Rect(0, 0, 10, 10), (0.25, 1.0))
    assert view.side == 0.5
    assert view.coarsest == 1.0
