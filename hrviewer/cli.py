"""The command `hrviewer`: answers on standard output, all else on standard error.

Nothing heavy is imported before a command needs it, so that help comes at once. What a person can
mend ends in one line and status 1, wrong usage in status 2, Ctrl-C in 130.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.errors import UserError
from hrviewer.geometry import Rect

if TYPE_CHECKING:
    from hrviewer.engine import Control, Watch
    from hrviewer.models import Card, Network
    from hrviewer.pyramid import Pyramid
    from hrviewer.runs import Run

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run deep networks on gigapixel images: choose where the network looks, see what it saw "
    "and what every region cost.",
    epilog="Without a command, napari opens with the panel docked.",
)
models = typer.Typer(help="The networks: list what is installed, show a pack, check one.")
app.add_typer(models, name="models")


# What all commands share.


def command(group: typer.Typer, name: str | None = None, **settings: Any) -> Callable[..., Any]:
    """Register a function as a command that takes ``--debug`` and ends as the module says.

    Parameters
    ----------
    group : typer.Typer
        Where it belongs.
    name : str, optional
        What it is called; empty for the group itself.
    **settings
        Typer's.
    """
    option = typer.Option("--debug", help="Show the whole traceback of an error.")
    extra = {"context": typer.Context, "debug": Annotated[bool, option]}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(context: typer.Context, debug: bool, **kwargs: Any) -> None:
            root = context.find_root()
            root.obj = root.obj or debug  # before or after the command's name
            with guard(root.obj):
                # What stands for a group is done where no command of it is given.
                if context.invoked_subcommand is None:
                    function(**kwargs)

        signature = inspect.signature(function, eval_str=True)
        added = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
            )
            for key, annotation in extra.items()
        ]
        guarded.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *added]
        )
        if name == "":
            group.callback(invoke_without_command=True, **settings)(guarded)
        else:
            group.command(name, **settings)(guarded)
        return function

    return register


@contextmanager
def guard(debug: bool) -> Iterator[None]:
    """Turn errors into one line; let libraries be quiet."""
    if debug:
        yield
        return
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (typer.Exit, BrokenPipeError):
        raise
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        fail(f"{type(error).__name__}: {error} (not foreseen; --debug shows where)")
    finally:
        logging.getLogger().removeHandler(silent)


def tell(message: str) -> None:
    """Print one line to standard error."""
    typer.echo("hrviewer: " + " ".join(message.split()), err=True)


def fail(message: str) -> None:
    """Say in one line why, and end with status 1."""
    tell(message)
    raise typer.Exit(1) from None


def say(*lines: tuple[str, str]) -> None:
    """Print named lines to standard output, aligned."""
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"{name:{width}}  {text}".rstrip())


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def quantity(value: float, unit: str) -> str:
    """Return a number with a prefix: ``1.2 TFLOP``."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


