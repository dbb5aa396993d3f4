"""The table of installed models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hrviewer.errors import HrviewerError
from hrviewer.models.bundle import installed_bundles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["list_models"]


def list_models() -> pd.DataFrame:
    """List the installed models; ``hrviewer.models()`` calls this.

    Returns
    -------
    DataFrame
        A row per model bundle, by ``name``: its ``title``, the ``task`` and ``classes`` of its main
        model (or its first, if it has no ``main``), and its ``roles``. A bundle that cannot be read
        has its error as ``title``.

    Examples
    --------
    >>> import hrviewer
    >>> hrviewer.models().loc["nuclei", "task"]
    'density'
    """
    import pandas as pd

    rows: list[tuple[object, ...]] = []
    for name, installed in installed_bundles().items():
        try:
            bundle = installed.load()
        except HrviewerError as error:
            rows.append((name, str(error), "", [], []))
            continue
        card = bundle.card
        rows.append((name, bundle.title, card.task, card.classes, [*bundle.roles]))
    columns = ["name", "title", "task", "classes", "roles"]
    return pd.DataFrame(rows, columns=columns).set_index("name")
