"""The loop that every lesson is learned by: interrupted, it goes on from its checkpoint exactly.

AdamW under one cycle of the learning rate, bfloat16 where the hardware has it, and a running mean
of the weights, which is what is kept.
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

from hrviewer.errors import HrviewerError
from hrviewer.training.task import TrainingTask

__all__ = ["train"]

CHECKPOINT_EVERY = 100
"""Steps between checkpoints."""
VALIDATIONS = 4
"""How often it is judged on the way."""

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
    on_step: StepCallback = lambda step, loss, figures: None,
) -> tuple[nn.Module, float]:
    """Learn a lesson, from `checkpoint` if it exists.

    Parameters
    ----------
    task : Lesson
        What is learned.
    checkpoint : Path
        Written every 100 steps. Of another lesson, number of steps or seed it is refused.
    steps, seed : int
        With the same ones, and the same threads, a CPU comes to the same weights, bit for bit,
        whether it was interrupted or not. Without steps the network is as it was.
    device : str
        torch's.
    workers : int
        Processes that make batches; 0 makes them here.
    initial_weights : mapping of str to Tensor, optional
        Weights to go on from, at a third of the lesson's rate, instead of what it begins with.
    on_step : callable
        Is told each step's number, the recent loss, and every so often what the judges say.

    Returns
    -------
    network : torch.nn.Module
        The mean of the weights on the way, on `device`.
    minutes : float
        Spent, all sessions together.

    Raises
    ------
    UserError
        Where the checkpoint is another run's, or the loss is no longer finite.
    """
    place = torch.device(device)
    torch.manual_seed(seed)
    network = task.create_model()
    rate = task.learning_rate
    if initial_weights is not None:
        network.load_state_dict(initial_weights)
        rate /= 3
    if not steps:
        return network.eval().to(place), 0.0
    network = network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_average, use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    # A rise of exactly one step, as 5 % of 20 are, is more than torch can divide by.
    rise = min(0.9, max(0.05, 2 / steps))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=rise)
    parts: dict[str, Any] = {
        "network": network,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    run = [task.card.cache_key, steps, seed, initial_weights is not None]
    start, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=place, weights_only=True)
        if state["run"] != run:
            raise HrviewerError(f"{checkpoint} is of another run: remove it, or name another one")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["chance"].cpu())
        start, spent = state["step"], state["minutes"]

    since, recent = time.monotonic(), 0.0

    def minutes() -> float:
        return spent + (time.monotonic() - since) / 60

    batches = DataLoader(
        Subset(task.batches(steps, seed), range(start, steps)),
        batch_size=None,
        num_workers=workers,
        # Of its own: what lessons draw must not depend on how often a loader was begun.
        generator=torch.Generator(),
        prefetch_factor=8 if workers else None,
        # On every system: a fork in the midst of torch's threads may never return.
        multiprocessing_context="spawn" if workers else None,
    )
    for step, batch in enumerate(batches, start=start + 1):
        network.train()
        with torch.autocast(place.type, torch.bfloat16):
            loss = task.loss(network, [part.to(place) for part in batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        value = loss.item()
        if not math.isfinite(value):
            raise HrviewerError(f"the loss is {value} at step {step}: lower the lesson's rate")
        recent += (value - recent) * max(0.01, 1 / (step - start))
        figures = None
        if step % max(1, steps // VALIDATIONS) == 0:
            figures = task.validate(average.module.eval())
        if step % CHECKPOINT_EVERY == 0 or step == steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"run": run, "step": step, "minutes": minutes()}
            _save(state | {"chance": torch.get_rng_state()}, checkpoint)
        on_step(step, recent, figures)
    kept: nn.Module = average.module
    return kept.eval(), minutes()


def _save(state: dict[str, Any], path: Path) -> None:
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


@torch.no_grad()
def _average(
    mean: Sequence[Tensor],
    now: Sequence[Tensor],
    count: Tensor | int,
) -> None:
    """Move the mean towards what is now, slower and slower, at last by 1 part in 400."""
    share = max(1 / 400, 5 / (float(count) + 6))
    for a, b in zip(mean, now, strict=True):
        a.copy_(a + (b - a) * share if a.is_floating_point() else b)
