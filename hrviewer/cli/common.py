"""Common parts of all commands: registration, errors, logging, options and output.

Heavy packages are imported only by the commands that need them, so that help is fast. Exit status:
1 for errors, reported in one line; 2 for wrong usage; 3 for an incomplete run; 130 after Ctrl-C.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hrviewer.errors import HrviewerError, write_error
from hrviewer.escaping import printable
from hrviewer.geometry import Rect

if TYPE_CHECKING:
    from hrviewer.engine import RunControl

__all__ = [
    "CacheMode",
    "CacheOption",
    "ChannelsOption",
    "DeviceOption",
    "JsonOption",
    "ModelOption",
    "PixelSizeOption",
    "PlaneOption",
    "RangeOption",
    "SeedOption",
    "SeriesOption",
    "TrustOption",
    "app",
    "check_budget",
    "check_model",
    "check_settings",
    "command",
    "image_options",
    "interruptible",
    "open_model",
    "parse_region",
    "parse_region_or_file",
    "print_json",
    "print_message",
    "print_path",
    "print_rows",
]


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Efficient inference on gigapixel images: run a model with a strategy, and view its "
    "predictions and the compute cost of every region.",
    epilog="Without a command, napari opens with the panel.",
)


def command(group: typer.Typer, name: str | None = None, **settings: Any) -> Callable[..., Any]:
    """Register a function as a command with ``--debug``, ``--verbose`` and ``--log``.

    Parameters
    ----------
    group : typer.Typer
        Group of the command.
    name : str, optional
        Name of the command; empty for the group itself.
    **settings
        Passed to typer.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(
            context: typer.Context, debug: bool, verbose: bool, log: Path | None, **kwargs: Any
        ) -> None:
            # The options are accepted before and after the command's name.
            root = context.find_root()
            earlier: Diagnostics = root.obj or Diagnostics()
            root.obj = diagnostics = Diagnostics(
                earlier.debug or debug, earlier.verbose or verbose, log or earlier.log
            )
            with report_errors(diagnostics.debug), logging_to(diagnostics.verbose, diagnostics.log):
                # A group's own function runs only without a command of the group.
                if context.invoked_subcommand is None:
                    function(**kwargs)

        signature = inspect.signature(function, eval_str=True)
        added = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for key, (annotation, default) in COMMON_OPTIONS.items()
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


class Diagnostics(NamedTuple):
    """Options of every command."""

    debug: bool = False
    verbose: bool = False
    log: Path | None = None


COMMON_OPTIONS: dict[str, tuple[Any, Any]] = {
    "context": (typer.Context, None),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
        False,
    ),
    "verbose": (
        Annotated[bool, typer.Option("--verbose", help="Print log messages to standard error.")],
        False,
    ),
    "log": (
        Annotated[
            Path | None,
            typer.Option("--log", metavar="FILE", help="Append detailed log messages to a file."),
        ],
        None,
    ),
}


class StderrHandler(logging.StreamHandler[Any]):
    """Log handler for the current standard error, which progress bars replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """The current standard error."""
        return sys.stderr


@contextmanager
def logging_to(verbose: bool, log: Path | None) -> Iterator[None]:
    """Send log messages of hrviewer to standard error, a file, both or neither.

    Parameters
    ----------
    verbose : bool
        Print messages from level INFO to standard error.
    log : Path, optional
        File to which messages from level DEBUG are appended.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    logger = logging.getLogger("hrviewer")
    handlers: list[logging.Handler] = []
    if verbose:
        handlers.append(StderrHandler())
        handlers[-1].setLevel(logging.INFO)
    if log is not None:
        try:
            handlers.append(logging.FileHandler(log.expanduser(), encoding="utf-8"))
        except OSError as error:
            raise write_error(log, error) from None
    if not handlers:
        yield
        return
    level = logger.level
    logger.setLevel(logging.DEBUG if log is not None else logging.INFO)
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    logger.info("hrviewer %s: %s", version("hrviewer"), " ".join(sys.argv[1:]))
    try:
        yield
    except typer.Exit:
        raise
    except Exception:
        logger.exception("the command failed")
        raise
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


@contextmanager
def report_errors(debug: bool) -> Iterator[None]:
    """Report errors in one line; silence warnings and logs of other packages."""
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
    except HrviewerError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except MemoryError:
        fail("there is not enough memory: choose a smaller region, or close other programs")
    except Exception as error:
        fail(f"{type(error).__name__}: {error} (unexpected: --debug shows the traceback)")
    finally:
        logging.getLogger().removeHandler(silent)


def print_message(message: str) -> None:
    """Print a message to standard error on one line."""
    typer.echo("hrviewer: " + printable(" ".join(message.split())), err=True)


def fail(message: str) -> None:
    """Print an error on one line and exit with status 1."""
    print_message(message)
    raise typer.Exit(1) from None


def print_rows(*lines: tuple[str, str]) -> None:
    """Print names and values to standard output, aligned."""
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(printable(f"{name:{width}}  {text}".rstrip()))


def print_path(path: Path) -> None:
    """Print a path."""
    typer.echo(printable(str(path)))


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo("\n".join(map(printable, text.split("\n"))))


