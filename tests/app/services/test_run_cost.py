"""The line with a run's cost: seconds are those that it took."""

from app.headless import open_image, run
from hrviewer.app.services.run_service import format_run_cost
from hrviewer.units import format_duration


def test_seconds_are_those_of_the_run_not_of_cached_results(app, photo):
    open_image(app, photo)
    run(app)
    first = app.state.run
    taken = first.header["spent"]["wall_s"]
    assert f" · {format_duration(taken)} · " in format_run_cost(first)
    first.header["cost"]["wall_s"] = taken + 30.0
    assert format_run_cost(first).endswith(
        f"{format_duration(taken + 30.0)} without cached results"
    )
    first.header["cost"]["wall_s"] = taken
    assert "without" not in format_run_cost(first)
