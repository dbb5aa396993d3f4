"""What a network really does, measured once when it is loaded.

A card that lies is caught here, with the field that lies and what was found. What the card leaves
out is measured: whether inputs can be batched, whether any size will do, how far an output sees
(`measure_halo`), and where inputs may begin (`measure_period`).
"""

from __future__ import annotations

import math

import numpy as np

from hrviewer.errors import UserError
from hrviewer.models.network import Floats, Network
from hrviewer.models.told import brief

__all__ = ["measure_halo", "measure_period", "measure_sight", "settle"]

_REACH = 1e-6
"""The part of the output's greatest value below which a change is rounding, not sight."""
_BATCH = 1e-4
"""The same, below which a network run on two inputs says what it says of each."""
_MOVED = 1e-5
"""The same, below which an output is that of a larger input, moved."""
_OCTAVES = 7
"""Sizes of blots in noise: from 1 pixel, each twice the one before."""
_PERIODS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 32
"""What is tried as a network's period, in multiples of its card's step."""


def settle(network: Network, tile: Floats | None = None) -> None:
    """Check a network's card by running it, and measure what the card leaves out.

    Parameters
    ----------
    network
        Just loaded; its `batch`, `elastic`, `halo` and `period` are set.
    tile
        A prepared tile ``(C, tile, tile)``; noise if there is none.

    Raises
    ------
    UserError
        Where the network does not run on such a tile, or what comes out is not what the card says.
    """
    side = network.card.input.tile
    one = _noise(network, 0, side) if tile is None else tile[None]
    if network.joint:
        _check_joint(network, one)
        network.join_flops(2)
        return
    it, out = network.card.input, network.card.output
    if out.margin and network.halo < out.margin:
        raise _lie(network, "output.halo", f"is less than output.margin, {out.margin}")
    found = _try(network, one)
    _check(network, found, side)
    network.flops(side, side)  # what cannot be counted is not run either
    network.batch = network.batch or _batch(network, one, found)
    if not it.fixed:
        other = -(-side // 2 // it.multiple_of) * it.multiple_of
        if other != side:
            _check(network, _try(network, one[:, :, :other, :other]), other)
        network.elastic = _is_elastic(network, one)
        if network.stride < side:
            network.period = measure_period(network) or network.card.step
            if out.halo is None:
                network.halo = measure_halo(network)


def measure_sight(network: Network) -> int:
    """Measure the context with which tiles, joined, equal one look at an image of any size.

    Returns
    -------
    int
        Input pixels, no less than the card's halo.

    Raises
    ------
    UserError
        Where there is no such look, or no such context.
    """
    card = network.card
    if network.joint or card.task in ("classification", "detection", "embedding"):
        raise _apart(network, f"its task, {card.task}, has an answer for each tile")
    if card.input.fixed:
        raise _apart(network, f"it takes tiles of {card.input.tile} pixels only")
    if measure_period(network) is None:
        raise _apart(network, "what it says depends on where a tile begins, wherever that is")
    return max(network.halo, measure_halo(network))


def measure_period(network: Network) -> int | None:
    """Measure where an input may begin so that its output is that of a larger one, moved.

    Parameters
    ----------
    network
        Not of a fixed size.

    Returns
    -------
    int or None
        Input pixels, a multiple of the card's step; None if there is none within a tile.
    """
    step, tile = network.card.step, network.card.input.tile
    # Cells near the edge where the two inputs begin see more in one than in the other; how much
    # nearer than this the card may be wrong about.
    near = -(-max(network.halo, tile // 2) // step) * step
    side = near + 4 * step
    for period in (n * step for n in _PERIODS if n * step < tile):
        larger = _noise(network, 0, side + period)
        try:
            whole, part = network(larger), network(larger[:, :, period:, period:])
        except MemoryError:
            raise
        except Exception:  # a size that it does not take is none to begin at
            continue
        first, moved = near // network.stride, (near + period) // network.stride
        there, here = whole[:, :, moved:, moved:], part[:, :, first:, first:]
        same = there.shape == here.shape and here.size
        if same and np.abs(there - here).max() <= _MOVED * np.abs(whole).max():
            return int(period)
    return None


def measure_halo(network: Network, seeds: int = 3) -> int:
    """Measure how far an output sees, in input pixels.

    Strips along two sides of a tile are replaced by other noise, and how far from them the output
    changes is how far it sees: so all four sides, several times.

    Parameters
    ----------
    network
        Not of a fixed size; its `period` is known: what is read of an image ends on it.
    seeds
        How many noises.

    Returns
    -------
    int
        The greatest reach, rounded up to a multiple of the network's period.

    Raises
    ------
    UserError
        Where the output changes throughout the tile (the network sees all of it), or hardly
        changes even where the noise does.
    """
    card, step = network.card, network.period
    tile = max(step, card.input.tile // step * step)
    half = -(-tile // 2 // step) * step
    for side in (half, tile) if half < tile else (tile,):
        strip = max(step, side // 8 // step * step)
        reach, responds = _reach(network, side, strip, seeds)
        if reach < side - strip and responds >= 0.5:
            break
    if responds < 0.5:
        # A network that is silent on noise hides how far it sees.
        raise UserError(
            f"{card.name} hardly answers to noise, so how far it sees cannot be measured: "
            "give the card output.halo"
        )
    if reach >= side - strip:
        raise UserError(
            f"{card.name} sees the whole of a {side}-pixel tile, so tiles cannot be joined "
            "exactly: give the card output.halo, or set input.fixed true"
        )
    return -(-reach // step) * step


def _reach(network: Network, side: int, strip: int, seeds: int) -> tuple[int, float]:
    """Return how far from strips of other noise outputs change, and how much of the strips' do."""
    reach, responds = 0, 0.0
    for seed in range(seeds):
        base, other = _noise(network, seed, side), _noise(network, seed + 1000, side)
        first = network(base)
        scale = float(np.abs(first).max()) or 1.0
        for turn in 1, -1:
            # Above and to the left; then, turned by half, below and to the right.
            changed = base.copy()
            there, here = changed[:, :, ::turn, ::turn], other[:, :, ::turn, ::turn]
            there[:, :, :strip], there[:, :, :, :strip] = here[:, :, :strip], here[:, :, :, :strip]
            moved = (np.abs(network(changed) - first) > _REACH * scale).any(axis=(0, 1))
            moved = moved[::turn, ::turn]
            rows, columns = np.indices(moved.shape)
            depths = np.unique(np.minimum(rows, columns)[moved])  # of cells, from the nearer edge
            near = strip // network.stride
            responds = max(responds, np.count_nonzero(depths < near) / near)
            if len(depths):
                reach = max(reach, (int(depths[-1]) + 1) * network.stride - strip)
    return reach, responds


def _noise(network: Network, seed: int, side: int) -> Floats:
    """A prepared tile ``(1, C, side, side)`` of noise: pixels, or codes for a head.

    As pictures are, it is as strong at every size of blots, grey for the most part, and here and
    there nearly black or white: of other noise many a network sees nothing, and hides how far it
    sees.
    """
    rng = np.random.default_rng(seed)
    card = network.card
    if isinstance(card.input.channels, int):
        return card.prepare(_blots(rng, side, card.input.count))[None]
    grey, colour = _blots(rng, side, 1), _blots(rng, side, card.input.count)
    return card.prepare(np.clip(127.5 + 150 * grey + 30 * colour, 1, 254))[None]


def _blots(rng: np.random.Generator, side: int, channels: int) -> Floats:
    """Return noise of variance 1 ``(side, side, channels)``."""
    noise = np.zeros((side, side, channels), np.float32)
    for octave in range(_OCTAVES):
        n = (side >> octave) + 1
        blots = rng.standard_normal((n, n, channels)).astype(np.float32)
        noise += blots.repeat(1 << octave, 0).repeat(1 << octave, 1)[:side, :side]
    return noise / np.float32(np.sqrt(_OCTAVES))


def _try(network: Network, batch: Floats) -> Floats:
    try:
        return network(batch)
    except (MemoryError, UserError) as error:
        if isinstance(error, MemoryError):
            raise
        raise UserError(f"{network.card.name}: {error}") from None
    except Exception as error:
        size = " × ".join(map(str, batch.shape))
        raise UserError(
            f"{network.card.name} does not run on an input of {size} ({brief(error)}): "
            "correct the card's input (channels, tile, multiple_of, fixed)"
        ) from None


def _check(network: Network, found: Floats, side: int) -> None:
    """Compare an output with the card: channels, size, numbers."""
    card = network.card
    if found.shape[1] != card.outputs:
        field = "output.width" if card.output.width else "output.classes"
        raise _lie(network, field, f"gives {card.outputs}, but the network {found.shape[1]}")
    want = max(1, side // network.stride)
    if found.shape[2:] != (want, want):
        oh, ow = found.shape[2:]
        raise _lie(
            network,
            "output.stride",
            f"{card.output.stride} makes {want} × {want} of {side} pixels, but the network "
            f"makes {oh} × {ow}",
        )
    if not np.isfinite(found).all():
        raise _lie(network, "input", "(scale, mean, std) leads to values that are not finite")


def _check_joint(network: Network, one: Floats) -> None:
    side = network.card.input.tile
    boxes = np.array([[0, 0, side, side], [0, side, side, side]], np.float32)
    try:
        found = network.join(np.concatenate([one, one]), boxes)
    except Exception as error:
        raise UserError(
            f"{network.card.name} does not join two tokens of {side} pixels ({brief(error)}): "
            "correct the card's input"
        ) from None
    cells = max(1, side // network.stride)
    want = 2, network.card.outputs, cells, cells
    if found.shape != want:
        raise _lie(network, "output", f"gives {want}, not {found.shape}")
    if not np.isfinite(found).all():
        raise _lie(network, "input", "(scale, mean, std) leads to values that are not finite")


def _apart(network: Network, why: str) -> UserError:
    return UserError(
        f"{network.card.name}: no tiles can equal one look at everything, since {why}: "
        "choose mode=tiles"
    )


def _lie(network: Network, field: str, found: str) -> UserError:
    return UserError(f"{network.card.name}: the card's {field} {found}: correct the card")


def _batch(network: Network, one: Floats, found: Floats) -> int | None:
    """Return 1 where a network run on two inputs does not say what it says of each."""
    two = np.concatenate([one[..., ::-1] / 2, one])
    try:
        both = network(two)
    except Exception:
        return 1
    close = both.shape[0] == 2 and np.abs(both[1] - found[0]).max() <= _BATCH * np.abs(found).max()
    return None if close else 1


def _is_elastic(network: Network, one: Floats) -> bool:
    """Whether sizes that are no multiple run, and come out no smaller than they should."""
    m, tile = network.card.input.multiple_of, one.shape[2]
    network.elastic = True  # so that it is not filled
    try:
        return all(_fills(network, one[:, :, : tile - n, : tile - n]) for n in {1, m // 2, m - 1})
    except Exception:
        return False
    finally:
        network.elastic = False


def _fills(network: Network, batch: Floats) -> bool:
    side = batch.shape[2] / network.stride
    return all(o in (math.floor(side), math.ceil(side)) for o in network(batch).shape[2:])
