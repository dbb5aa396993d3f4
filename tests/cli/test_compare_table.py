"""The table that ``compare`` prints: columns in which rows differ."""

from __future__ import annotations

import pandas as pd

from hrviewer.cli.compare import print_comparison

COLUMNS = ("image", "model", "strategy", "params", "chosen", "estimate", "ci95", "error", "dice")


def rows(models: tuple[str, ...]) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {
                "image": "a.png", "model": model, "strategy": strategy, "params": {},
                "chosen": {"scale": 0.142857}, "estimate": 0.3881, "ci95": (0.38, 0.4),
                "error": 0.00012, "dice": {"glass": 1.0, "stroma": 0.979, "nuclei": 0.991},
                "flops": 882.0, "of_once_per_pixel": 1.25, "of_patches": 1.0, "wall_s": 0.28,
                "note": None,
            }
            for model in models
            for strategy in ("patches", "uniform")
        ]
    )  # fmt: skip
    table.attrs["failed"] = {}
    return table


def test_models_are_named_where_they_differ(capsys):
    print_comparison(rows(("one", "another")), COLUMNS, {"csv": "table.csv"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["model", "strategy"]
    assert [line.split()[0] for line in lines[1:5]] == ["one", "one", "another", "another"]


def test_what_is_the_same_in_all_rows_is_left_out(capsys):
    print_comparison(rows(("one",)), COLUMNS, {"csv": "table.csv"})
    text = capsys.readouterr().out
    assert not {"image", "model", "params"} & {*text.split()}
    assert "0.38–0.4" in text