def parse_region(text: str) -> Rect:
    """Parse ``y,x,h,w``."""
    try:
        region = Rect(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter(f"{text!r} is not y,x,h,w in level-0 pixels") from None
    if region.empty:
        raise typer.BadParameter(f"{text!r} is empty: its height and width must be positive")
    return region


def parse_region_or_file(text: str) -> Rect | Path:
    """Parse ``y,x,h,w`` or the path of a file of shapes, which is read when the image is open."""
    return Path(text) if Path(text).suffix and "," not in text else parse_region(text)


def check_budget(text: str | None) -> str | None:
    """Validate a budget."""
    if text is not None:
        from hrviewer.engine import Budget

        try:
            Budget.parse(text)
        except HrviewerError as error:
            raise typer.BadParameter(str(error)) from None
    return text


def check_model(model: Any) -> Any:
    """Report a missing model, with the installed ones."""
    if not model:
        from hrviewer.models import no_model_error

        raise typer.BadParameter(str(no_model_error()))
    return model


def open_model(model: Any, trust: bool) -> Any:
    """Return a model's bundle if the user trusts its code; its name otherwise, to open later."""
    if not trust or model is None:
        return model
    from hrviewer.models import open_bundle

    return open_bundle(model, trust=True)


def check_settings(items: list[str] | None) -> list[str]:
    """Check that all items are ``key=value``."""
    for item in items or []:
        if not item.partition("=")[0].isidentifier() or "=" not in item:
            raise typer.BadParameter(f"{item!r} is not key=value")
    return items or []


def parse_plane(text: str) -> dict[str, int]:
    """Parse ``axis=index``, several separated by commas."""
    plane = {}
    for part in text.split(","):
        axis, _, index = part.strip().partition("=")
        if not axis.isidentifier() or not index.strip().isdecimal():
            raise typer.BadParameter(f"{text!r} is not axis=index, as z=3 or z=3,t=0")
        plane[axis] = int(index)
    return plane


def parse_channels(text: str) -> list[str]:
    """Parse names and indices separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise typer.BadParameter(f"{text!r} is not a list of channels, as DAPI,Cy5 or 0,2")
    return parts


def parse_pixel_size(text: str) -> tuple[float, float]:
    """Parse micrometres per pixel, one number or ``y,x``."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not all(0 < size < float("inf") for size in sizes):
        raise typer.BadParameter(f"{text!r} is not a pixel size in µm, as 0.25 or 0.25,0.5")
    return sizes[0], sizes[-1]


def parse_range(text: str) -> tuple[float, float]:
    """Parse the ends of a range, ``low,high``."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = float("nan")
    if not float("-inf") < low < high < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a range of pixel values, as 0,4095")
    return low, high


def image_options(
    series: str | None,
    plane: list[dict[str, int]] | None,
    channels: list[str] | None,
    pixel_size: tuple[float, float] | None,
    value_range: tuple[float, float] | None,
) -> dict[str, Any]:
    """Return the given options of an image as keywords of `hrviewer.open`."""
    options = {
        "series": series,
        "plane": {axis: index for part in plane or [] for axis, index in part.items()},
        "channels": channels,
        "pixel_size": pixel_size,
        "value_range": value_range,
    }
    return {name: value for name, value in options.items() if value}


@contextmanager
def interruptible() -> Iterator[RunControl]:
    """Stop a run after the current batch at the first Ctrl-C, and at once at the second."""
    from hrviewer.engine import RunControl

    control = RunControl()

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        control.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield control
    finally:
        signal.signal(signal.SIGINT, before)


class CacheMode(StrEnum):
    """Use of cached predictions."""

    use = "use"
    off = "off"


CacheOption = Annotated[
    CacheMode, typer.Option(help="Whether to reuse predictions of earlier runs.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        callback=check_model,
        help="Name, file or folder of a model; several as main=A,scout=B, or joined by +.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Open models that can run code (TorchScript, torch.export); only from a source that "
        "you trust.",
    ),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID|NAME",
        help="Which image of a file or folder with several; `hrviewer info` lists them.",
    ),
]
PlaneOption = Annotated[
    list[Any] | None,  # mappings: typer does not support them in lists
    typer.Option(
        "--plane",
        metavar="AXIS=INDEX,…",
        parser=parse_plane,
        help="Index along further axes of the image, as z=3,t=0; may be repeated.",
    ),
]
ChannelsOption = Annotated[
    Any,
    typer.Option(
        "--channels",
        metavar="NAME|INDEX,…",
        parser=parse_channels,
        help="Channels to use, in this order, as DAPI,Cy5 or 0,2; all by default.",
    ),
]
PixelSizeOption = Annotated[
    Any,
    typer.Option(
        "--pixel-size",
        metavar="UM|Y,X",
        parser=parse_pixel_size,
        help="Pixel size in µm, instead of the file's.",
    ),
]
RangeOption = Annotated[
    Any,
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        parser=parse_range,
        help="Pixel values that the model gets as 0 and 255, as 0,4095 for 12 bits; otherwise "
        "the model's, the file's or those of a sample.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Random seed.")]
