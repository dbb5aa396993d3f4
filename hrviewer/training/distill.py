"""Distillation of a user's own model: the roles it lacks, trained on the user's own images."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from hrviewer.errors import ModelError, ParameterError, WriteError, write_error
from hrviewer.models.bundle import ModelBundle, open_bundle
from hrviewer.models.card import ModelCard, ModelInput
from hrviewer.models.network import Network
from hrviewer.paths import models_folder
from hrviewer.pyramid import Pyramid, using_pyramid
from hrviewer.training.distillation import DistilledScout, model_reference
from hrviewer.training.encoder_tasks import EncoderTask, HeadTask
from hrviewer.training.loop import train
from hrviewer.training.samples import (
    Sample,
    SampledTeacher,
    SampleStream,
    collect_samples,
    square_side,
)
from hrviewer.training.save_bundle import round_weights, write_entry, write_role
from hrviewer.training.share_tasks import ShareScanner, ShareScout
from hrviewer.training.task import TaskSet
from hrviewer.training.token_distillation import TransformerTask

__all__ = ["Distillation", "DistilledRole", "RoleName", "distill"]

RoleName = Literal["scout", "scanner", "encoder", "transformer"]

DENSITY_TASKS: Mapping[str, type[DistilledScout]] = {
    "scout": DistilledScout,
    "scanner": DistilledScout,
    "encoder": EncoderTask,
    "head": HeadTask,
    "transformer": TransformerTask,
}
SHARE_TASKS: Mapping[str, type[DistilledScout]] = {"scout": ShareScout, "scanner": ShareScanner}
SHARES = ("segmentation", "classification")
"""Tasks of models whose answers are shares of classes."""
TILE = 128
"""Side in model pixels of the tiles on which a role is evaluated: that of measured cells."""
WORTH, MAX_COUNT_ERROR = 0.9, 0.1
"""A role is worth using if errors at equal FLOPs fall below this part, or counts are this near."""
HELD_OUT = 6
"""One of so many squares is for validation, and as many for the test."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DistilledRole:
    """A trained role, evaluated on squares that were not learned from.

    Attributes
    ----------
    role
        Its name.
    worth_using
        Whether strategies gain by it on such images.
    verdict
        The same in words, with the figure.
    metrics
        The metrics of its card.
    minutes
        Training time.
    """

    role: str
    worth_using: bool
    verdict: str
    metrics: Mapping[str, Any]
    minutes: float


@dataclass(frozen=True, slots=True)
class Distillation:
    """A model bundle with the distilled roles.

    Attributes
    ----------
    path, name
        Its folder, and the name by which it is found.
    roles
        The roles, by name.
    """

    path: Path
    name: str
    roles: Mapping[str, DistilledRole]


