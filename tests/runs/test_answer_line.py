"""The answer's line, the same in every front end: value, unit, interval or *rough*, coverage."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import Bright, ToyBundle, picture

from hrviewer.cli.run import print_summary
from hrviewer.models.accuracy import CountError, ModelAccuracy
from hrviewer.runs import Run, compare, describe_estimate, export, format_estimate, run
from hrviewer.runs.comparison_report import write_comparison_report

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
