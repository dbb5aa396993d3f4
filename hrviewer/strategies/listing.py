"""The table of installed strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrviewer.strategies.base import get_strategy, strategy_ids

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["list_strategies"]


def list_strategies() -> pd.DataFrame:
    """List the installed strategies; ``hrviewer.strategies()`` calls this.

    Returns
    -------
    DataFrame
        A row per strategy, by ``id``: its ``title``, ``family``, ``when`` to use it, the ``roles``
        that its models have, and its ``params`` with their defaults.

    Examples
    --------
    >>> import hrviewer
    >>> hrviewer.strategies().loc["patches", "family"]
    'baseline CIP'
    """
    import pandas as pd

    rows = []
    for name in strategy_ids():
        strategy = get_strategy(name)
        params = {key: field.default for key, field in strategy.Params.model_fields.items()}
        rows.append((name, strategy.title, strategy.family, strategy.when, strategy.roles, params))
    columns = ["id", "title", "family", "when", "roles", "params"]
    return pd.DataFrame(rows, columns=columns).set_index("id")
