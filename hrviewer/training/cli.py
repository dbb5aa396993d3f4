"""The command ``hrviewer-train PACK ROLE``."""

from __future__ import annotations

import ctypes
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelBundle, installed_bundles
from hrviewer.training.loop import train
from hrviewer.training.save_bundle import round_weights, write_role
from hrviewer.training.task import TaskSet, installed_task_sets

__all__ = ["main"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``malloc.h``."""


def train_model(
    pack: Annotated[str, typer.Argument(help="The pack's name.")],
    role: Annotated[str, typer.Argument(help="Which of its networks: main, scout, …")],
    by: Annotated[
        str | None, typer.Option(help="Another way to teach it, where there is one: topk.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of data, where the lesson needs one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the pack is written; by default where it is.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many; by default the lesson's own number. 0 with --further only sets anew "
            "what is set after learning, and examines.",
        ),
    ] = None,
    further: Annotated[
        bool, typer.Option(help="Go on from the weights that are there, at a third of the rate.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="What all chance is drawn from.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Beside the process that makes batches.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where to go on from; by default beside the weights.")
    ] = None,
) -> None:
    """Teach one network of a pack, and write it there with its card.

    Interrupted, the same command goes on where it was.
    """
    _retain_freed_memory()
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    course = _load_task_set(pack)
    name = f"{role}/{by}" if by else role
    if name not in course.tasks:
        known = ", ".join(known.replace("/", " --by ") for known in course.tasks)
        raise HrviewerError(f"{pack} has no lesson for {name!r}: choose one of {known}")
    packs = installed_bundles()
    if out is None and pack not in packs:
        raise HrviewerError(f"no pack is named {pack!r}: install its plug-in, or give --out")
    folder = out or packs[pack].folder
    # What is written elsewhere, without a main of its own, learns from the one that is installed.
    own = pack not in packs or (folder / "main.safetensors").exists()
    source = folder if own else packs[pack].folder
    lesson = course.tasks[name](data, source)
    steps = lesson.steps if steps is None else steps
    if not steps and not further:
        raise HrviewerError("0 steps teach nothing: give --steps, or --further")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint or folder / f"{name.replace('/', '-')}.checkpoint"
    learned, weights = _previous_training(folder, role) if further else (None, None)

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("loss {task.fields[loss]:.4f}"),
        console=Console(stderr=True),
        speed_estimate_period=300,
    )
    with bar:
        task = bar.add_task(f"{pack} {name}", total=steps, loss=float("nan"))

        def watch(step: int, loss: float, figures: dict[str, float] | None) -> None:
            bar.update(task, completed=step, loss=loss)
            if figures is not None:
                said = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                line = f"step {step}/{steps}  loss {loss:.4f}  {said}"
                bar.console.print(line, highlight=False, soft_wrap=True)

        network, minutes = train(
            lesson,
            checkpoint,
            steps=steps,
            seed=seed,
            device=device,
            initial_weights=weights,
            on_step=watch,
        )
    set_by = lesson.calibrate(network)
    round_weights(network)
    metrics = {**lesson.evaluate(network), **set_by}
    given = {
        "--by": by,
        "--data": "DATA_FOLDER" if data else None,
        "--steps": steps,
        "--seed": seed,
    }
    options = [f"{k} {v}" for k, v in given.items() if v is not None] + ["--further"] * further
    training = {
        **lesson.sources,
        "seed": seed,
        "steps": steps,
        "minutes": round(minutes, 1),
        "device": device,
        "threads": threads,
        "command": shlex.join(["hrviewer-train", pack, role])
        + f" {' '.join(options)} --threads {threads}",
        **({"before": learned} if further else {}),
    }
    write_role(folder, pack, course, role, network, lesson.card, training=training, metrics=metrics)
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(metrics, indent=2))


def _previous_training(folder: Path, role: str) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Return what a pack says of how a role was taught, and its weights."""
    card = ModelBundle.read(folder).roles.get(role)
    if card is None:
        raise HrviewerError(f"{folder} has no {role} to go on from: teach one without --further")
    return card.training, load_file(folder / f"{role}.safetensors")


def _retain_freed_memory() -> None:
    """Have freed memory kept for the next step, where the C library is glibc.

    Otherwise each step's tensors are given back and fetched anew, page by page: in training that
    took more time than the arithmetic.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 32 << 20)
            mallopt(M_TRIM_THRESHOLD, -1)


def _load_task_set(pack: str) -> TaskSet:
    courses = installed_task_sets()
    if pack not in courses:
        known = ", ".join(courses) or "none"
        raise HrviewerError(
            f"no lessons are installed for {pack!r} (known: {known}): install its plug-in"
        )
    return courses[pack]()


def main() -> None:
    """Run the command; what a person can mend ends in one line and status 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train_model)
    try:
        app()
    except HrviewerError as error:
        typer.echo(f"hrviewer-train: {error}", err=True)
        raise SystemExit(1) from None
