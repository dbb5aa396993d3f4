"""``python -m hrviewer.models.size_trial``: benchmark a network at sizes that may not fit.

A separate process, so that the caller survives. The model card comes in on standard input, then
sides, one per line; one line of JSON goes out for each, after a first one that describes the
loaded network. On a CPU a thread monitors memory and ends the process with `EXIT_OUT_OF_MEMORY`
before it exceeds the limit; on a CUDA device the allocator refuses. The caller treats any other
death of this process as out of memory, too: the system kills processes when it runs out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders import load
from hrviewer.models.memory_usage import (
    limit_device_memory,
    peak_device_memory,
    peak_memory,
    reset_peak_memory,
)
from hrviewer.models.network import Network

__all__ = ["EXIT_OUT_OF_MEMORY", "main", "measure_size"]

EXIT_OUT_OF_MEMORY = 77
POLL_SECONDS = 0.002
"""Interval between memory checks, in seconds."""
REPEAT_BELOW_SECONDS = 3.0
"""Runs shorter than this are repeated, to exclude warm-up; in seconds."""


TOKEN_COUNTS = 64, 128, 256, 1000
"""Numbers of tokens for which FLOPs are reported."""


def measure_size(network: Network, side: int) -> dict[str, Any]:
    """Run inference once on a square; a token network takes all of its tokens as one group.

    Returns
    -------
    dict
        ``side``, ``flops``, ``seconds`` and ``peak_bytes`` (of the process on a CPU, of the
        allocator on a CUDA device). If memory did not suffice, only ``side`` and ``fits``, which
        is False.
    """
    rng = np.random.default_rng(0)
    reset_peak_memory()
    peak_device_memory(network.device, reset=True)
    try:
        channels, tile = network.card.input.channel_count, network.card.input.tile
        n = (side // tile) ** 2
        if network.accepts_tokens:
            tokens = rng.random((n, channels, tile, tile), np.float32)
            at = np.indices((side // tile,) * 2).reshape(2, n).T * tile
            run = partial(network.run_tokens, tokens, np.hstack([at, np.full((n, 2), tile)]))
        else:
            run = partial(network, rng.random((1, channels, side, side), np.float32))
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        if seconds < REPEAT_BELOW_SECONDS:
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
    except MemoryError:
        return {"side": side, "fits": False}
    peak = peak_device_memory(network.device)
    return {
        "side": side,
        "fits": True,
        "flops": network.token_flops(n) if network.accepts_tokens else network.flops(side, side),
        "seconds": seconds,
        "peak_bytes": peak_memory() if peak is None else peak,
    }


def enforce_memory_limit(limit: int) -> None:
    """End the process as soon as it uses more than `limit` bytes."""
    while True:
        exit_if_over_limit(limit)
        time.sleep(POLL_SECONDS)


def exit_if_over_limit(limit: int) -> None:
    """End the process if it has used more than `limit` bytes."""
    if (peak_memory() or 0) > limit:
        os._exit(EXIT_OUT_OF_MEMORY)


def main(weights: Path, device: str, limit: int, out: TextIO, trust: bool = False) -> None:
    """Read a card and then sides from standard input; write a JSON line for each."""

    def write(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=out, flush=True)

    try:
        card = ModelCard.model_validate_json(sys.stdin.readline())
        network = load(weights, card, device, trust=trust)
    except HrviewerError as error:
        write({"error": str(error)})
        return
    card = network.card
    if network.device.startswith("cuda"):
        limit_device_memory(network.device, limit)
    else:
        exit_if_over_limit(limit)
        threading.Thread(target=enforce_memory_limit, args=(limit,), daemon=True).start()
    write({
        "name": card.name, "device": network.device, "backend": network.backend,
        "step": card.step, "fixed": card.input.fixed, "tile": card.input.tile,
        "token_flops": {n: network.token_flops(n) for n in TOKEN_COUNTS if network.accepts_tokens},
        "idle_bytes": peak_device_memory(network.device) or peak_memory(),
    })  # fmt: skip
    for line in sys.stdin:
        write(measure_size(network, int(line)))


if __name__ == "__main__":
    # Redirect what libraries print to standard error: standard output is for results.
    with os.fdopen(os.dup(1), "w") as results:
        os.dup2(2, 1)
        trusted = sys.argv[4:] == ["trust"]
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), results, trusted)
