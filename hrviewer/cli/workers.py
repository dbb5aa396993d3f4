"""Options that say on which workers a batch or a run computes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ClusterOption", "CoresOption", "DevicesOption", "SchedulerOption", "WorkersOption"]

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes here; one per GPU, or per four cores, by default."),
]
CoresOption = Annotated[
    int | None, typer.Option(min=1, help="Cores of each image or input; an equal share by default.")
]
DevicesOption = Annotated[
    str | None, typer.Option(metavar="cuda:0,cuda:1", help="A worker here for each device.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="A running dask scheduler, as tcp://127.0.0.1:8786 or tls://…"
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.yaml", help="A cluster of dask-jobqueue or dask-kubernetes."),
]
