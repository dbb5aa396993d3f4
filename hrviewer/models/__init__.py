"""What looks: cards, packs, and networks that run the same whatever their back end.

Importing this loads no back end. Weights are read when a pack's role is loaded.
"""

from hrviewer.models.builtin_saliency import BUILTINS, builtin
from hrviewer.models.card import Card
from hrviewer.models.network import Network
from hrviewer.models.pack import JoinedPack, Pack, installed_packs, open_pack

__all__ = [
    "BUILTINS",
    "Card",
    "JoinedPack",
    "Network",
    "Pack",
    "builtin",
    "installed_packs",
    "open_pack",
]
