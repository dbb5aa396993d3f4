"""Running a strategy on an image."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    CacheMode,
    CacheOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    SeedOption,
    app,
    check_budget,
    check_settings,
    command,
    interruptible,
    parse_region_or_file,
    print_json,
    print_message,
    print_rows,
)
from hrviewer.errors import HrviewerError
from hrviewer.units import format_si

if TYPE_CHECKING:
    from hrviewer.runs import Run

__all__ = ["run"]


class Precision(StrEnum):
    """Numbers that networks compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


@command(app)
def run(
    image: str,
    model: ModelOption,
    strategy: Annotated[str, typer.Option(help="Where to look; see `hrviewer strategies`.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=check_settings,
            help="A parameter of the strategy; may be given again.",
        ),
    ] = None,
    region: Annotated[
        Any,  # a rectangle or a path: typer knows no unions
        typer.Option(
            parser=parse_region_or_file,
            metavar="Y,X,H,W|FILE",
            help="Only this part, level-0 pixels; or what a file's shapes lie in.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            callback=check_budget, help="What may be spent: 2TFLOP, 30s, 500patches or 10%."
        ),
    ] = None,
    seed: SeedOption = 0,
    priors: Annotated[
        list[str] | None,
        typer.Option(
            "--hint",
            metavar="NAME=FILE",
            callback=check_settings,
            help="What the strategy is told: saliency=IMAGE or density=RUN.run.zarr.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE|DIR|auto", help="What is really there; auto is a scene's own."),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        Precision,
        typer.Option(help="Fewer digits are quicker and less exact: the run says how much."),
    ] = Precision.float32,
    cache: CacheOption = CacheMode.use,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN.run.zarr", help="Where to keep it; the data folder otherwise."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a strategy on an image; Ctrl-C stops it, and it can be resumed."""
    from hrviewer import runs
    from hrviewer.strategies import get_strategy

    if resume and out is None:
        raise HrviewerError("--resume needs --out: say which run to go on with")
    values = dict(item.split("=", 1) for item in settings or [])
    chosen = get_strategy(strategy)
    params = runs.parse_params(chosen, values).model_dump()
    with interruptible() as control:
        done = runs.run(
            image,
            model,
            chosen,
            region=region,
            budget=budget,
            seed=seed,
            priors=dict(hint.split("=", 1) for hint in priors or []),
            device=device,
            precision=precision.value,
            cache=cache.value,
            out=out,
            resume=resume,
            truth=truth,
            control=control,
            params=params,
        )
    if as_json:
        print_json(done.header)
    else:
        print_summary(done)
    looks = done.header["patches"]
    if not done.complete:
        print_message(
            f"stopped; what was seen is kept: the same with --out {done.path} --resume goes on"
        )
        raise typer.Exit(130)
    if looks["failed"] and looks["failed"] == looks["planned"]:
        raise HrviewerError(f"every look failed, the first: {first_patch_error(done)}")


def print_summary(done: Run) -> None:
    """Print what a run came to."""
    from hrviewer.runs import format_estimate, format_evaluation

    header, cost, looks = done.header, done.header["cost"], done.header["patches"]
    stages = ("read", "prepare", "infer", "post")
    seen = f"{looks['done'] + looks['cached']} of {looks['planned']}"
    if looks["cached"]:
        seen += f", {looks['cached']} of them by earlier runs"
    if looks["failed"]:
        seen += f", {looks['failed']} failed, the first: {first_patch_error(done)}"
    read = f"{format_si(cost['bytes_read'], 'B')}, {format_si(cost['pixels_read'], 'px')}"
    memory = cost["peak_rss_bytes"]
    print_rows(
        ("image", header["image"]["path"]),
        ("how", f"{header['strategy']} with {header['model']} on {header['device']}"),
        ("answer", format_estimate(done.estimate)),
        *([("truth", format_evaluation(done.evaluation))] if done.evaluation else []),
        ("cost", f"{format_si(cost['flops'], 'FLOP')} in {cost['wall_s']:.2f} s"),
        ("stages", " · ".join(f"{stage} {cost[f'{stage}_s']:.2f} s" for stage in stages)),
        ("read", read),
        ("memory", f"{format_si(memory, 'B')} at most" if memory else "not known"),
        ("patches", seen),
        *(("note", note) for note in header["notes"]),
        ("run", str(done.path)),
    )


def first_patch_error(done: Run) -> str:
    """Return why the first look failed that did."""
    patches = done.patches
    return str(patches.loc[patches["status"] == "failed", "error"].iloc[0])
