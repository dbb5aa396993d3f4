"""Command ``run``: inference on an image with a strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    CacheMode,
    CacheOption,
    ChannelsOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PixelSizeOption,
    PlaneOption,
    RangeOption,
    SeedOption,
    SeriesOption,
    TrustOption,
    app,
    check_budget,
    check_settings,
    command,
    image_options,
    interruptible,
    open_model,
    parse_region_or_file,
    print_json,
    print_message,
    print_rows,
)
from hrviewer.cli.workers import ClusterOption, CoresOption, SchedulerOption, WorkersOption
from hrviewer.errors import ParameterError, RunError
from hrviewer.units import format_si

if TYPE_CHECKING:
    from hrviewer.engine import DeviceScheduler
    from hrviewer.runs import Run

__all__ = ["run"]


class Precision(StrEnum):
    """Number format of inference."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


TissueOption = Annotated[
    str,
    typer.Option(
        metavar="auto|off|FILE",
        help="Leave out all but tissue: found on a coarse level, or a file of outlines.",
    ),
]


SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=check_settings,
        help="A parameter of the strategy; may be repeated.",
    ),
]


@command(app)
def run(
    image: str,
    strategy: Annotated[
        str, typer.Option(help="Inference strategy; `hrviewer strategies` lists them.")
    ],
    model: ModelOption = None,
    trust: TrustOption = False,
    settings: SettingsOption = None,
    region: Annotated[
        Any,  # a rectangle or a path: typer does not support unions
        typer.Option(
            parser=parse_region_or_file,
            metavar="Y,X,H,W|FILE",
            help="Region of interest in level-0 pixels, or a file of regions: what is inside their "
            "outlines counts.",
        ),
    ] = None,
    tissue: TissueOption = "off",
    series: SeriesOption = None,
    plane: PlaneOption = None,
    channels: ChannelsOption = None,
    pixel_size: PixelSizeOption = None,
    value_range: RangeOption = None,
    budget: Annotated[
        str | None,
        typer.Option(callback=check_budget, help="Compute budget: 2TFLOP, 30s, 500patches or 10%."),
    ] = None,
    seed: SeedOption = 0,
    priors: Annotated[
        list[str] | None,
        typer.Option(
            "--prior",
            metavar="NAME=FILE",
            callback=check_settings,
            help="A prior map for the strategy: saliency=IMAGE or density=RUN.run.zarr.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|auto", help="Ground truth file, or auto for synthetic images."
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        Precision,
        typer.Option(help="Lower precision is faster; its error on this image is reported."),
    ] = Precision.float32,
    cache: CacheOption = CacheMode.use,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.run.zarr", help="Folder of the run; in the data folder by default."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    workers: WorkersOption = None,
    cores: CoresOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run inference on an image; Ctrl-C stops it, --resume continues it.

    The exit status is 3 if patches failed or the image changed: the result is incomplete.
    """
    from hrviewer import runs
    from hrviewer.strategies import get_strategy

    if resume and out is None:
        raise ParameterError("--resume needs --out: name the run to resume")
    values = dict(item.split("=", 1) for item in settings or [])
    chosen = get_strategy(strategy)
    params = runs.parse_params(chosen, values).model_dump()
    places = {"workers": workers, "cores": cores, "scheduler": scheduler, "cluster": cluster}
    with interruptible() as control, pool_of(model, trust, places) as pool:
        result = runs.run(
            image,
            open_model(model, trust),
            chosen,
            **image_options(series, plane, channels, pixel_size, value_range),
            region=region,
            tissue=tissue,
            budget=budget,
            seed=seed,
            priors=dict(item.split("=", 1) for item in priors or []),
            device=device,
            precision=precision.value,
            cache=cache.value,
            out=out,
            resume=resume,
            truth=truth,
            control=control,
            scheduler=pool,
            params=params,
        )
    if as_json:
        print_json(result.header)
    else:
        print_summary(result)
    patches = result.header["patches"]
    if result.complete:
        return
    if control.stopped:
        print_message(
            f"stopped; partial results are saved: resume with --out {result.path} --resume"
        )
        raise typer.Exit(130)
    if patches["failed"] and patches["failed"] == patches["planned"]:
        raise RunError(f"inference failed on every patch, the first: {first_patch_error(result)}")
    print_message(f"incomplete: {result.incomplete}")
    raise typer.Exit(3)


@contextmanager
def pool_of(
    model: str | None, trust: bool, places: Mapping[str, Any]
) -> Iterator[DeviceScheduler | None]:
    """Start or connect to the workers of a run, if there are to be any."""
    if not any(places.values()):
        yield None
        return
    from hrviewer.batch import inference_pool
    from hrviewer.models import no_model_error

    if model is None:
        raise no_model_error()
    with inference_pool(model, trust=trust, **places) as pool:
        yield pool


def print_summary(run: Run) -> None:
    """Print the estimate and the cost of a run."""
    from hrviewer.runs import format_estimate, format_evaluation
    from hrviewer.runs.region_table import describe_region

    header, cost, patches = run.header, run.header["cost"], run.header["patches"]
    stages = ("read", "prepare", "infer", "post")
    progress = f"{patches['done'] + patches['cached']:,} of {patches['planned']:,}"
    if patches["cached"]:
        progress += f", {patches['cached']:,} of them cached"
    if patches["failed"]:
        progress += f", {patches['failed']:,} failed"
    memory = cost["peak_rss_bytes"]
    print_rows(
        ("image", header["image"]["path"]),
        ("strategy", header["strategy"]),
        ("model", f"{header['model']} on {header['device']}"),
        ("estimate", format_estimate(run.estimate)),
        *((row["name"], describe_region(row, run.pixel_size)) for row in header.get("regions", ())),
        *([("incomplete", run.incomplete)] if run.incomplete else []),
        *([("coverage", f"{run.coverage:g} % of the region")] if run.coverage < 100 else []),
        *([("ground truth", format_evaluation(run.evaluation))] if run.evaluation else []),
        *([("chosen", format_chosen(header["chosen"]))] if header.get("chosen") else []),
        ("cost", f"{format_si(cost['flops'], 'FLOP')} in {cost['wall_s']:.2f} s"),
        *(
            [("", f"{run.of_once_per_pixel:.3g} of the model once per pixel")]
            if run.of_once_per_pixel is not None
            else []
        ),
        ("time", " · ".join(f"{stage} {cost[f'{stage}_s']:.2f} s" for stage in stages)),
        (
            "read",
            f"{format_si(cost['bytes_read'], 'B')}, {format_si(cost['pixels_read'], 'px')}",
        ),
        ("memory", f"peak {format_si(memory, 'B')}" if memory else "unknown"),
        ("patches", progress),
        *(("note", note) for note in header["notes"]),
        ("run", str(run.path)),
    )


def format_chosen(chosen: Mapping[str, Any]) -> str:
    """Return what a strategy chose for automatic parameters."""
    return " ".join(f"{name}={value}" for name, value in chosen.items())


def first_patch_error(run: Run) -> str:
    """Return the error of the first failed patch."""
    patches = run.patches
    return str(patches.loc[patches["status"] == "failed", "error"].iloc[0])
