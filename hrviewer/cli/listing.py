"""What there is to choose from: strategies and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hrviewer.cli.common import Json, app, command, say, say_json, tell
from hrviewer.errors import UserError
from hrviewer.units import si

if TYPE_CHECKING:
    from hrviewer.models import Card, Network

__all__ = ["checked", "listed", "shown", "strategies"]

models = typer.Typer(help="The networks: list what is installed, show a pack, check one.")
app.add_typer(models, name="models")


@command(app)
def strategies(as_json: Json = False) -> None:
    """List the strategies: where a network can look."""
    from hrviewer.strategies import get_strategy, strategy_ids

    found = [get_strategy(name) for name in strategy_ids()]
    if as_json:
        say_json(
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
def listed() -> None:
    """List the installed packs and their roles."""
    from hrviewer.models import installed_packs

    packs = installed_packs()
    for name, installed in packs.items():
        try:
            pack = installed.load()
        except UserError as error:
            tell(str(error))
            continue
        typer.echo(f"{name}  {pack.title} ({', '.join(pack.roles)})")
    if not packs:
        tell("no pack is installed: install a plug-in that brings one, or give a network's file")


@command(models, "show")
def shown(model: Annotated[str, typer.Argument(metavar="M")]) -> None:
    """Show a pack's networks: what goes in, what comes out, whose they are."""
    from hrviewer.models import open_pack

    pack = open_pack(model)
    say(("pack", pack.name), ("title", pack.title), ("about", pack.description))
    for role, card in pack.roles.items():
        typer.echo()
        say(("role", role), *describe(card))


def describe(card: Card) -> list[tuple[str, str]]:
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
def checked(path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
    """Load every network of a pack and see whether its card tells the truth."""
    from hrviewer.models import open_pack

    pack = open_pack(path)
    lies = 0
    for role in pack.roles:
        try:
            network = pack.load(role)
        except UserError as error:
            tell(f"{role}: {error}")
            lies += 1
        else:
            typer.echo(f"{role}: {measured(network)}")
    if lies:
        raise typer.Exit(1)


def measured(network: Network) -> str:
    """Return what was found out about a network."""
    tile = network.card.input.tile
    flops = network.join_flops(1) if network.joint else network.flops(tile, tile)
    return (
        f"{network.card.name}, stride {network.stride}, halo {network.halo}, "
        f"{si(flops / tile**2, 'FLOP')} per pixel, {network.backend} on {network.device}"
    )
