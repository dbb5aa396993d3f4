"""Print the table of the strategies side by side, from what a comparison wrote.

    python docs/families.py DIR/table.csv

Errors are over the truth, and over what `patches` counted of the same image.
"""

from __future__ import annotations

import sys

import pandas as pd


def main(path: str) -> None:
    """Print a row for each strategy, the nearest to the truth first."""
    table = pd.read_csv(path)
    full = table[table["strategy"] == "patches"].set_index("image")
    full = full.loc[table["image"]].set_axis(table.index)
    each = pd.DataFrame(
        {
            "strategy": table["strategy"],
            "error": table["error"].abs() / table["reference"],
            "of patches": (table["estimate"] / full["estimate"] - 1).abs(),
            "flops": table["flops"] / full["flops"],
            "seconds": table["wall_s"],
            "read": table["pixels_read"] / 1e6,
            "game4": table["game4"] / table["reference"],
        }
    ).groupby("strategy")
    mean, game4 = each.mean(), each["game4"].median()
    print("| | count error, of the truth | of `patches`' count | GAME(4), of the truth (median) "
          "| FLOPs, of `patches`' | seconds | Mpx read |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, row in mean.sort_values("error").iterrows():
        print(f"| `{name}` | {row['error']:.1%} | {row['of patches']:.1%} | {game4[name]:.0%} "
              f"| {row['flops']:.2g} | {row['seconds']:.2g} | {row['read']:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
