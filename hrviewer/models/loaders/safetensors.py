"""Loading of weights in safetensors in float32: from the cache where torch need not run them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.exported import EXPORTED_NETWORKS, ExportedNetwork
from hrviewer.models.loaders.kept_networks import (
    NetworkFacts,
    load_facts,
    load_graph,
    may_have_gpu,
    network_key,
    store_facts,
)
from hrviewer.models.network import Network
from hrviewer.models.probe import validate_network
from hrviewer.models.weights import read_weights

if TYPE_CHECKING:
    from hrviewer.models.loaders.torch import TorchNetwork

__all__ = ["load_safetensors"]

log = logging.getLogger(__name__)


def load_safetensors(path: Path, card: ModelCard, device: str, threads: int | None) -> Network:
    """Return a validated network on its fastest back end.

    Parameters
    ----------
    path, card, device, threads
        See `hrviewer.models.loaders.load`.

    Raises
    ------
    ModelError
        If the network does not match its card.
    """
    on_cpu = device == "cpu" or (device == "auto" and not may_have_gpu())
    key = network_key(read_weights(path, card)[1], card, threads) if on_cpu else ""
    facts = load_facts(key)
    if facts is not None and facts.backend in EXPORTED_NETWORKS:
        kept = _load_kept(path, card, threads, key, facts)
        if kept is not None:
            return kept
    from hrviewer.models.loaders.backend import select_backend
    from hrviewer.models.loaders.torch import TorchNetwork

    loaded = TorchNetwork.load(path, card, device, threads)
    if facts is None:
        validate_network(loaded)
    else:
        facts.restore(loaded)
    network = select_backend(loaded, threads)
    if isinstance(network, ExportedNetwork):
        network.facts_key = key
        store_facts(key, replace(network.facts, backend=network.name), network.graph)
    elif facts is None and not network.accepts_tokens:
        store_facts(key, NetworkFacts.of(network))
    return network


def _load_kept(
    path: Path, card: ModelCard, threads: int | None, key: str, facts: NetworkFacts
) -> Network | None:
    """Return a network from its kept graph; None if that cannot be used any more."""
    graph = load_graph(key)
    if graph is None:
        return None

    def load_torch() -> TorchNetwork:
        from hrviewer.models.loaders.torch import TorchNetwork

        loaded = TorchNetwork.load(path, card, "cpu", threads)
        facts.restore(loaded)
        return loaded

    try:
        network = EXPORTED_NETWORKS[facts.backend](card, graph, facts, load_torch, threads)
    except Exception as error:  # back ends raise many kinds; the network is exported again
        log.info("the kept graph of %s is not used: %s", card.name, error)
        return None
    network.facts_key = key
    return network
