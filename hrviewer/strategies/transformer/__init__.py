"""High-resolution vision transformers: small tokens where there is detail, and context.

`transformer` is the strategy; `tokens` tiles a region with tokens, `regions` makes the requests.
"""

from hrviewer.strategies.transformer.tokens import REGION
from hrviewer.strategies.transformer.transformer import Transformer, TransformerParams

__all__ = ["REGION", "Transformer", "TransformerParams"]
