"""What there is to choose from: strategies and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_message, print_rows
from hrviewer.errors import HrviewerError
from hrviewer.units import format_si

if TYPE_CHECKING:
    from hrviewer.models import ModelCard, Network

__all__ = ["check_models", "list_models", "show_model", "strategies"]

models = typer.Typer(help="The networks: list what is installed, show a pack, check one.")
app.add_typer(models, name="models")


@command(app)
def strategies(as_json: JsonOption = False) -> None:
    """List the strategies: where a network can look."""
    from hrviewer.strategies import get_strategy, strategy_ids

    found = [get_strategy(name) for name in strategy_ids()]
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
                for strategy in found
            ]
        )
        return
    for strategy in found:
        typer.echo(f"{strategy.id}  {strategy.title} ({strategy.family})\n    {strategy.when}")
        for name, field in strategy.Params.model_fields.items():
            typer.echo(f"    --set {name}={field.default}  {field.description or ''}")


@command(models, "")
@command(models, "list")
def list_models() -> None:
    """List the installed packs and their roles."""
    from hrviewer.models import installed_bundles

    packs = installed_bundles()
    for name, installed in packs.items():
        try:
            pack = installed.load()
        except HrviewerError as error:
            print_message(str(error))
            continue
        typer.echo(f"{name}  {pack.title} ({', '.join(pack.roles)})")
    if not packs:
        print_message(
            "no pack is installed: install a plug-in that brings one, or give a network's file"
        )


@command(models, "show")
def show_model(model: Annotated[str, typer.Argument(metavar="M")]) -> None:
    """Show a pack's networks: what goes in, what comes out, whose they are."""
    from hrviewer.models import open_bundle

    pack = open_bundle(model)
    print_rows(("pack", pack.name), ("title", pack.title), ("about", pack.description))
    for role, card in pack.roles.items():
        typer.echo()
        print_rows(("role", role), *card_rows(card))


def card_rows(card: ModelCard) -> list[tuple[str, str]]:
    """Return a card in lines."""
    it, out = card.input, card.output
    size = f", pixels of {it.pixel_size:g} µm" if it.pixel_size else ""
    width = f"{out.width} values" if out.width else ", ".join(out.classes)
    return [
        ("name", card.name),
        ("title", card.title),
        ("task", card.task),
        ("takes", f"{it.channels}, tiles of {it.tile}{' only' if it.fixed else ''}{size}"),
        ("gives", f"{width}; a value per {out.stride} pixels"),
        ("licence", card.licence or "not said"),
        ("citation", card.citation or "not said"),
    ]


@command(models, "check")
def check_models(path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
    """Load every network of a pack and see whether its card tells the truth."""
    from hrviewer.models import open_bundle

    pack = open_bundle(path)
    lies = 0
    for role in pack.roles:
        try:
            network = pack.load(role)
        except HrviewerError as error:
            print_message(f"{role}: {error}")
            lies += 1
        else:
            typer.echo(f"{role}: {describe_model(network)}")
    if lies:
        raise typer.Exit(1)


def describe_model(network: Network) -> str:
    """Return what was found out about a network."""
    tile = network.card.input.tile
    flops = network.token_flops(1) if network.accepts_tokens else network.flops(tile, tile)
    return (
        f"{network.card.name}, stride {network.stride}, halo {network.halo}, "
        f"{format_si(flops / tile**2, 'FLOP')} per pixel, {network.backend} on {network.device}"
    )
