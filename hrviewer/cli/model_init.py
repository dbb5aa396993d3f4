"""Command ``models init``: a model card from a file, and a tile through the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    TrustOption,
    command,
    parse_region,
    print_message,
    print_rows,
)
from hrviewer.cli.listing import describe_model, models
from hrviewer.errors import ModelError, ParameterError, write_error

if TYPE_CHECKING:
    from hrviewer.models import ModelCard, Network
    from hrviewer.models.drafting import CardAnswers
    from hrviewer.models.formats import CardDraft

__all__ = ["init_model"]

QUESTIONS = {
    "scale": "Factor of pixels of 0-255 (1/255 for networks trained on 0 to 1)",
    "classes": "Names of the classes, separated by commas",
}


def parse_number(text: str) -> float:
    """Parse a number or a fraction, as ``1/255``."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is no number, as 0.5 or 1/255") from None


def parse_numbers(text: str) -> list[float]:
    """Parse numbers separated by commas."""
    return [parse_number(part) for part in text.split(",")]


@command(models, "init")
def init_model(
    path: Annotated[Path, typer.Argument(metavar="FILE")],
    task: Annotated[
        str | None, typer.Option(help="Task of the model, where it is ambiguous.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Names of the classes, or coco80.")
    ] = None,
    scale: Annotated[
        Any, typer.Option(parser=parse_number, metavar="X", help="Factor of pixels, as 1/255.")
    ] = None,
    mean: Annotated[
        Any, typer.Option(parser=parse_numbers, metavar="R,G,B", help="Mean after the scale.")
    ] = None,
    std: Annotated[
        Any,
        typer.Option(parser=parse_numbers, metavar="R,G,B", help="Standard deviation after it."),
    ] = None,
    channels: Annotated[str | None, typer.Option(help="gray, rgb, bgr or a number.")] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="Pixel size of the training data in µm.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile, where any size runs.")] = None,
    halo: Annotated[int | None, typer.Option(help="Context around a tile, pixels.")] = None,
    activation: Annotated[
        str | None, typer.Option(help="none, sigmoid, softmax or relu; measured by default.")
    ] = None,
    decode: Annotated[
        str | None, typer.Option(help="Format of a detector's output; by its shape by default.")
    ] = None,
    letterbox: Annotated[
        float | None, typer.Option(help="Fill value beyond the image's border, 0-255.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Units of a regression's quantities.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title for the user.")] = None,
    image: Annotated[
        str | None, typer.Option(help="An image: a tile of it is shown through the network.")
    ] = None,
    region: Annotated[
        Any,
        typer.Option(parser=parse_region, metavar="Y,X,H,W", help="Where the tile is taken."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Picture of the tile and its prediction.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing card.")] = False,
    trust: TrustOption = False,
) -> None:
    """Write the card of a model file: measure what can be, ask for the rest."""
    from hrviewer.models.drafting import CardAnswers
    from hrviewer.models.formats import card_path

    target = card_path(path)
    if target.exists() and not force:
        raise ParameterError(f"{target} exists: add --force to replace it, or edit it")
    answers = CardAnswers(
        task=task,
        classes=split(classes),
        scale=scale,
        mean=mean,
        std=std,
        channels=channels,
        pixel_size=pixel_size,
        halo=halo,
        activation=activation,
        decode=decode,
        letterbox=letterbox,
        tile=tile,
        units=split(units),
        title=title,
    )
    draft = complete(path, answers, trust)
    for note in draft.notes:
        print_message(note)
    card, network = load_with_halo(draft, trust)
    fields = card.model_dump(mode="json", exclude_defaults=True)
    try:
        target.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise write_error(target, error) from None
    print_rows(("card", str(target)), ("task", card.task), ("model", describe_model(network)))
    if image is not None:
        from hrviewer.cli.tile_preview import preview_tile

        print_rows(*preview_tile(network, image, region, out))


def is_terminal() -> bool:
    """Return whether the user can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def split(text: str | None) -> list[str] | None:
    """Return the parts of a list separated by commas."""
    return None if text is None else [part.strip() for part in text.split(",")]


def complete(path: Path, answers: CardAnswers, trust: bool) -> CardDraft:
    """Return a draft in which nothing is missing; ask on a terminal.

    Raises
    ------
    ModelError
        If something is missing and there is no terminal to ask on.
    """
    from dataclasses import replace

    draft = draft_file(path, answers, trust)
    replies: dict[str, Any] = {}
    for name in draft.missing if is_terminal() else ():
        if name in QUESTIONS:
            reply = typer.prompt(QUESTIONS[name])
            replies[name] = parse_number(reply) if name == "scale" else split(reply)
    if replies:
        answers = replace(answers, **replies)
        draft = draft_file(path, answers, trust)
    if draft.missing:
        options = ", ".join(f"--{name}" for name in draft.missing)
        if k := len(draft.fields["output"].get("classes", ())):
            options = options.replace("--classes", f"--classes (of {k})")
        raise ModelError(
            f"{path} does not say its {' and '.join(draft.missing)}: add {options} (networks take "
            "pixels of 0-255 times the scale, minus the mean, over the standard deviation)"
        )
    return draft


def draft_file(path: Path, answers: CardAnswers, trust: bool) -> CardDraft:
    """Return the draft of what a file says, else of what is measured, with the answers."""
    from dataclasses import replace

    from hrviewer.models.card import ModelInput, ModelOutput
    from hrviewer.models.drafting import draft_card, measure_file
    from hrviewer.models.formats import draft_described, find_format
    from hrviewer.models.loaders import check_weights_format

    known = find_format(path)
    if known is None:
        check_weights_format(path, trust)
        if path.suffix.lower() == ".safetensors":
            raise ModelError(
                f"{path} holds numbers without their architecture: export the model to ONNX, or "
                "write the card with the architecture by hand (docs/models.md)"
            )
        count = answers.channels if (answers.channels or "").isdecimal() else None
        found = measure_file(path, answers.tile, int(count) if count else None)
        return draft_card(path, found, answers)
    draft = draft_described(path, known)
    check_weights_format(draft.weights, trust)
    fields, given = dict(draft.fields), answers.given()
    for part, section in (("input", ModelInput), ("output", ModelOutput)):
        own = {name: value for name, value in given.items() if name in section.model_fields}
        fields[part] = {**fields[part], **own}
    if draft.fields["output"].get("stride") == draft.fields["input"]["tile"]:  # one per tile
        fields["output"]["stride"] = fields["input"]["tile"]
    fields |= {name: value for name, value in given.items() if name in ("task", "title")}
    missing = tuple(name for name in draft.missing if name not in given)
    return replace(draft, fields=fields, missing=missing)


def load_with_halo(draft: CardDraft, trust: bool) -> tuple[ModelCard, Network]:
    """Load the network; its card gets the halo that was measured, which takes a while."""
    from hrviewer.models import ModelCard
    from hrviewer.models.loaders import load

    card = ModelCard.from_dict(draft.fields, draft.weights)
    network = load(draft.weights, card, "auto", trust=trust)
    if network.halo_note:
        print_message(network.halo_note)
    dense = network.stride < card.input.tile and not card.detects
    if card.output.halo is None and dense:
        output = card.output.model_copy(update={"halo": network.halo})
        card = card.model_copy(update={"output": output})
    return card, network
