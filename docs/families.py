r"""Tables of the strategies side by side, from the output of `compare`, better with `--matched`.

    python docs/families.py DIR/table.csv [NAME]
    python docs/families.py --plot OUT.png DIR/table.csv

Tables of the documentation are taken at 2,048, 4,096 and 8,192 pixels a side, of up to ten images
each with seeds of a block that no other table uses (crowds from 11700, tissue from 11710):

    hrviewer compare $(python docs/families.py --images crowd 11700) --model crowd \
      --strategies all --matched --truth auto --cache off --out DIR

There is one table for each size.

The last lines give how often a strategy's interval contains the count of `patches`. Errors are
relative to the ground truth, and to the count of `patches` on the same image: means over the
images, for GAME(4) the median. With a NAME, that strategy alone, beside `patches` and beside
`uniform` at as many FLOPs and at as many seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from hrviewer.io.figures.plots import AxisLabel, plot_error_by_cost
from hrviewer.runs import Run

HEADER = (
    "| | count error, of the ground truth | of `patches`' count | GAME(4), of the ground truth | "
    "FLOPs, of once per pixel | of `patches`' | seconds, of `patches`' | Mpx read |"
)
UNIFORM_HEADER = " `uniform` at its FLOPs: error, GAME(4) | at its seconds |"


SIZES = 2048, 4096, 8192
REPORT = range(11_100, 11_900)
"""Seeds of images for published tables, in blocks of ten."""


def images(name: str, first: int) -> list[str]:
    """Return the images of a published table, from the first seed of its block."""
    block = range(first, first + 10)
    if first % 10 or not {*block} <= {*REPORT}:
        raise SystemExit(f"a block begins at a multiple of ten from {REPORT[0]} to {REPORT[-10]}")
    return [f"sample:{name}?size={size}&seed={seed}" for size in SIZES for seed in block]


def main(path: str, only: str = "") -> None:
    """Print a table for each size of images."""
    words = dict.fromkeys(("params", "budget"), "string")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=words)
    sides = table["image"].str.extract(r"size=(\d+)", expand=False).fillna("")
    for side, rows in table.groupby(sides):
        if side:
            print(f"\n### {int(side):,} pixels a side\n")
        print_table(rows.copy(), only)


def plot(out: str, path: str) -> None:
    """Draw the error of the strategies at their default budgets against their cost."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table = table[table["budget"].isna()]
    relative = table.assign(error=100 * table["error"].abs() / table["reference"])
    points = relative.groupby("strategy")[["error", "flops"]].mean().reset_index()
    points["label"] = points["strategy"]
    cost = {"flops": AxisLabel("cost per image", "FLOP")}
    drawn = plot_error_by_cost(points, cost, "mean error, % of the ground truth")
    Path(out).write_bytes(drawn)


def print_table(table: pd.DataFrame, only: str) -> None:
    """Print a row for each strategy, the lowest error first."""
    table["choice"] = [
        ":".join([name, *(f"{key}={value}" for key, value in json.loads(params).items())])
        for name, params in zip(table["strategy"], table["params"].fillna("{}"), strict=True)
    ]
    plain = table["choice"].eq("patches") & table["budget"].isna()
    took = table.loc[plain, "wall_s"]
    full = table[plain].set_index("image")
    full = full.loc[table["image"]].set_axis(table.index)
    each = pd.DataFrame(
        {
            "choice": table["choice"],
            "budget": table["budget"].fillna(""),
            "error": table["error"].abs() / table["reference"],
            "of patches": (table["estimate"] / full["estimate"] - 1).abs(),
            "once": table["of_once_per_pixel"],
            "flops": table["flops"] / full["flops"],
            "seconds": table["wall_s"] / full["wall_s"],
            "read": table["pixels_read"] / 1e6,
            "game4": table["game4"] / table["reference"],
        }
    ).groupby(["choice", "budget"])
    mean = each.mean().assign(game4=each["game4"].median())
    if only:
        rows = {"`patches`": ("patches", ""), f"`{only}`": (only, "")}
        rows |= {f"`uniform`, as many {what}": ("uniform", f"{what} of {only}")
                 for what in ("FLOPs", "seconds")}  # fmt: skip
        print(HEADER)
        print("|---" * 8 + "|")
        for title, key in rows.items():
            if key in mean.index:
                print(f"| {title} | {' | '.join(format_row(mean.loc[key]))} |")
    else:
        matched = mean.index.get_level_values("budget").str.contains(" of ").any()
        print(HEADER + UNIFORM_HEADER if matched else HEADER)
        print("|---" * (10 if matched else 8) + "|")
        for name, row in mean.xs("", level="budget").sort_values("error").iterrows():
            keys = [("uniform", f"{what} of {name}") for what in ("FLOPs", "seconds")]
            beside = [
                f"{mean.loc[key, 'error']:.0%}, {mean.loc[key, 'game4']:.0%}"
                if key in mean.index
                else ""
                for key in keys
            ]
            beside = beside if matched else []
            print(f"| `{name}` | {' | '.join([*format_row(row), *beside])} |")
    for name, rows in table[table["budget"].isna()].groupby("choice"):
        ends = [Run(path).estimate["ci95"] for path in rows["run"].dropna()]
        there = full.loc[rows["run"].dropna().index, "estimate"]
        held = [a[0] <= n <= a[1] for a, n in zip(ends, there, strict=True) if a]
        if held:
            times = f"{sum(held)} of {len(held)}"
            print(f"\nThe interval of `{name}` contains `patches`' count in {times}.")
    print(f"\n`patches` takes {took.mean():.1f} s an image, of {len(took)}.")


def format_row(row: pd.Series) -> list[str]:
    """Return a row's cells."""
    return [
        f"{row['error']:.1%}",
        f"{row['of patches']:.1%}",
        f"{row['game4']:.0%}",
        f"{row['once']:.2g}",
        f"{row['flops']:.2g}",
        f"{row['seconds']:.2g}",
        f"{row['read']:.0f}",
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--images":
        print(*images(sys.argv[2], int(sys.argv[3])), sep="\n")
    elif sys.argv[1] == "--plot":
        plot(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
