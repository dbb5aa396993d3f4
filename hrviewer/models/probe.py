"""What a network really does, measured once when it is loaded.

A card that lies is caught here, with the field that lies and what was found. What the card leaves
out is measured: whether inputs can be batched, whether any size will do, how far an output sees
(`measure_halo`), and where inputs may begin (`measure_period`).
"""

from __future__ import annotations

import math

import numpy as np

from hrviewer.errors import HrviewerError, short_message
from hrviewer.models.network import Floats, Network

__all__ = ["measure_exact_halo", "measure_halo", "measure_period", "validate_network"]

_HALO_TOLERANCE = 1e-6
"""The part of the output's greatest value below which a change is rounding, not sight."""
_BATCH_TOLERANCE = 1e-4
"""The same, below which a network run on two inputs says what it says of each."""
_SHIFT_TOLERANCE = 1e-5
"""The same, below which an output is that of a larger input, moved."""
_OCTAVES = 7
"""Sizes of blots in noise: from 1 pixel, each twice the one before."""
_CANDIDATE_PERIODS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 32
"""What is tried as a network's period, in multiples of its card's step."""


def validate_network(network: Network, tile: Floats | None = None) -> None:
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
    if network.accepts_tokens:
        _check_tokens(network, one)
        network.token_flops(2)
        return
    it, out = network.card.input, network.card.output
    if out.margin and network.halo < out.margin:
        raise _card_mismatch(network, "output.halo", f"is less than output.margin, {out.margin}")
    found = _run_checked(network, one)
    _check_output(network, found, side)
    network.flops(side, side)  # what cannot be counted is not run either
    network.max_batch = network.max_batch or _measure_max_batch(network, one, found)
    if not it.fixed:
        other = -(-side // 2 // it.multiple_of) * it.multiple_of
        if other != side:
            _check_output(network, _run_checked(network, one[:, :, :other, :other]), other)
        network.accepts_any_size = _runs_at_any_size(network, one)
        if network.stride < side:
            network.period = measure_period(network) or network.card.step
            if out.halo is None:
                network.halo = measure_halo(network)


def measure_exact_halo(network: Network) -> int:
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
    if network.accepts_tokens or card.task in ("classification", "detection", "embedding"):
        raise _no_exact_tiling(network, f"its task, {card.task}, has an answer for each tile")
    if card.input.fixed:
        raise _no_exact_tiling(network, f"it takes tiles of {card.input.tile} pixels only")
    if measure_period(network) is None:
        raise _no_exact_tiling(
            network, "what it says depends on where a tile begins, wherever that is"
        )
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
    for period in (n * step for n in _CANDIDATE_PERIODS if n * step < tile):
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
        if same and np.abs(there - here).max() <= _SHIFT_TOLERANCE * np.abs(whole).max():
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
        reach, responds = _measure_reach(network, side, strip, seeds)
        if reach < side - strip and responds >= 0.5:
            break
    if responds < 0.5:
        # A network that is silent on noise hides how far it sees.
        raise HrviewerError(
            f"{card.name} hardly answers to noise, so how far it sees cannot be measured: "
            "give the card output.halo"
        )
    if reach >= side - strip:
        raise HrviewerError(
            f"{card.name} sees the whole of a {side}-pixel tile, so tiles cannot be joined "
            "exactly: give the card output.halo, or set input.fixed true"
        )
    return -(-reach // step) * step


def _measure_reach(network: Network, side: int, strip: int, seeds: int) -> tuple[int, float]:
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
            moved = (np.abs(network(changed) - first) > _HALO_TOLERANCE * scale).any(axis=(0, 1))
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
        return card.prepare(_multiscale_noise(rng, side, card.input.channel_count))[None]
    grey, colour = (
        _multiscale_noise(rng, side, 1),
        _multiscale_noise(rng, side, card.input.channel_count),
    )
    return card.prepare(np.clip(127.5 + 150 * grey + 30 * colour, 1, 254))[None]


def _multiscale_noise(rng: np.random.Generator, side: int, channels: int) -> Floats:
    """Return noise of variance 1 ``(side, side, channels)``."""
    noise = np.zeros((side, side, channels), np.float32)
    for octave in range(_OCTAVES):
        n = (side >> octave) + 1
        blots = rng.standard_normal((n, n, channels)).astype(np.float32)
        noise += blots.repeat(1 << octave, 0).repeat(1 << octave, 1)[:side, :side]
    return noise / np.float32(np.sqrt(_OCTAVES))


def _run_checked(network: Network, batch: Floats) -> Floats:
    try:
        return network(batch)
    except (MemoryError, HrviewerError) as error:
        if isinstance(error, MemoryError):
            raise
        raise HrviewerError(f"{network.card.name}: {error}") from None
    except Exception as error:
        size = " × ".join(map(str, batch.shape))
        raise HrviewerError(
            f"{network.card.name} does not run on an input of {size} ({short_message(error)}): "
            "correct the card's input (channels, tile, multiple_of, fixed)"
        ) from None


def _check_output(network: Network, output: Floats, side: int) -> None:
    """Compare an output with the card: channels, size, numbers."""
    card = network.card
    if output.shape[1] != card.output_channels:
        field = "output.width" if card.output.width else "output.classes"
        raise _card_mismatch(
            network, field, f"gives {card.output_channels}, but the network {output.shape[1]}"
        )
    want = max(1, side // network.stride)
    if output.shape[2:] != (want, want):
        oh, ow = output.shape[2:]
        raise _card_mismatch(
            network,
            "output.stride",
            f"{card.output.stride} makes {want} × {want} of {side} pixels, but the network "
            f"makes {oh} × {ow}",
        )
    if not np.isfinite(output).all():
        raise _card_mismatch(
            network, "input", "(scale, mean, std) leads to values that are not finite"
        )


def _check_tokens(network: Network, one: Floats) -> None:
    side = network.card.input.tile
    boxes = np.array([[0, 0, side, side], [0, side, side, side]], np.float32)
    try:
        found = network.run_tokens(np.concatenate([one, one]), boxes)
    except Exception as error:
        raise HrviewerError(
            f"{network.card.name} does not join two tokens of {side} pixels "
            f"({short_message(error)}): correct the card's input"
        ) from None
    cells = max(1, side // network.stride)
    want = 2, network.card.output_channels, cells, cells
    if found.shape != want:
        raise _card_mismatch(network, "output", f"gives {want}, not {found.shape}")
    if not np.isfinite(found).all():
        raise _card_mismatch(
            network, "input", "(scale, mean, std) leads to values that are not finite"
        )


def _no_exact_tiling(network: Network, reason: str) -> HrviewerError:
    return HrviewerError(
        f"{network.card.name}: no tiles can equal one look at everything, since {reason}: "
        "choose mode=tiles"
    )


def _card_mismatch(network: Network, field: str, problem: str) -> HrviewerError:
    return HrviewerError(f"{network.card.name}: the card's {field} {problem}: correct the card")


def _measure_max_batch(network: Network, one: Floats, output: Floats) -> int | None:
    """Return 1 where a network run on two inputs does not say what it says of each."""
    two = np.concatenate([one[..., ::-1] / 2, one])
    try:
        both = network(two)
    except Exception:
        return 1
    close = (
        both.shape[0] == 2
        and np.abs(both[1] - output[0]).max() <= _BATCH_TOLERANCE * np.abs(output).max()
    )
    return None if close else 1


def _runs_at_any_size(network: Network, one: Floats) -> bool:
    """Whether sizes that are no multiple run, and come out no smaller than they should."""
    m, tile = network.card.input.multiple_of, one.shape[2]
    network.accepts_any_size = True  # so that it is not filled
    try:
        return all(
            _has_full_size(network, one[:, :, : tile - n, : tile - n]) for n in {1, m // 2, m - 1}
        )
    except Exception:
        return False
    finally:
        network.accepts_any_size = False


def _has_full_size(network: Network, batch: Floats) -> bool:
    side = batch.shape[2] / network.stride
    return all(o in (math.floor(side), math.ceil(side)) for o in network(batch).shape[2:])
