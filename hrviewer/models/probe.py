"""What a network really does, measured once when it is loaded.

A card that lies is caught here, with the field that lies and what was found. What the card leaves
out is measured: whether inputs can be batched, whether any size will do, and how far an output
sees (`measure_halo`).
"""

from __future__ import annotations

import numpy as np

from hrviewer.errors import UserError
from hrviewer.models.network import Floats, Network
from hrviewer.models.told import brief

__all__ = ["measure_halo", "settle"]

_REACH = 1e-6
"""The part of the output's greatest value below which a change is rounding, not sight."""
_BATCH = 1e-4
"""The same, below which a network run on two inputs says what it says of each."""


def settle(network: Network, tile: Floats | None = None) -> None:
    """Check a network's card by running it, and measure what the card leaves out.

    Parameters
    ----------
    network
        Just loaded; its `batch`, `elastic` and `halo` are set.
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
        if out.halo is None and network.stride < side:
            network.halo = measure_halo(network)


def measure_halo(network: Network, seeds: int = 3) -> int:
    """Measure how far an output sees, in input pixels.

    A strip along one side of a tile is replaced by other noise, and how far from the strip the
    output changes is how far it sees: so all four sides, fine and coarse noise, several times.

    Parameters
    ----------
    network
        Not of a fixed size.
    seeds
        How many noises.

    Returns
    -------
    int
        The greatest reach, rounded up to a multiple of the card's step.

    Raises
    ------
    UserError
        Where the output changes throughout the tile (the network sees all of it), or hardly
        changes even where the noise does.
    """
    card = network.card
    side, step = card.input.tile, card.step
    strip = max(step, side // 8 // step * step)
    reach, responds = 0, 0.0
    for seed in range(seeds):
        base = _noise(network, seed, side, coarse=1)
        # Coarser noise too: what a network makes of fine noise can be pooled away.
        other = _noise(network, seed + 1000, side, coarse=4**seed)
        first = network(base)
        scale = float(np.abs(first).max()) or 1.0
        for axis in 2, 3:
            for end in False, True:
                cut: list[slice] = [slice(None)] * 4
                cut[axis] = slice(side - strip, None) if end else slice(strip)
                changed = base.copy()
                changed[tuple(cut)] = other[tuple(cut)]
                moved = np.abs(network(changed) - first) > _REACH * scale
                hit = moved.any(axis=(0, 1, 5 - axis))
                hit = hit[::-1] if end else hit  # from the strip inwards
                responds = max(responds, float(hit[: strip // network.stride].mean()))
                if hit.any():
                    last = int(np.flatnonzero(hit)[-1])
                    reach = max(reach, (last + 1) * network.stride - strip)
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


def _noise(network: Network, seed: int, side: int, coarse: int = 1) -> Floats:
    """A prepared tile ``(1, C, side, side)`` of noise: pixels, or codes for a head."""
    rng = np.random.default_rng(seed)
    card = network.card
    size = -(-side // coarse), -(-side // coarse), card.input.count
    if isinstance(card.input.channels, int):
        pixels = rng.standard_normal(size).astype(np.float32)
    else:
        # To its ends, where a step is greatest.
        pixels = (255 * rng.beta(0.5, 0.5, size)).astype(np.float32)
    pixels = pixels.repeat(coarse, 0).repeat(coarse, 1)[:side, :side]
    return card.prepare(pixels)[None]


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
    """Whether a size that is no multiple runs, and comes out no smaller than it should."""
    m = network.card.input.multiple_of
    side = one.shape[2] - m + 1
    if m == 1:
        return True
    network.elastic = True  # so that it is not filled
    try:
        shape = network(one[:, :, :side, :side]).shape[2:]
    except Exception:
        return False
    finally:
        network.elastic = False
    return all(o in (side // network.stride, -(-side // network.stride)) for o in shape)
