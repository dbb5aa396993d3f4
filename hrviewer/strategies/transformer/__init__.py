"""High-resolution vision transformers: tokens where there is detail, and what is around them.

`transformer` is the strategy; `tokens` says which squares tile a region.
"""

from hrviewer.strategies.transformer.tokens import REGION
from hrviewer.strategies.transformer.transformer import Transformer, TransformerParams

__all__ = ["REGION", "Transformer", "TransformerParams"]
