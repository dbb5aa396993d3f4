"""Print the table of the strategies side by side, from what `compare --matched` wrote.

    python docs/families.py DIR/table.csv

Errors are over the truth, and over what `patches` counted of the same image; beside each stand
those of `uniform` at as many FLOPs, and at as many seconds, where it was run so.
"""

from __future__ import annotations

import json
import sys

import pandas as pd


def main(path: str) -> None:
    """Print a row for each strategy, the nearest to the truth first."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table["params"] = table["params"].fillna("{}").map(json.loads)
    table["choice"] = [
        ":".join([name, *(f"{key}={value}" for key, value in params.items())])
        for name, params in zip(table["strategy"], table["params"], strict=True)
    ]
    plain = table["choice"].eq("patches") & table["budget"].isna()
    full = table[plain].set_index("image")
    full = full.loc[table["image"]].set_axis(table.index)
    each = pd.DataFrame(
        {
            "choice": table["choice"],
            "budget": table["budget"].fillna(""),
            "error": table["error"].abs() / table["reference"],
            "of patches": (table["estimate"] / full["estimate"] - 1).abs(),
            "flops": table["flops"] / full["flops"],
            "seconds": table["wall_s"] / full["wall_s"],
            "read": table["pixels_read"] / 1e6,
            "game4": table["game4"] / table["reference"],
        }
    ).groupby(["choice", "budget"])
    mean = each.mean().assign(game4=each["game4"].median())
    own = mean.xs("", level="budget").sort_values("error")
    even = mean.loc["uniform"]
    print("| | count error, of the truth | of `patches`' count | GAME(4), of the truth (median) "
          "| FLOPs, of `patches`' | seconds, of `patches`' | Mpx read "
          "| `uniform` at its FLOPs: error, GAME(4) | at its seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in own.iterrows():
        said = [f"{row['error']:.1%}", f"{row['of patches']:.1%}", f"{row['game4']:.0%}",
                f"{row['flops']:.2g}", f"{row['seconds']:.2g}", f"{row['read']:.0f}"]  # fmt: skip
        for what in ("FLOPs", "seconds"):
            if f"{what} of {name}" in even.index:
                beside = even.loc[f"{what} of {name}"]
                said.append(f"{beside['error']:.0%}, {beside['game4']:.0%}")
            else:
                said.append("")
        print(f"| `{name}` | {' | '.join(said)} |")
    took = table.loc[plain, "wall_s"].mean()
    print(f"\n`patches` takes {took:.1f} s an image.")


if __name__ == "__main__":
    main(*sys.argv[1:])