def distill(
    model: str | Path | ModelBundle,
    images: Sequence[str | Path | Pyramid],
    *,
    roles: Sequence[RoleName] = ("scout", "scanner"),
    out: str | Path | None = None,
    squares: int = 256,
    steps: int | None = None,
    downsample: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_progress: Report = lambda phase, done, total: None,
) -> Distillation:
    """Train the roles that a model lacks from its own predictions on images.

    ``main`` runs once on random squares of the images. Each role then learns from these
    predictions, and is evaluated on squares of other images, or of other parts of them. No ground
    truth is needed. Interrupted, the same call goes on.

    Parameters
    ----------
    model : str, Path or ModelBundle
        The model: of the task density, segmentation or classification, for images in colour or
        grey levels.
    images : sequence of str, Path or Pyramid
        Images of the kind it will be used on.
    roles : sequence of str
        ``scout``, ``scanner``, ``encoder`` (with its ``head``) and ``transformer``; the last two
        need a density model that takes any size.
    out : str or Path, optional
        Folder of the new bundle. By default one in the user's data folder, which is found by the
        model's name with ``-distilled``.
    squares : int
        Number of squares that are learned from, of 512 model pixels or one tile; a third as many
        are held out.
    steps : int, optional
        Training steps of each role; by default 1500, of a head 800.
    downsample : int, optional
        Downsampling of the scout's input: 2, 4 or 8, the default. Objects must remain visible.
    seed : int
        Random seed.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    on_progress : callable
        Called with the phase (``main``, or a role), and the number of squares or steps done and in
        all.

    Returns
    -------
    Distillation
        The bundle, with what its roles are worth.

    Raises
    ------
    ModelError
        If the model cannot be distilled into these roles.
    ParameterError
        If the images hold nothing that the model finds, or `out` holds another distillation.
    WriteError
        If the bundle exists already, or cannot be written.

    Examples
    --------
    >>> made = hrviewer.distill("mine.onnx", ["a.tif", "b.tif"], roles=["scout"])  # doctest: +SKIP
    >>> made.roles["scout"].verdict  # doctest: +SKIP
    'worth using: at equal FLOPs errors fall to 41 % of those of random patches'
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not images:
        raise ParameterError("no images are given: name some of the kind the model is used on")
    if squares < 4:
        raise ParameterError(f"{squares} squares are too few: at least 4")
    if downsample not in (None, 2, 4, 8):
        raise ParameterError(f"downsample is 2, 4 or 8, not {downsample}")
    bundle = model if isinstance(model, ModelBundle) else open_bundle(model)
    main = bundle.load("main", device)
    wanted = _ordered_roles(main.card, roles)
    if main.external_files:
        raise ModelError(f"the weights of {bundle.name} are in several files: save them in one")
    stem = re.sub(r"[^\w.-]+", "_", bundle.name)
    folder = Path(out) if out else models_folder() / f"{stem}-distilled"
    kept = _finished_roles(folder, main)
    if set(wanted) <= set(kept) and not (folder / "samples").exists():
        raise WriteError(f"{folder} has these roles already: remove it, or choose another folder")
    held_out = max(4, squares // HELD_OUT)
    counts = {"validation": held_out, "test": held_out, "train": squares}
    with ExitStack() as stack:
        opened = [stack.enter_context(using_pyramid(image)) for image in images]
        names = sorted({image.name for image in opened})
        samples = collect_samples(
            main,
            opened,
            folder / "samples",
            counts,
            seed=seed,
            on_sample=lambda done, total: on_progress("main", done, total),
        )
    _check_content(main.card, samples)
    tasks = TaskSet(f"{bundle.title}, distilled", bundle.description, {})
    _write_main(bundle, folder, tasks)
    sources = {
        "images": names[:20],
        "number of images": len(names),
        "squares": f"{squares} of {square_side(main.card)} model pixels",
        "teacher": model_reference(main.card) | {"digest": main.digest},
    }
    for role in wanted:
        if role not in kept:
            task = _task(role, folder, main, samples, sources, downsample)
            _train_role(task, role, folder, tasks, steps, seed, device, on_progress)
    shutil.rmtree(folder / "samples")
    cards = ModelBundle.read(folder).roles
    results = {role: _result(role, cards[role]) for role in wanted}
    return Distillation(folder, folder.name, results)


def _ordered_roles(main: ModelCard, roles: Sequence[str]) -> list[str]:
    """Return the roles in the order of training; raise where the model does not allow one."""
    shares = main.task in SHARES
    if main.task != "density" and not shares:
        raise ModelError(
            f"{main.name} is a {main.task} model: distillation is for density, segmentation and "
            "classification"
        )
    if isinstance(main.input.channels, int):
        raise ModelError(
            f"{main.name} takes {main.input.channels} channels: distillation is for images in "
            "colour or grey levels"
        )
    known: Sequence[str] = ("scout", "scanner", "encoder", "transformer")
    for role in roles:
        if role not in known:
            raise ParameterError(f"no role {role!r} can be distilled: choose of {', '.join(known)}")
        if role in known[2:] and (shares or main.input.fixed):
            raise ModelError(
                f"{main.name} gets no {role}: that needs a density model that takes any size; a "
                "scout and a scanner can be distilled"
            )
    if not roles:
        raise ParameterError("no role is given: choose of scout, scanner, encoder and transformer")
    ordered = [role for role in known if role in roles]
    if "encoder" in ordered:
        ordered.insert(ordered.index("encoder") + 1, "head")
    return ordered


def _finished_roles(folder: Path, main: Network) -> list[str]:
    """Return the roles that a folder has; raise if it holds anything else."""
    if not (folder / "bundle.json").exists():
        return []
    roles = {role: card for role, card in ModelBundle.read(folder).roles.items() if role != "main"}
    digests = {card.training.get("teacher", {}).get("digest") for card in roles.values()}
    if digests - {main.digest} or not (roles or (folder / "samples").exists()):
        raise WriteError(f"{folder} holds another model: choose another folder")
    return [*roles]


def _check_content(main: ModelCard, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Raise if there is nothing to learn from."""
    for use, part in samples.items():
        targets = torch.stack([sample.target for sample in part])
        known = targets[~targets.isnan()]
        if not len(known):
            raise ModelError(f"{main.name} made no prediction on the squares of these images")
        if main.task == "density" and float(known.sum()) < 1:
            raise ParameterError(
                f"{main.name} finds nothing in the {use} squares of these images: give images with "
                "objects, or more squares"
            )


