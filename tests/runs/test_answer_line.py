"""The answer's line, the same in every front end: value, unit, interval or *rough*, coverage."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import Bright, ToyBundle, picture, toy_bundle

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.run_service import list_notes, report_run
from hrviewer.app.state import AppState
from hrviewer.cli.run import print_summary
from hrviewer.formatting import format_number
from hrviewer.io.writers.html import describe_run
from hrviewer.models.accuracy import CountError, ModelAccuracy
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, compare, describe_estimate, export, format_estimate, run
from hrviewer.runs.comparison_report import write_comparison_report
from hrviewer.runs.estimates import map_sum_notes

IMAGE = picture(256, 320)
COUNT = IMAGE[..., 0].sum() / 255
SAMPLE = {"strategy": "patches", "budget": "50%", "params": {"tile": 32}}
ROUGH = {"strategy": "uniform"}
WHOLE = {"strategy": "patches"}


def bundle(error: CountError | None = None) -> ToyBundle:
    main = Bright()
    accuracy = ModelAccuracy(count_error=(error,) if error else ())
    main.card = main.card.model_copy(update={"accuracy": accuracy})
    return ToyBundle(main=main)


KNOWN = CountError(
    domain="a test", images=9, data="made", command="none", relative=0.1, counts=(0, 1e6)
)


@pytest.fixture(params=[SAMPLE, ROUGH, WHOLE], ids=["sample", "rough", "whole"])
def answered(request, tmp_path) -> Run:
    how = dict(request.param)
    return run(IMAGE, bundle(KNOWN), how.pop("strategy"), cache="off", out=tmp_path / "a.run.zarr",
               progress=False, **how)  # fmt: skip


def test_every_line_has_value_and_unit_and_how_sure_it_is(answered):
    line, parts = format_estimate(answered.estimate), describe_estimate(answered.estimate)
    assert line.startswith(f"{answered.estimate['value']:,.0f} things")
    if answered.header["strategy"] == "uniform":
        assert line == f"{parts.amount} (rough)"
    elif answered.coverage < 100:
        assert "95 % intervals: " in line
        assert " for exhaustive inference, " in line
        assert line.endswith(f" for the true count; {answered.coverage:.0f} % of the region")
    else:
        assert line.startswith(f"{parts.amount} (exhaustive); 95 % interval: ")
        assert line.endswith(" for the true count")
    assert "95 %" not in parts.amount + parts.certainty


def test_terminal_notebook_report_and_repr_have_the_same_line(answered, tmp_path, capsys):
    line = format_estimate(answered.estimate)
    print_summary(answered)
    printed = {row[:10].strip(): row[10:].strip() for row in capsys.readouterr().out.splitlines()}
    assert printed["estimate"] == line
    assert html.escape(line) in answered._repr_html_()
    assert line in repr(answered)
    export(answered, tmp_path / "report.html")
    assert html.escape(line) in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("side", [4, 12])
def test_a_default_budget_pays_for_an_image_however_small(side, tmp_path):
    small = run(IMAGE[:side, : 2 * side], bundle(), "uniform", cache="off", progress=False,
                out=tmp_path / "a.run.zarr")  # fmt: skip
    assert small.estimate is not None
    assert format_estimate(small.estimate).split("things")[1] in (
        " (rough)",
        " (exhaustive; rough as a true count)",
    )


def test_the_report_of_a_comparison_has_the_lines_and_the_intervals(tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(photo)
    table = compare(photo, bundle(KNOWN), ["patches", "uniform"], out=tmp_path / "a")
    page = Path(write_comparison_report(table)["report"]).read_text("utf-8")
    for folder in table["run"]:
        assert html.escape(format_estimate(Run(folder).estimate)) in page
    low, high = table["ci95_truth"][0]
    assert f"{np.floor(low):,.0f} – {np.ceil(high):,.0f}" in page
    assert "95 %, true count" in page


STRATEGIES = {
    "patches": {"tile": 32},
    "uniform": {},
    "nonuniform": {},
    "zoom": {"tile": 32},
    "scanner": {"tile": 32},
    "compression": {"tile": 32},
    "transformer": {},
}


class Unreliable(Bright):
    """Fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.fail

    def fail(self, batch: object) -> None:
        if self.calls % 4 == 3:
            raise RuntimeError("out of ink")


def answer(strategy: str, how: str, out: Path) -> Run:
    """Return a run to its end, of a part by its budget, or with failed patches."""
    networks = toy_bundle(Unreliable() if how == "failed" else Bright()).networks
    for network in networks.values():
        accuracy = ModelAccuracy(count_error=(KNOWN,))
        network.card = network.card.model_copy(update={"accuracy": accuracy})
    if how == "failed" and strategy == "compression":
        networks["encoder"].before = networks["main"].before
    budget = {"whole": None, "budgeted": "40%", "failed": None}[how]
    return run(IMAGE, ToyBundle(**networks), strategy, params=STRATEGIES[strategy], budget=budget,
               cache="off", progress=False, out=out)  # fmt: skip


@pytest.mark.parametrize("how", ["whole", "budgeted", "failed"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_front_end_has_the_same_full_line(strategy, how, tmp_path, capsys):
    found = answer(strategy, how, tmp_path / "a.run.zarr")
    line = format_estimate(found.estimate)
    check_line(line, found)

    print_summary(found)
    rows = capsys.readouterr().out.splitlines()
    printed = {row[:10].strip(): row[10:].strip() for row in rows}
    assert printed["estimate"] == line
    assert f"<td>{html.escape(line)}</td>" in found._repr_html_()
    assert dict(describe_run(found.header))["estimate"] == line
    with open_pyramid(IMAGE) as pyramid:
        image = ImageSession(pyramid)
        report_run(AppState(), image, found, list_notes(found))
    assert str(image.estimate) == line
    labels = image.estimate.amount, image.estimate.details  # of the panel
    assert sorted("; ".join(filter(None, labels)).split("; ")) == sorted(
        re.sub(r" \((.*?)\)", r"; \1", line).split("; ")
    )

    # Where the map has another sum, all have a note.
    header = json.loads((found.path / "run.json").read_text("utf-8"))
    for note in map_sum_notes(header["estimate"]):
        assert note in header["notes"]
        assert note in image.notes
        assert ("note", note) in [(row[:10].strip(), row[10:].strip()) for row in rows]
        assert html.escape(note) in found._repr_html_()


def check_line(line: str, run: Run) -> None:
    """Check that a line has value and unit, what is known of the error, and the coverage."""
    estimate = run.estimate
    if estimate is None:
        assert line == "no estimate"
        return
    assert line.startswith(f"{format_number(estimate['value'])} things")
    known = ["(exhaustive" in line, "(rough)" in line, " for exhaustive inference" in line]
    assert known == [estimate["exhaustive"], not (estimate["exhaustive"] or estimate["ci95"]),
                     bool(estimate["ci95"]) and not estimate["exhaustive"]]  # fmt: skip
    assert (" for the true count" in line) == bool(estimate["ci95_truth"])
    assert line.count("95 %") == (bool(estimate["ci95"]))
    whole = run.coverage == 100
    assert whole or line.endswith(" % of the region")
    assert whole == ("coverage" not in estimate)
