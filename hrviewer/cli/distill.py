"""Command ``distill``: training of the roles that a user's model lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hrviewer.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    SeedOption,
    TrustOption,
    app,
    command,
    open_model,
    print_json,
    print_rows,
)

__all__ = ["distill"]


@command(app)
def distill(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE…", help="Images of the kind it is used on.")
    ],
    model: ModelOption,
    roles: Annotated[
        str,
        typer.Option(metavar="R,…", help="scout, scanner, encoder (with its head), transformer."),
    ] = "scout,scanner",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of the new bundle; by default one found by its name."
        ),
    ] = None,
    squares: Annotated[
        int, typer.Option(min=4, help="Number of squares of the images that are learned from.")
    ] = 256,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each role; by default 1500.")
    ] = None,
    downsample: Annotated[
        int | None,
        typer.Option(help="Downsampling of the scout's input: 2, 4 or 8, the default."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a scout, scanner, encoder or transformer from a model, on images without labels.

    Without these roles five of the seven strategies cannot use the model. The result is a model
    bundle, with the model itself; interrupted, the same command goes on.
    """
    from dataclasses import asdict

    from hrviewer.training.distill import RoleName
    from hrviewer.training.distill import distill as distill_model

    with step_progress() as report:
        made = distill_model(
            open_model(model, trust),
            images,
            roles=cast("list[RoleName]", [role.strip() for role in roles.split(",")]),
            out=out,
            squares=squares,
            steps=steps,
            downsample=downsample,
            seed=seed,
            device=device,
            on_progress=report,
        )
    if as_json:
        print_json(
            {"path": str(made.path), "name": made.name}
            | {"roles": {name: asdict(role) for name, role in made.roles.items()}}
        )
        return
    print_rows(
        *((name, f"{role.verdict} ({role.minutes:.0f} min)") for name, role in made.roles.items()),
        ("use", f"--model {made.name if out is None else made.path}"),
    )


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on standard error, a line for each phase."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        rows: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in rows:
                rows[phase] = bar.add_task(phase, total=total)
            bar.update(rows[phase], completed=done)

        yield report