def _write_main(bundle: ModelBundle, folder: Path, tasks: TaskSet) -> None:
    """Copy the model itself into its new bundle."""
    weights = bundle.weights("main")
    target = folder / f"main{weights.suffix}"
    try:
        if not target.exists():
            shutil.copyfile(weights, target)
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
    except OSError as error:
        raise write_error(target, error) from None
    card = bundle.roles["main"].model_copy(update={"sha256": digest})
    write_entry(folder, folder.name, tasks, "main", target.name, card)


def _task(
    role: str,
    folder: Path,
    main: Network,
    samples: Mapping[str, Sequence[Sample]],
    sources: dict[str, Any],
    downsample: int | None,
) -> DistilledScout:
    """Return the training task of a role."""
    kind = (SHARE_TASKS if main.card.task in SHARES else DENSITY_TASKS)[role]
    pixels = torch.stack([sample.image for sample in samples["train"]]).float() / 255
    mean, deviation = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=0.02)
    shown = ModelInput(
        channels="rgb",
        scale=1 / 255,
        mean=tuple(round(v, 3) for v in mean.tolist()),
        std=tuple(round(v, 3) for v in deviation.tolist()),
        tile=512,
        multiple_of=16,
        pixel_size=main.card.input.pixel_size,
    )
    base = main.card.model_copy(update={"input": shown})
    of_scout = downsample if role == "scout" else None
    derived = kind._derive(ModelBundle.read(folder), base, role, of_scout, main.device)
    if kind is ShareScout:
        targets = torch.stack([sample.target for sample in samples["train"]])
        derived["mean"] = targets.nanmean((0, 2, 3))
    return kind(
        sources=sources,
        teacher=SampledTeacher(main, samples),  # type: ignore[arg-type]
        stream=partial(SampleStream, samples["train"]),
        validation=[sample.image for sample in samples["validation"]],
        test=[sample.image for sample in samples["test"]],
        tile=TILE,
        **derived,
    )


def _train_role(
    task: DistilledScout,
    role: str,
    folder: Path,
    tasks: TaskSet,
    steps: int | None,
    seed: int,
    device: str,
    on_progress: Report,
) -> None:
    """Train a role, and write it with its card."""
    steps = steps or task.steps
    model, minutes = train(
        task,
        folder / f"{role}.checkpoint",
        steps=steps,
        seed=seed,
        device=device,
        workers=0,
        on_step=lambda step, loss, metrics: on_progress(role, step, steps),
    )
    factors = task.calibrate(model)
    round_weights(model)
    metrics = {**task.evaluate(model), **factors}
    training = {**task.sources, "seed": seed, "steps": steps, "minutes": round(minutes, 1)}
    write_role(
        folder, folder.name, tasks, role, model, task.card, training=training, metrics=metrics
    )
    (folder / f"{role}.checkpoint").unlink(missing_ok=True)


def _result(role: str, card: ModelCard) -> DistilledRole:
    """Return what a role's card says of its worth.

    With a prediction that correlates by r with what is measured, at a cost of c times that of
    measuring everything, the error of a total at equal cost is √(1 − r²) + r √c times that of
    random places (double sampling with regression: Cochran, *Sampling Techniques*, 1977, ch. 12).
    """
    metrics, cost = card.metrics, float(card.metrics["relative_flops"])
    if role in ("scout", "scanner"):
        if "relative_variance" in metrics:
            ratio = math.sqrt(metrics["relative_variance"] / max(1 - cost, 1e-3))
        else:
            r = max(0.0, float(metrics["correlation"] or 0))
            ratio = math.sqrt(1 - min(r, 1.0) ** 2) + r * math.sqrt(cost)
        worth = ratio < WORTH
        figure = f"at equal FLOPs errors fall to {100 * ratio:.0f} % of those of random patches"
        advice = f"{figure}: distil from more squares" + (
            ", or with downsample 2" if role == "scout" and card.input.downsample > 2 else ""
        )
    else:
        error = float(metrics["count_error"])
        worth = error <= MAX_COUNT_ERROR
        figure = f"its counts are {100 * error:.0f} % off at {100 * cost:.0f} % of the FLOPs"
        advice = f"{figure}: distil from more squares, in more steps"
    verdict = f"worth using: {figure}" if worth else f"not worth using: {advice}"
    return DistilledRole(role, worth, verdict, metrics, float(card.training["minutes"]))