def region_of(text: str) -> Rect:
    """Read ``y,x,h,w``."""
    try:
        region = Rect(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter(f"{text!r} is not y,x,h,w in level-0 pixels") from None
    if region.empty:
        raise typer.BadParameter(f"{text!r} has no pixels")
    return region


def budget_of(text: str | None) -> str | None:
    """Check the form of a budget."""
    if text is not None:
        from hrviewer.engine import Budget

        try:
            Budget.parse(text)
        except UserError as error:
            raise typer.BadParameter(str(error)) from None
    return text


def settings_of(items: list[str] | None) -> list[str]:
    """Check that all are ``key=value``."""
    for item in items or []:
        if not item.partition("=")[0].isidentifier() or "=" not in item:
            raise typer.BadParameter(f"{item!r} is not key=value")
    return items or []


class Precision(StrEnum):
    """Numbers that networks compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Cache(StrEnum):
    """Whether results of earlier runs are served."""

    use = "use"
    off = "off"


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Model = Annotated[
    str, typer.Option(help="A pack's name, its folder, or an .onnx or .safetensors file.")
]
Chosen = Annotated[str | None, typer.Option(help="As `run` takes it; chosen in the panel.")]


# Looking at images.


def version_of(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from hrviewer import __version__

        typer.echo(__version__)
        raise typer.Exit


@command(app, "")
def opened(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version_of, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Open napari."""
    show([], None, None)


@command(app)
def view(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    model: Chosen = None,
    strategy: Chosen = None,
    live: Annotated[bool, typer.Option("--live", help="Look at what is visible.")] = False,
) -> None:
    """Open images in napari, with the panel docked."""
    show(images, model, strategy, live=live)


def show(images: list[str], model: str | None, strategy: str | None, *, live: bool = False) -> None:
    """Open a window and wait until it is closed."""
    try:
        import qtpy.QtWidgets  # noqa: F401
    except ImportError as error:  # qtpy's own errors are import errors, too
        raise UserError(
            f"no Qt binding can be used ({type(error).__name__}): pip install 'hrviewer[qt]'"
        ) from None
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(map(os.environ.get, shown)):
        raise UserError(
            "there is no display (DISPLAY is not set): open a desktop session or use xvfb-run; "
            "`hrviewer run` needs none"
        )
    import napari
    from napari.layers import Layer

    from hrviewer.pyramid import open_pyramid
    from hrviewer.viewer.levels import image_layer
    from hrviewer.viewer.view import view

    opened = view(images[0] if images else None, model=model, strategy=strategy, live=live)
    for image in images[1:]:
        opened.viewer.add_layer(Layer.create(*image_layer(open_pyramid(image))))
    napari.run()


@command(app)
def info(image: str, as_json: Json = False) -> None:
    """Say what an image is, and whether it can be read."""
    from hrviewer.pyramid import open_pyramid

    with open_pyramid(image) as pyramid:
        pyramid.check()
        found = about(pyramid)
    if as_json:
        say_json(found)
        return
    (height, width), size = found["shape"], found["pixel_size"]
    levels = [
        f"{level['shape'][0]} × {level['shape'][1]}, 1/{level['downsample'][0]:.6g}, "
        f"tiles of {level['tile'][0]} × {level['tile'][1]}"
        for level in found["levels"]
    ]
    say(
        ("image", found["path"] or found["name"]),
        ("size", f"{height} × {width} pixels (height × width), {height * width / 1e6:,.1f} MP"),
        ("pixels", f"{found['channels']} × {found['dtype']}"),
        ("pixel size", "unknown" if size is None else f"{size[0]:.4g} × {size[1]:.4g} µm"),
        ("no data", "none" if found["nodata"] is None else f"{found['nodata']}"),
        *((f"level {i}", level) for i, level in enumerate(levels)),
        ("fingerprint", found["fingerprint"]),
        *(("note", note) for note in found["notes"]),
    )


def about(pyramid: Pyramid) -> dict[str, Any]:
    """Return what `info` says of an image."""
    nodata = pyramid.nodata
    return {
        "path": pyramid.path,
        "name": pyramid.name,
        "shape": list(pyramid.shape),
        "channels": pyramid.channels,
        "dtype": str(pyramid.dtype),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        # NaN is no JSON.
        "nodata": str(nodata) if nodata != nodata else nodata,
        "levels": [
            {
                "shape": list(level.shape[:2]),
                "downsample": list(level.downsample),
                "tile": list(level.tile),
            }
            for level in pyramid.levels
        ],
        "fingerprint": pyramid.fingerprint,
        "notes": pyramid.notes,
    }


# Running.


@command(app)
def run(
    image: str,
    model: Model,
    strategy: Annotated[str, typer.Option(help="Where to look; see `hrviewer strategies`.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=settings_of,
            help="A parameter of the strategy; may be given again.",
        ),
    ] = None,
    region: Annotated[
        Rect | None,
        typer.Option(parser=region_of, metavar="Y,X,H,W", help="Only this part, level-0 pixels."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(callback=budget_of, help="What may be spent: 2TFLOP, 30s or 500patches."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what the strategy draws at random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 is quicker and less exact: the run says how much.")
    ] = Precision.float32,
    cache: Annotated[
        Cache, typer.Option(help="Whether results of earlier runs are served.")
    ] = Cache.use,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN.run.zarr", help="Where to keep it; the data folder otherwise."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Run a strategy on an image; Ctrl-C stops it, and it can be resumed."""
    from hrviewer import runs
    from hrviewer.strategies import get_strategy

    if resume and out is None:
        raise UserError("--resume needs --out: say which run to go on with")
    values = dict(item.split("=", 1) for item in settings or [])
    chosen = get_strategy(strategy)
    params = runs.parse_params(chosen, values).model_dump()
    with stoppable() as control, progress() as watch:
        done = runs.run(
            image,
            model,
            chosen,
            region=region,
            budget=budget,
            seed=seed,
            device=device,
            precision=precision.value,
            cache=cache.value,
            out=out,
            resume=resume,
            watch=watch,
            control=control,
            **params,
        )
    if as_json:
        say_json(done.header)
    else:
        summarize(done)
    looks = done.header["patches"]
    if not done.complete:
        tell(f"stopped; what was seen is kept: the same with --out {done.path} --resume goes on")
        raise typer.Exit(130)
    if looks["failed"] and looks["failed"] == looks["planned"]:
        raise UserError(f"every look failed, the first: {first_error(done)}")


def summarize(done: Run) -> None:
    """Print what a run came to."""
    from hrviewer.runs import sentence

    header, cost, looks = done.header, done.cost, done.header["patches"]
    stages = ("read", "prepare", "infer", "post")
    seen = f"{looks['done'] + looks['cached']} of {looks['planned']}"
    if looks["cached"]:
        seen += f", {looks['cached']} of them by earlier runs"
    if looks["failed"]:
        seen += f", {looks['failed']} failed, the first: {first_error(done)}"
    read = f"{quantity(cost['bytes_read'], 'B')}, {quantity(cost['pixels_read'], 'px')}"
    memory = cost["peak_rss_bytes"]
    say(
        ("image", header["image"]["path"]),
        ("how", f"{header['strategy']} with {header['model']} on {header['device']}"),
        ("answer", sentence(done.estimate)),
        ("cost", f"{quantity(cost['flops'], 'FLOP')} in {cost['wall_s']:.2f} s"),
        ("stages", " · ".join(f"{stage} {cost[f'{stage}_s']:.2f} s" for stage in stages)),
        ("read", read),
        ("memory", f"{quantity(memory, 'B')} at most" if memory else "not known"),
        ("patches", seen),
        *(("note", note) for note in header["notes"]),
        ("run", str(done.path)),
    )


def first_error(done: Run) -> str:
    """Return why the first look failed that did."""
    patches = done.patches
    return str(patches.loc[patches["status"] == "failed", "error"].iloc[0])


@contextmanager
def stoppable() -> Iterator[Control]:
    """Let the first Ctrl-C stop a run in good order, and the second one at once."""
    from hrviewer.engine import Control

    control = Control()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        control.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield control
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress() -> Iterator[Watch | None]:
    """Show how far a run has come, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from hrviewer.engine import Progress

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)

        def watch(update: object) -> None:
            if isinstance(update, Progress):
                bar.update(
                    task,
                    completed=update.done,
                    total=update.asked,
                    description=quantity(update.flops, "FLOP"),
                )

        yield watch


@command(app)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where; nothing may be there yet.")],
    to: Annotated[
        str | None, typer.Option(help="geojson or ome-zarr; by the name's ending otherwise.")
    ] = None,
) -> None:
    """Write a run as GeoJSON (patches) or OME-Zarr (maps)."""
    from hrviewer.exchange import export
    from hrviewer.runs import Run

    typer.echo(export(Run(run), out, to))


# What there is to choose from.


@command(app)
def strategies(as_json: Json = False) -> None:
    """List the strategies: where a network can look."""
    from hrviewer.strategies import get_strategy, strategy_ids

    found = [get_strategy(name) for name in strategy_ids()]
    if as_json:
        say_json(
            [
                {
                    "id": strategy.id,
                    "title": strategy.title,
                    "family": strategy.family,
                    "when": strategy.when,
                    "roles": strategy.roles,
                    "default_budget": strategy.default_budget,
                    "params": strategy.Params.model_json_schema(),
                }
                for strategy in found
            ]
        )
        return
    for strategy in found:
        typer.echo(f"{strategy.id}  {strategy.title} ({strategy.family})\n    {strategy.when}")
        for name, field in strategy.Params.model_fields.items():
            typer.echo(f"    --set {name}={field.default}  {field.description or ''}")


@command(models, "")
@command(models, "list")
def listed() -> None:
    """List the installed packs and their roles."""
    from hrviewer.models import installed_packs

    packs = installed_packs()
    for name, installed in packs.items():
        try:
            pack = installed.load()
        except UserError as error:
            tell(str(error))
            continue
        typer.echo(f"{name}  {pack.title} ({', '.join(pack.roles)})")
    if not packs:
        tell("no pack is installed: install a plug-in that brings one, or give a network's file")


@command(models, "show")
def shown(model: Annotated[str, typer.Argument(metavar="M")]) -> None:
    """Show a pack's networks: what goes in, what comes out, whose they are."""
    from hrviewer.models import open_pack

    pack = open_pack(model)
    say(("pack", pack.name), ("title", pack.title), ("about", pack.description))
    for role, card in pack.roles.items():
        typer.echo()
        say(("role", role), *describe(card))


def describe(card: Card) -> list[tuple[str, str]]:
    """Return a card in lines."""
    it, out = card.input, card.output
    size = f", pixels of {it.pixel_size:g} µm" if it.pixel_size else ""
    width = f"{out.width} values" if out.width else ", ".join(out.classes)
    return [
        ("name", card.name),
        ("title", card.title),
        ("task", card.task),
        ("takes", f"{it.channels}, tiles of {it.tile}{' only' if it.fixed else ''}{size}"),
        ("gives", f"{width}; a value per {out.stride} pixels"),
        ("licence", card.licence or "not said"),
        ("citation", card.citation or "not said"),
    ]


@command(models, "check")
def checked(path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
    """Load every network of a pack and see whether its card tells the truth."""
    from hrviewer.models import open_pack

    pack = open_pack(path)
    lies = 0
    for role in pack.roles:
        try:
            network = pack.load(role)
        except UserError as error:
            tell(f"{role}: {error}")
            lies += 1
        else:
            typer.echo(f"{role}: {measured(network)}")
    if lies:
        raise typer.Exit(1)


def measured(network: Network) -> str:
    """Return what was found out about a network."""
    tile = network.card.input.tile
    flops = network.join_flops(1) if network.joint else network.flops(tile, tile)
    return (
        f"{network.card.name}, stride {network.stride}, halo {network.halo}, "
        f"{quantity(flops / tile**2, 'FLOP')} per pixel, {network.backend} on {network.device}"
    )


def main() -> None:
    """Run the command."""
    app()
