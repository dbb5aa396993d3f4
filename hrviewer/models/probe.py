"""Validation of model cards by inference, once when a network is loaded.

A mismatch is reported with the card field and the measured value. Properties that the card leaves
out are measured: whether inputs can be batched, whether any size is accepted, the receptive field
(`measure_halo`), and the alignment of inputs (`measure_period`).
"""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from hrviewer.errors import HrviewerError, ModelError, short_message
from hrviewer.models.activation_check import check_activation, reject_hard_classes
from hrviewer.models.network import Floats, Network

__all__ = [
    "HaloError",
    "choose_halo",
    "measure_exact_halo",
    "measure_halo",
    "measure_period",
    "validate_network",
]

_HALO_TOLERANCE = 1e-6
"""A smaller change, relative to the output's maximum, is rounding and not receptive field."""
_BATCH_TOLERANCE = 1e-4
"""Largest relative difference between inference on a batch of two and on each alone."""
_SHIFT_TOLERANCE = 1e-5
"""Largest relative difference between an output and the shifted output of a larger input."""
_OCTAVES = 7
"""Number of scales of the noise: from 1 pixel, each twice the one before."""
_DEVICE_ERRORS = "CUDA", "cuDNN", "CUBLAS", "CUDNN", "HIP", "MPS", "kernel image"
"""What errors of a device, rather than of a network, hold."""
_CANDIDATE_PERIODS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 32
"""Candidate periods, in multiples of the card's step."""


MAX_TILE_FLOPS = 1e14
"""Of inference on one tile: 20 times SAM's ViT-H on 1,024 pixels, some minutes on a CPU."""


class HaloError(ModelError):
    """A network whose receptive field cannot be measured, or is all of its input."""


