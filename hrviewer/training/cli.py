"""The command ``hrviewer-train BUNDLE ROLE``."""

from __future__ import annotations

import ctypes
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor

from hrviewer.errors import HrviewerError, ModelError, ParameterError
from hrviewer.models import ModelBundle, installed_bundles
from hrviewer.training.loop import StepCallback, train
from hrviewer.training.save_bundle import round_weights, write_role
from hrviewer.training.task import TaskSet, installed_task_sets

__all__ = ["main"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's ``malloc.h``."""


def train_model(
    bundle: Annotated[str, typer.Argument(help="Name of the model bundle.")],
    role: Annotated[str, typer.Argument(help="Role of the model: main, scout, …")],
    by: Annotated[
        str | None, typer.Option(help="Variant of the training task, if there is one: topk.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder, if the training task needs one.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the bundle to write; by default the installed one."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of steps; by default the task's own. 0 with --further only calibrates and "
            "evaluates.",
        ),
    ] = None,
    further: Annotated[
        bool, typer.Option(help="Start from the present weights, at a third of the learning rate.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of torch, next to the process that makes batches.")
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to resume from; by default next to the weights.")
    ] = None,
) -> None:
    """Train one model of a model bundle, and save it there with its card.

    If it is interrupted, the same command resumes it.
    """
    _retain_freed_memory()
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    task_set = _load_task_set(bundle)
    name = f"{role}/{by}" if by else role
    if name not in task_set.tasks:
        known = ", ".join(known.replace("/", " --by ") for known in task_set.tasks)
        raise ParameterError(f"{bundle} has no training task {name!r}: choose one of {known}")
    installed = installed_bundles()
    if out is None and bundle not in installed:
        raise ModelError(f"there is no model bundle {bundle!r}: install its plug-in, or give --out")
    folder = out or installed[bundle].folder
    # A bundle in another folder, without a main of its own, is trained from the installed main.
    has_main = bundle not in installed or (folder / "main.safetensors").exists()
    source = folder if has_main else installed[bundle].folder
    training_task = task_set.tasks[name](data, source)
    steps = training_task.steps if steps is None else steps
    if not steps and not further:
        raise ParameterError("0 steps train nothing: give --steps, or --further")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint or folder / f"{name.replace('/', '-')}.checkpoint"
    previous, weights = _previous_training(folder, role) if further else (None, None)

    with _step_progress(f"{bundle} {name}", steps) as report_step:
        model, minutes = train(
            training_task,
            checkpoint,
            steps=steps,
            seed=seed,
            device=device,
            initial_weights=weights,
            on_step=report_step,
        )
    factors = training_task.calibrate(model)
    round_weights(model)
    metrics = {**training_task.evaluate(model), **factors}
    options_by_name = {
        "--by": by,
        "--data": "DATA_FOLDER" if data else None,
        "--steps": steps,
        "--seed": seed,
    }
    options = [f"{k} {v}" for k, v in options_by_name.items() if v is not None] + [
        "--further"
    ] * further
    training = {
        **training_task.sources,
        "seed": seed,
        "steps": steps,
        "minutes": round(minutes, 1),
        "device": device,
        "threads": threads,
        "command": shlex.join(["hrviewer-train", bundle, role])
        + f" {' '.join(options)} --threads {threads}",
        **({"before": previous} if further else {}),
    }
    write_role(
        folder,
        bundle,
        task_set,
        role,
        model,
        training_task.card,
        training=training,
        metrics=metrics,
    )
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(metrics, indent=2))


@contextmanager
def _step_progress(title: str, steps: int) -> Iterator[StepCallback]:
    """Show a progress bar, and a line with the numbers of each validation."""
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
        task = bar.add_task(title, total=steps, loss=float("nan"))

        def report_step(step: int, loss: float, validation: dict[str, float] | None) -> None:
            bar.update(task, completed=step, loss=loss)
            if validation is not None:
                numbers = "  ".join(f"{name} {value:.4g}" for name, value in validation.items())
                line = f"step {step}/{steps}  loss {loss:.4f}  {numbers}"
                bar.console.print(line, highlight=False, soft_wrap=True)

        yield report_step


def _previous_training(folder: Path, role: str) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Return the card's record of a role's training, and its weights."""
    card = ModelBundle.read(folder).roles.get(role)
    if card is None:
        raise ModelError(f"{folder} has no {role} to start from: train one without --further")
    return card.training, load_file(folder / f"{role}.safetensors")


def _retain_freed_memory() -> None:
    """Keep freed memory for the next step, if the C library is glibc.

    Otherwise each step's tensors are returned to the system and allocated again, page by page,
    which took more time in training than the arithmetic.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 32 << 20)
            mallopt(M_TRIM_THRESHOLD, -1)


def _load_task_set(bundle: str) -> TaskSet:
    task_sets = installed_task_sets()
    if bundle not in task_sets:
        known = ", ".join(task_sets) or "none"
        raise ModelError(
            f"no training tasks are installed for {bundle!r} (known: {known}): install its plug-in"
        )
    return task_sets[bundle]()


def main() -> None:
    """Run the command; an error of the user is one line and exit status 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train_model)
    try:
        app()
    except HrviewerError as error:
        typer.echo(f"hrviewer-train: {error}", err=True)
        raise SystemExit(1) from None
