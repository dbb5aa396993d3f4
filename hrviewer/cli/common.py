"""What all commands share: how they are registered, how they end, what they print.

Nothing heavy is imported before a command needs it, so that help comes at once. What a person can
mend ends in one line and status 1, wrong usage in status 2, Ctrl-C in 130.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect

if TYPE_CHECKING:
    from hrviewer.engine import RunControl

__all__ = [
    "CacheMode",
    "CacheOption",
    "DeviceOption",
    "JsonOption",
    "ModelOption",
    "SeedOption",
    "app",
    "check_budget",
    "check_settings",
    "command",
    "interruptible",
    "parse_region",
    "parse_region_or_file",
    "print_json",
    "print_message",
    "print_rows",
]


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run deep networks on gigapixel images: choose where the network looks, see what it saw "
    "and what every region cost.",
    epilog="Without a command, napari opens with the panel docked.",
)


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
            with report_errors(root.obj):
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
def report_errors(debug: bool) -> Iterator[None]:
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
    except HrviewerError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        fail(f"{type(error).__name__}: {error} (not foreseen; --debug shows where)")
    finally:
        logging.getLogger().removeHandler(silent)


def print_message(message: str) -> None:
    """Print one line to standard error."""
    typer.echo("hrviewer: " + " ".join(message.split()), err=True)


def fail(message: str) -> None:
    """Say in one line why, and end with status 1."""
    print_message(message)
    raise typer.Exit(1) from None


def print_rows(*lines: tuple[str, str]) -> None:
    """Print named lines to standard output, aligned."""
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        typer.echo(f"{name:{width}}  {text}".rstrip())


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def parse_region(text: str) -> Rect:
    """Read ``y,x,h,w``."""
    try:
        region = Rect(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter(f"{text!r} is not y,x,h,w in level-0 pixels") from None
    if region.empty:
        raise typer.BadParameter(f"{text!r} has no pixels")
    return region


def parse_region_or_file(text: str) -> Rect | Path:
    """Read ``y,x,h,w``, or the name of a file that marks it, which is read with the image."""
    return Path(text) if Path(text).suffix and "," not in text else parse_region(text)


def check_budget(text: str | None) -> str | None:
    """Check the form of a budget."""
    if text is not None:
        from hrviewer.engine import Budget

        try:
            Budget.parse(text)
        except HrviewerError as error:
            raise typer.BadParameter(str(error)) from None
    return text


def check_settings(items: list[str] | None) -> list[str]:
    """Check that all are ``key=value``."""
    for item in items or []:
        if not item.partition("=")[0].isidentifier() or "=" not in item:
            raise typer.BadParameter(f"{item!r} is not key=value")
    return items or []


@contextmanager
def interruptible() -> Iterator[RunControl]:
    """Let the first Ctrl-C stop a run in good order, and the second one at once."""
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
    """Whether results of earlier runs are served."""

    use = "use"
    off = "off"


CacheOption = Annotated[CacheMode, typer.Option(help="Whether results of earlier runs are served.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
ModelOption = Annotated[
    str,
    typer.Option(
        help="A pack's name, its folder, or an .onnx or .safetensors file; several joined by +."
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of what is drawn at random.")]
Chosen = Annotated[str | None, typer.Option(help="As `run` takes it; chosen in the panel.")]
