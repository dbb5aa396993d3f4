"""Commands ``strategies`` and ``models``: what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hrviewer.cli.common import (
    JsonOption,
    TrustOption,
    app,
    command,
    print_json,
    print_message,
    print_rows,
)
from hrviewer.errors import HrviewerError
from hrviewer.escaping import printable
from hrviewer.units import format_si

if TYPE_CHECKING:
    from hrviewer.models import ModelCard, Network

__all__ = ["check_models", "describe_model", "list_models", "models", "show_model", "strategies"]

models = typer.Typer(help="List the installed models, show one, or validate its cards.")
app.add_typer(models, name="models")


@command(app)
def strategies(as_json: JsonOption = False) -> None:
    """List the installed inference strategies and their parameters."""
    from hrviewer.strategies import get_strategy, strategy_ids

    installed = [get_strategy(name) for name in strategy_ids()]
    if as_json:
        print_json(
            [
                {
                    "id": strategy.id,
                    "title": strategy.title,
                    "family": strategy.family,
                    "when": strategy.when,
                    "roles": strategy.roles,
                    "default_budget": strategy.default_budget,
                    "params": strategy.Params.model_json_schema(),
                }
                for strategy in installed
            ]
        )
        return
    for strategy in installed:
        typer.echo(f"{strategy.id}  {strategy.title} ({strategy.family})\n    {strategy.when}")
        for name, field in strategy.Params.model_fields.items():
            typer.echo(f"    --set {name}={field.default}  {field.description or ''}")


@command(models, "")
@command(models, "list")
def list_models() -> None:
    """List the installed models and their roles."""
    from hrviewer.models import installed_bundles

    installed = installed_bundles()
    for name, entry in installed.items():
        try:
            bundle = entry.load()
        except HrviewerError as error:
            print_message(str(error))
            continue
        typer.echo(printable(f"{name}  {bundle.title} ({', '.join(bundle.roles)})"))
    if not installed:
        print_message(
            "no model is installed: install one, as pip install 'hrviewer[histology]', or use a "
            "model file"
        )


@command(models, "show")
def show_model(
    model: Annotated[str, typer.Argument(metavar="M")], trust: TrustOption = False
) -> None:
    """Show the cards of a model: task, input, output, licence and citation of each role."""
    from hrviewer.models import open_bundle

    bundle = open_bundle(model, trust)
    print_rows(("model", bundle.name), ("title", bundle.title), ("about", bundle.description))
    for role, card in bundle.roles.items():
        typer.echo()
        print_rows(("role", role), *card_rows(card))


def card_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Return names and values of a model card."""
    source, out = card.input, card.output
    size = f", pixels of {source.pixel_size:g} µm" if source.pixel_size else ""
    width = f"{out.width} values" if out.width else ", ".join(out.classes)
    return [
        ("name", card.name),
        ("title", card.title),
        ("task", card.task),
        (
            "input",
            f"{source.channels}, tiles of {source.tile}{' only' if source.fixed else ''}{size}",
        ),
        ("output", f"{width}; one per {out.stride} pixels"),
        ("licence", card.licence or "unknown"),
        ("citation", card.citation or "unknown"),
    ]


@command(models, "check")
def check_models(
    path: Annotated[str, typer.Argument(metavar="PATH")], trust: TrustOption = False
) -> None:
    """Load every role of a model, and compare its card with measured values."""
    from hrviewer.models import open_bundle

    bundle = open_bundle(path, trust)
    mismatches = 0
    for role in bundle.roles:
        try:
            network = bundle.load(role)
        except HrviewerError as error:
            print_message(f"{role}: {error}")
            mismatches += 1
        else:
            typer.echo(printable(f"{role}: {describe_model(network)}"))
            if note := halo_note(network):
                print_message(f"{role}: {note}")
    if mismatches:
        raise typer.Exit(1)


def halo_note(network: Network) -> str:
    """Return how a card's halo differs from the measured receptive field; empty if it does not."""
    from hrviewer.models.probe import HaloError, measure_halo

    card = network.card
    given = card.output.halo
    dense = network.stride < card.input.tile and card.task not in ("detection", "embedding")
    if given is None:
        return network.halo_note
    if network.accepts_tokens or not dense or card.detects:
        return ""
    try:
        needed = measure_halo(network)
    except HaloError as error:
        return f"tiles are not exact at any halo: {error}"
    if needed <= network.halo:
        return ""
    if card.input.fixed and 2 * needed >= card.input.tile:
        return (
            f"outputs depend on pixels up to {needed} away, most of a tile of {card.input.tile}: "
            f"tiles differ a little at their edges (halo {network.halo})"
        )
    return (
        f"the card's halo is {given}, but outputs depend on pixels up to {needed} away: tiles "
        f"differ at their edges; set output.halo to {needed} for exact ones"
    )


def describe_model(network: Network) -> str:
    """Return the measured properties of a loaded model."""
    tile = network.card.input.tile
    flops = network.token_flops(1) if network.accepts_tokens else network.flops(tile, tile)
    return (
        f"{network.card.name}, stride {network.stride}, halo {network.halo}, "
        f"{format_si(flops / tile**2, 'FLOP')} per pixel, {network.backend} on {network.device}"
    )
