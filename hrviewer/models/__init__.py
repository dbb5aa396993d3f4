"""Models: cards, bundles, and networks that run alike on every back end.

Importing this loads no back end. Weights are read when a bundle's role is loaded.
"""

from hrviewer.callable_package import make_callable
from hrviewer.models.builtin_saliency import BUILTINS, builtin
from hrviewer.models.bundle import (
    CombinedBundle,
    ModelBundle,
    installed_bundles,
    no_model_error,
    open_bundle,
)
from hrviewer.models.card import ModelCard
from hrviewer.models.listing import list_models
from hrviewer.models.network import Network

__all__ = [
    "BUILTINS",
    "CombinedBundle",
    "ModelBundle",
    "ModelCard",
    "Network",
    "builtin",
    "installed_bundles",
    "list_models",
    "no_model_error",
    "open_bundle",
]

make_callable(__name__, list_models)