def validate_network(network: Network, tile: Floats | None = None) -> None:
    """Validate a network against its card, and measure what the card leaves out.

    Parameters
    ----------
    network
        Just loaded; its `max_batch`, `accepts_any_size`, `halo` and `period` are set.
    tile
        A prepared tile ``(C, tile, tile)``; noise if there is none.

    Raises
    ------
    ModelError
        If inference on such a tile fails, or the output does not match the card.
    """
    side = network.card.input.tile
    one = _noise(network, 0, side) if tile is None else tile[None]
    if network.accepts_tokens:
        _check_tokens(network, one)
        network.token_flops(2)
        return
    inputs, out = network.card.input, network.card.output
    if out.margin and network.halo < out.margin:
        raise _card_mismatch(network, "output.halo", f"is less than output.margin, {out.margin}")
    if inputs.fixed and 2 * network.halo >= side:
        raise _card_mismatch(
            network,
            "output.halo",
            f"is {network.halo} pixels, which leave nothing of an input of {side}",
        )
    _check_cost(network, side)
    output = _run_checked(network, one)
    _check_output(network, output, side)
    check_activation(network, one, output)
    network.flops(side, side)  # a network whose FLOPs cannot be counted is refused
    network.max_batch = network.max_batch or _measure_max_batch(network, one, output)
    if not inputs.fixed:
        other = -(-side // 2 // inputs.multiple_of) * inputs.multiple_of
        if other != side:
            _check_output(network, _run_checked(network, one[:, :, :other, :other]), other)
        network.accepts_any_size = _runs_at_any_size(network, one)
    if network.stride < side and not network.card.detects:
        if not inputs.fixed:
            network.period = measure_period(network) or network.card.step
        if out.halo is None:
            network.halo, network.halo_note = choose_halo(network)


def _check_cost(network: Network, side: int) -> None:
    """Refuse a network that takes minutes for one tile, before the first inference."""
    flops = 0.0
    with suppress(HrviewerError):  # inference reports better what is wrong
        flops = network.flops(side, side)
    if flops > MAX_TILE_FLOPS:
        raise ModelError(
            f"{network.card.name} takes {flops / 1e12:,.0f} TFLOP for a tile of {side} pixels: "
            "set a smaller input.tile in its card"
        )


def choose_halo(network: Network) -> tuple[int, str]:
    """Return the halo of a network whose card has none, and a note where it is not exact.

    It is the radius of the receptive field, with which tiles are stitched exactly. Where that
    cannot be measured, or is more than a quarter of a tile of fixed size, it is an eighth of the
    tile.
    """
    card = network.card
    side, fixed = card.input.tile, card.input.fixed
    step = card.halo_step if fixed else network.period
    try:
        radius = measure_halo(network, seeds=1 if fixed else 3)
        if not fixed or radius <= side // 4:
            return radius, ""
        reason = f"{card.name} has a receptive field of {radius} pixels in inputs of {side}"
    except HaloError as error:
        reason = str(error)
    halo = max(step, side // 8 // step * step)
    return halo, (
        f"{reason}: a halo of {halo} pixels is taken, with which predictions differ a little at "
        "the edges of tiles; the card's output.halo sets another"
    )


def measure_exact_halo(network: Network) -> int:
    """Measure the context with which stitched tiles equal inference on the whole image.

    Returns
    -------
    int
        Input pixels, no less than the card's halo.

    Raises
    ------
    ModelError
        If the network cannot take a whole image, or there is no such context.
    """
    card = network.card
    per_tile = "classification", "multi-label", "detection", "instances", "embedding"
    if network.accepts_tokens or card.task in per_tile or card.stride >= card.input.tile:
        raise _no_exact_tiling(network, f"its task, {card.task}, has one prediction per tile")
    if card.input.fixed:
        raise _no_exact_tiling(network, f"it takes tiles of {card.input.tile} pixels only")
    if measure_period(network) is None:
        raise _no_exact_tiling(network, "its predictions depend on where a tile begins")
    try:
        return max(network.halo, measure_halo(network))
    except HaloError as error:
        raise ModelError(
            f"{error}: tiles cannot equal inference on the whole image; choose mode=tiles"
        ) from None


def measure_period(network: Network) -> int | None:
    """Measure the alignment at which an input's output is the shifted output of a larger input.

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
    # Cells near the edge where the two inputs begin have more context in one than in the other.
    # The card's halo may be wrong, so half a tile is left out at least.
    near = -(-max(network.halo, tile // 2) // step) * step
    side = near + 4 * step
    for period in (n * step for n in _CANDIDATE_PERIODS if n * step < tile):
        larger = _noise(network, 0, side + period)
        try:
            whole, part = network(larger), network(larger[:, :, period:, period:])
        except MemoryError:
            raise
        except Exception:  # an unsupported size is no candidate
            continue
        first, moved = near // network.stride, (near + period) // network.stride
        there, here = whole[:, :, moved:, moved:], part[:, :, first:, first:]
        same = there.shape == here.shape and here.size
        if same and np.abs(there - here).max() <= _SHIFT_TOLERANCE * np.abs(whole).max():
            return int(period)
    return None


def measure_halo(network: Network, seeds: int = 3) -> int:
    """Measure the radius of the receptive field, in input pixels.

    Strips along two sides of a tile are replaced by other noise; the distance to which the output
    changes is the radius. All four sides are tested, several times.

    Parameters
    ----------
    network
        Its `period` is known, since tiles end on it.
    seeds
        Number of noise images.

    Returns
    -------
    int
        The largest radius, rounded up to a multiple of the network's period.

    Raises
    ------
    HaloError
        If the output changes throughout the tile (a global receptive field), or hardly changes
        even in the strips.
    """
    card = network.card
    step = card.halo_step if card.input.fixed else network.period
    tile = max(step, card.input.tile // step * step)
    half = -(-tile // 2 // step) * step
    for side in (half, tile) if half < tile and not card.input.fixed else (tile,):
        strip = max(step, side // 8 // step * step)
        reach, responds = _measure_reach(network, side, strip, seeds)
        if reach < side - strip and responds >= 0.5:
            break
    if responds < 0.5:
        # A network that does not respond to noise hides its receptive field.
        raise HaloError(
            f"{card.name} hardly responds to noise, so that its receptive field cannot be measured"
        )
    if reach >= side - strip:
        raise HaloError(f"{card.name} has a receptive field of more than {side} pixels")
    return -(-reach // step) * step


def _measure_reach(network: Network, side: int, strip: int, seeds: int) -> tuple[int, float]:
    """Return how far outside the strips outputs change, and the fraction that changes inside."""
    reach, responds = 0, 0.0
    for seed in range(seeds):
        base, other = _noise(network, seed, side), _noise(network, seed + 1000, side)
        first = network(base)
        scale = float(np.abs(first).max()) or 1.0
        for turn in 1, -1:
            # Top and left; then, rotated by 180°, bottom and right.
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
    """Return a prepared tile ``(1, C, side, side)`` of noise: pixels, or embeddings for a head.

    As in photographs, it is equally strong at every scale, mostly grey, and in places nearly black
    or white: many networks do not respond to other noise, which would hide their receptive field.
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
        if isinstance(error, MemoryError) or str(error).startswith(network.card.name):
            raise
        raise ModelError(f"{network.card.name}: {error}") from None
    except Exception as error:
        if network.device != "cpu" and any(sign in str(error) for sign in _DEVICE_ERRORS):
            raise ModelError(
                f"{network.card.name} does not run on {network.device} ({short_message(error)}): "
                "choose --device cpu"
            ) from None
        size = " × ".join(map(str, batch.shape))
        raise ModelError(
            f"{network.card.name}: inference on an input of {size} fails ({short_message(error)}): "
            "correct the card's input (channels, tile, multiple_of, fixed)"
        ) from None


def _check_output(network: Network, output: Floats, side: int) -> None:
    """Compare an output with the card: channels, size, numbers."""
    card = network.card
    reject_hard_classes(network, output)
    if output.shape[1] != card.output_channels:
        field = "output.width" if card.output.width else "output.classes"
        raise _card_mismatch(
            network,
            field,
            f"gives {card.output_channels} channels, but the network has {output.shape[1]}",
        )
    expected = max(1, side // network.stride)
    if output.shape[2:] != (expected, expected):
        oh, ow = output.shape[2:]
        raise _card_mismatch(
            network,
            "output.stride",
            f"{card.output.stride} makes {expected} × {expected} of {side} pixels, but the network "
            f"makes {oh} × {ow}",
        )
    if not np.isfinite(output).all():
        channels = network.card.input.channel_count
        ones = np.ones((1, channels, side, side), np.float32)
        raise _not_finite(network, _run_checked(network, ones))


def _not_finite(network: Network, output_of_ones: Floats) -> ModelError:
    """Return the error for outputs that are not finite: of the weights if those of ones are so."""
    if np.isfinite(output_of_ones).all():
        return _card_mismatch(
            network, "input", "(scale, mean, std) leads to outputs that are not finite"
        )
    return ModelError(
        f"{network.card.name}: the network's weights or operations lead to outputs that are not "
        "finite, even for an input of ones: download or export it again"
    )


def _check_tokens(network: Network, one: Floats) -> None:
    side = network.card.input.tile
    boxes = np.array([[0, 0, side, side], [0, side, side, side]], np.float32)
    try:
        output = network.run_tokens(np.concatenate([one, one]), boxes)
    except Exception as error:
        raise ModelError(
            f"{network.card.name}: inference on two tokens of {side} pixels fails "
            f"({short_message(error)}): correct the card's input"
        ) from None
    cells = max(1, side // network.stride)
    expected = 2, network.card.output_channels, cells, cells
    if output.shape != expected:
        raise _card_mismatch(network, "output", f"gives {expected}, not {output.shape}")
    if not np.isfinite(output).all():
        ones = np.ones((2, *one.shape[1:]), np.float32)
        raise _not_finite(network, network.run_tokens(ones, boxes))


def _no_exact_tiling(network: Network, reason: str) -> ModelError:
    return ModelError(
        f"{network.card.name}: tiles cannot equal inference on the whole image, since {reason}: "
        "choose mode=tiles"
    )


def _card_mismatch(network: Network, field: str, problem: str) -> ModelError:
    return ModelError(f"{network.card.name}: the card's {field} {problem}: correct the card")


def _measure_max_batch(network: Network, one: Floats, output: Floats) -> int | None:
    """Return 1 if inference on a batch of two differs from inference on each, otherwise None."""
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
    """Whether sizes that are not a multiple are accepted, with outputs of full size."""
    m, tile = network.card.input.multiple_of, one.shape[2]
    network.accepts_any_size = True  # so that inputs are not padded
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
