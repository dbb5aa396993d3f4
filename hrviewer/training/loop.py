"""Training loop of all tasks: an interrupted training resumes exactly from its checkpoint.

AdamW with one cycle of the learning rate, bfloat16 where the hardware supports it, and a running
mean of the weights, which is the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset

from hrviewer.errors import ParameterError
from hrviewer.training.task import TrainingTask

__all__ = ["train"]

CHECKPOINT_EVERY = 100
"""Steps between checkpoints."""
VALIDATIONS = 4
"""Number of validations during training."""

StepCallback = Callable[[int, float, dict[str, float] | None], None]


def train(
    task: TrainingTask,
    checkpoint: Path,
    *,
    steps: int,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 1,
    initial_weights: Mapping[str, Tensor] | None = None,
    on_step: StepCallback = lambda step, loss, metrics: None,
) -> tuple[nn.Module, float]:
    """Train a task's model, from `checkpoint` if it exists.

    Parameters
    ----------
    task : TrainingTask
        Model, data and loss.
    checkpoint : Path
        Written every 100 steps. One of another task, number of steps or seed is refused.
    steps, seed : int
        With the same ones, and the same threads, a CPU gets the same weights, bit for bit,
        interrupted or not. With 0 steps the model is returned as it is.
    device : str
        Name of torch's device.
    workers : int
        Processes that make batches; 0 makes them in this process.
    initial_weights : mapping of str to Tensor, optional
        Weights to start from, at a third of the task's learning rate.
    on_step : callable
        Called with each step's number, the recent loss, and from time to time the validation
        metrics.

    Returns
    -------
    model : torch.nn.Module
        Mean of the weights during training, on `device`.
    minutes : float
        Training time, summed over all sessions.

    Raises
    ------
    HrviewerError
        If the checkpoint is of another training, or the loss is no longer finite.
    """
    torch_device = torch.device(device)
    torch.manual_seed(seed)
    model = task.create_model()
    rate = task.learning_rate
    if initial_weights is not None:
        model.load_state_dict(initial_weights)
        rate /= 3
    if not steps:
        return model.eval().to(torch_device), 0.0
    model = model.to(torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, multi_avg_fn=_average, use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    # A rise of exactly one step, as 5 % of 20, makes torch divide by zero.
    rise = min(0.9, max(0.05, 2 / steps))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=rise)
    parts: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    run = [task.card.cache_key, steps, seed, initial_weights is not None]
    start, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=torch_device, weights_only=True)
        if state["run"] != run:
            raise ParameterError(
                f"{checkpoint} is of another training: remove it, or give another --checkpoint"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"].cpu())
        start, spent = state["step"], state["minutes"]

    started, recent_loss = time.monotonic(), 0.0

    def minutes() -> float:
        return spent + (time.monotonic() - started) / 60

    batches = DataLoader(
        Subset(task.batches(steps, seed), range(start, steps)),
        batch_size=None,
        num_workers=workers,
        # Its own generator: random numbers of tasks must not depend on restarts of the loader.
        generator=torch.Generator(),
        prefetch_factor=8 if workers else None,
        # On every system: a fork while torch's threads run may deadlock.
        multiprocessing_context="spawn" if workers else None,
    )
    for step, batch in enumerate(batches, start=start + 1):
        model.train()
        with torch.autocast(torch_device.type, torch.bfloat16):
            loss = task.loss(model, [part.to(torch_device) for part in batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        value = loss.item()
        if not math.isfinite(value):
            raise ParameterError(
                f"the loss is {value} at step {step}: lower the task's learning rate"
            )
        recent_loss += (value - recent_loss) * max(0.01, 1 / (step - start))
        metrics = None
        if step % max(1, steps // VALIDATIONS) == 0:
            metrics = task.validate(average.module.eval())
        if step % CHECKPOINT_EVERY == 0 or step == steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"run": run, "step": step, "minutes": minutes()}
            _save(state | {"rng": torch.get_rng_state()}, checkpoint)
        on_step(step, recent_loss, metrics)
    trained: nn.Module = average.module
    return trained.eval(), minutes()


def _save(state: dict[str, Any], path: Path) -> None:
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


@torch.no_grad()
def _average(
    mean: Sequence[Tensor],
    current: Sequence[Tensor],
    count: Tensor | int,
) -> None:
    """Move the mean towards the current weights, by a falling share of at least 1 / 400."""
    share = max(1 / 400, 5 / (float(count) + 6))
    for a, b in zip(mean, current, strict=True):
        a.copy_(a + (b - a) * share if a.is_floating_point() else b)
